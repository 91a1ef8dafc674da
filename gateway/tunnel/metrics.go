package tunnel

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/culvert-dev/culvert/internal/carrier"
)

// carrierMetrics shows the carrier's counters, read once per scrape.
type carrierMetrics struct{ stats func() carrier.Stats }

var (
	streamsDesc = prometheus.NewDesc("culvert_carrier_streams", "Streams of Peers that are open now.", nil, nil)
	openedDesc  = prometheus.NewDesc("culvert_carrier_streams_total", "Streams by what became of them.", []string{"result"}, nil)
	bytesDesc   = prometheus.NewDesc("culvert_carrier_bytes_total", "Bytes of WireGuard packets on streams, by direction.", []string{"direction"}, nil)
	droppedDesc = prometheus.NewDesc("culvert_carrier_dropped_packets_total", "WireGuard packets given up on the way to a stream.", nil, nil)
)

// Describe names the metrics.
func (c carrierMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{streamsDesc, openedDesc, bytesDesc, droppedDesc} {
		out <- d
	}
}

// Collect reads them.
func (c carrierMetrics) Collect(out chan<- prometheus.Metric) {
	s := c.stats()
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	out <- prometheus.MustNewConstMetric(streamsDesc, prometheus.GaugeValue, float64(s.Streams))
	count(openedDesc, s.Accepted, "accepted")
	count(openedDesc, s.Refused, "refused")
	count(bytesDesc, s.SentBytes, "to_peers")
	count(bytesDesc, s.ReceivedBytes, "from_peers")
	count(droppedDesc, s.Dropped)
}
