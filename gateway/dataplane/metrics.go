package dataplane

import "github.com/prometheus/client_golang/prometheus"

// Results of an attempt to open a flow, the values of the label "result".
const (
	resultOpen        = "open"
	resultDenied      = "denied"      // by Permit or by the plane itself
	resultLimit       = "limit"       // a bound of Limits, or of the process, was reached
	resultRefused     = "refused"     // the destination refused
	resultUnreachable = "unreachable" // no route, a router said so, or a twin that does not exist
	resultTimeout     = "timeout"     // no answer within Timeouts.Dial
	resultAborted     = "aborted"     // the client or its Peer went away meanwhile
	resultError       = "error"       // anything else, for instance ping sockets not permitted
)

// Reasons why a packet was dropped without an answer, the values of the label "reason".
const (
	dropMalformed   = "malformed"
	dropSource      = "source"      // from no current Peer's address
	dropDestination = "destination" // to no current Peer's address
	dropProtocol    = "protocol"    // an upper-layer protocol that is not carried
	dropBusy        = "busy"        // a socket's or the queue's buffer was full
	dropLimited     = "rate"        // an ICMP error beyond the Peer's rate
)

// Metrics counts what a [Plane] does, for Prometheus.
type Metrics struct {
	flowsTotal *prometheus.CounterVec // protocol, result
	flows      *prometheus.GaugeVec   // protocol
	drops      *prometheus.CounterVec // reason
	bytes      *prometheus.CounterVec // direction
	packets    *prometheus.CounterVec // direction

	fromPeers, toPeers struct{ bytes, packets prometheus.Counter }
}

// NewMetrics makes the metrics culvert_dataplane_* and registers them with r, which may be nil.
// It panics when they are registered already, like prometheus.MustRegister.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		flowsTotal: counter("flows_total", "Attempts to open a flow, by protocol and result.", "protocol", "result"),
		flows: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "culvert", Subsystem: "dataplane",
			Name: "flows", Help: "Flows that are open now, by protocol."}, []string{"protocol"}),
		drops:   counter("drops_total", "Packets dropped without an answer, by reason.", "reason"),
		bytes:   counter("bytes_total", "Bytes of inner IP packets, by direction.", "direction"),
		packets: counter("packets_total", "Inner IP packets, by direction.", "direction"),
	}
	m.fromPeers.bytes = m.bytes.WithLabelValues("from_peers")
	m.fromPeers.packets = m.packets.WithLabelValues("from_peers")
	m.toPeers.bytes = m.bytes.WithLabelValues("to_peers")
	m.toPeers.packets = m.packets.WithLabelValues("to_peers")
	for _, p := range []Proto{TCP, UDP, Echo} {
		m.flows.WithLabelValues(p.String())
		m.flowsTotal.WithLabelValues(p.String(), resultOpen)
	}
	if r != nil {
		r.MustRegister(m.flowsTotal, m.flows, m.drops, m.bytes, m.packets)
	}
	return m
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "culvert", Subsystem: "dataplane",
		Name: name, Help: help}, labels)
}

func (m *Metrics) drop(reason string) { m.drops.WithLabelValues(reason).Inc() }
func (m *Metrics) result(p Proto, result string) {
	m.flowsTotal.WithLabelValues(p.String(), result).Inc()
}
func (m *Metrics) current(p Proto, delta float64) { m.flows.WithLabelValues(p.String()).Add(delta) }
