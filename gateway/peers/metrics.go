package peers

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/culvert-dev/culvert/gateway/status"
)

// metrics count what the Controller does.
type metrics struct {
	peers  *prometheus.GaugeVec
	writes *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		peers: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "culvert_peers",
			Help: "Peers by the reason of their Ready condition."}, []string{"reason"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "culvert_peer_writes_total",
			Help: "Requests that changed Peers, by kind and result."}, []string{"kind", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.peers, m.writes)
	}
	return m
}

// planned shows how many Peers have which answer.
func (m *metrics) planned(plan Plan) {
	m.peers.Reset()
	for _, a := range plan.Answers {
		for _, c := range a.Status.Conditions {
			m.peers.WithLabelValues(c.Reason).Inc()
		}
	}
}

func (m *metrics) wrote(kind string, err error) {
	result := "ok"
	switch {
	case errors.Is(err, status.ErrStale):
		result = "stale"
	case err != nil:
		result = "error"
	}
	m.writes.WithLabelValues(kind, result).Inc()
}
