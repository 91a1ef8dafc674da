package dnsforward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Config of a [Forwarder].
type Config struct {
	// Upstreams are the nameservers, asked in this order. At least one is required.
	Upstreams []netip.AddrPort
	Limits    Limits
	// Log gets rare events, never one line per question; nil discards them.
	Log *slog.Logger
	// Metrics is where counters are registered; nil means nowhere.
	Metrics prometheus.Registerer
}

// A question is asked at once, again resendAfter later, and a last time; the first answer counts.
// Losses inside a cluster are rare but real (a resolver that is being replaced), and the node gives
// up after 4 s.
const (
	resendAfter   = 700 * time.Millisecond
	maxAttempts   = 3
	answerTimeout = 3500 * time.Millisecond // for one question, all attempts
)

// Forwarder forwards questions. Use [New]; the caller must Close it.
type Forwarder struct {
	log      *slog.Logger
	metrics  *metrics
	clients  *clients
	udp, tcp []*upstream
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup // readers of lines, questions under way
}

// New returns a Forwarder that asks cfg.Upstreams.
func New(cfg Config) (*Forwarder, error) {
	if len(cfg.Upstreams) == 0 {
		return nil, errors.New("DNS forwarder: no nameserver to ask: the pod's /etc/resolv.conf names none")
	}
	f := &Forwarder{log: cfg.Log, metrics: newMetrics(cfg.Metrics),
		clients: &clients{limits: cfg.Limits.withDefaults(), all: map[netip.Addr]*client{}}}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	for _, s := range cfg.Upstreams {
		if !s.IsValid() || s.Addr().IsUnspecified() || s.Addr().IsMulticast() || s.Port() == 0 {
			f.cancel()
			return nil, fmt.Errorf("DNS forwarder: %s is no nameserver", s)
		}
		f.udp = append(f.udp, &upstream{server: s, network: "udp", life: f.ctx, readers: &f.running})
		f.tcp = append(f.tcp, &upstream{server: s, network: "tcp", life: f.ctx, readers: &f.running})
	}
	return f, nil
}

// Stop ends all questions under way, unanswered, and lets no more be asked. It does not wait.
func (f *Forwarder) Stop() { f.cancel() }

// Close stops the Forwarder and waits for its sockets. Serve must have returned.
func (f *Forwarder) Close() {
	f.cancel()
	f.running.Wait()
}

// answer returns the answer to the message raw, asked over servers; nil where a message deserves
// none. It returns after answerTimeout at the latest.
func (f *Forwarder) answer(servers []*upstream, raw []byte) []byte {
	q, err := parseQuery(raw)
	switch {
	case errors.Is(err, errOpcode):
		return failure(raw, dns.RcodeNotImplemented, dns.ExtendedErrorCodeNotSupported, "only ordinary queries are forwarded")
	case errors.Is(err, errTransfer):
		return failure(raw, dns.RcodeRefused, dns.ExtendedErrorCodeNotSupported, "zone transfers are not forwarded")
	case err != nil:
		return nil
	}
	begin := time.Now()
	answer, err := f.resolve(servers, q)
	if f.ctx.Err() != nil {
		return nil
	}
	f.metrics.asked(time.Since(begin), answer)
	if err != nil {
		f.log.Debug("no nameserver answers", "err", err)
		return failure(raw, dns.RcodeServerFailure, dns.ExtendedErrorCodeNoReachableAuthority, "no nameserver of the cluster answers")
	}
	return withID(answer, id(raw))
}

// reply is what one attempt brought.
type reply struct {
	answer []byte
	err    error
}

// unhelpful reports whether another nameserver may know better.
func (r reply) unhelpful() bool {
	if r.err != nil {
		return true
	}
	switch rcode(r.answer) {
	case dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented:
		return true
	}
	return false
}

// resolve asks servers in turn, the next one at once when one fails, until one answers.
func (f *Forwarder) resolve(servers []*upstream, q question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(f.ctx, answerTimeout)
	defer cancel()
	servers = servers[:min(len(servers), maxAttempts)]
	replies := make(chan reply, maxAttempts)
	send := time.NewTimer(0)
	defer send.Stop()
	sent, waiting := 0, 0
	var failed reply // an answer, if any, is better than an error
	for {
		select {
		case <-send.C:
			f.attempt(ctx, servers[sent%len(servers)], q, replies)
			sent, waiting = sent+1, waiting+1
			if sent < maxAttempts {
				send.Reset(resendAfter << (sent - 1))
			}
		case r := <-replies:
			waiting--
			if !r.unhelpful() {
				return r.answer, nil
			}
			if failed.answer == nil {
				failed = r
			}
			if sent < len(servers) {
				send.Reset(0)
			} else if waiting == 0 && (failed.answer != nil || sent == maxAttempts) {
				return failed.answer, failed.err
			}
		case <-ctx.Done():
			if failed.answer != nil {
				return failed.answer, nil
			}
			return nil, fmt.Errorf("no answer within %v", answerTimeout)
		}
	}
}

// attempt asks one server beside the caller, who reads replies or ends ctx.
func (f *Forwarder) attempt(ctx context.Context, u *upstream, q question, replies chan<- reply) {
	f.running.Go(func() {
		answer, err := u.ask(ctx, q)
		replies <- reply{answer, err}
	})
}
