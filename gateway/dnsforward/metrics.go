package dnsforward

import (
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics count questions; none of them names a Peer or a domain.
type metrics struct {
	answers *prometheus.CounterVec
	dropped *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "culvert_dns_answers_total",
			Help: "Answers to forwarded DNS questions by response code; none where no nameserver answered."}, []string{"rcode"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "culvert_dns_dropped_total",
			Help: "DNS questions (udp) and connections (tcp) beyond a Peer's limits."}, []string{"transport"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "culvert_dns_seconds",
			Help:    "Time a nameserver took to answer.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}}),
	}
	if reg != nil {
		reg.MustRegister(m.answers, m.dropped, m.seconds)
	}
	return m
}

// asked counts one question that took the given time; answer is nil if there was none.
func (m *metrics) asked(took time.Duration, answer []byte) {
	m.seconds.Observe(took.Seconds())
	if answer == nil {
		m.answers.WithLabelValues("none").Inc()
		return
	}
	name, ok := dns.RcodeToString[rcode(answer)]
	if !ok {
		name = "other"
	}
	m.answers.WithLabelValues(name).Inc()
}
