package reach

import (
	"context"
	"log/slog"
	"net/netip"
	"time"
)

// Verdict is what a probe showed of a prefix.
type Verdict string

// Verdicts.
const (
	// Working: the gateway answered through the tunnel.
	Working Verdict = "working"
	// Taken: a route, or something else that steers packets on this host, leads past the tunnel.
	Taken Verdict = "taken"
	// Blocked: a firewall on this host drops the packets to the prefix or the answers.
	Blocked Verdict = "blocked"
	// Refused: the gateway answered that it does not let this workstation reach the prefix.
	Refused Verdict = "refused"
	// Silent: the packets enter the tunnel, and no answer comes out, or one that says "unreachable".
	Silent Verdict = "silent"
	// Unproven: it could not be tried, or not to the end.
	Unproven Verdict = "unproven"
)

// Target is what one probe asks about.
type Target struct {
	// Prefix is what the answer is to speak for.
	Prefix netip.Prefix
	// Addr is the address inside Prefix that is probed.
	Addr netip.Addr
	// Gateway is the gateway's overlay address, of Addr's family.
	Gateway netip.Addr
}

// Result is what became of a Target.
type Result struct {
	Target
	Verdict Verdict
	// Detail is a sentence for people that begins with the prefix.
	Detail string
	// RTT is how long the answer took; 0 without one.
	RTT time.Duration
	// Route is where the kernel sends packets to Addr; zero when that could not be asked.
	Route Route
}

// Route is the kernel's answer to "where does an ordinary packet of this user to that address go?".
type Route struct {
	// Interface is its name; "" when the kernel sends the packet nowhere.
	Interface string
	// Table is the routing table that decides; 0 when unknown.
	Table int
	// NextHop is the router; the zero value means that the destination is on the link itself.
	NextHop netip.Addr
	// Local says that the address is one of this host.
	Local bool
	// Refusal says why the packet goes nowhere, such as "a blackhole route"; "" when it goes somewhere.
	Refusal string
}

// Config of a [Prober]. Interface and Tap are required.
type Config struct {
	// Interface is the tunnel's.
	Interface string
	// Tap sees the packets that enter and leave the tunnel.
	Tap *Tap
	// Log gets what each probe showed, at debug level; nil discards.
	Log *slog.Logger
}

// Prober probes prefixes. It may be used by several goroutines; runs over one Tap wait for each other.
type Prober struct {
	cfg  Config
	open func() (network, error)
}

// New returns a Prober over the tunnel of cfg.
func New(cfg Config) *Prober {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Prober{cfg: cfg, open: openNetwork}
}

// budget bounds a whole run.
const budget = 2 * time.Second

// Probe asks about all targets at once and returns a Result for each, in their order, after 2 s at the latest.
// What has no verdict by then, or when ctx ends, is Unproven.
func (p *Prober) Probe(ctx context.Context, targets []Target) []Result {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	r := newRun(p.cfg, targets)
	if err := p.probe(ctx, r); err != nil {
		r.failAll(err)
	}
	results := make([]Result, len(targets))
	for i, t := range targets {
		e := r.probes[t.Addr].evidence
		verdict, detail := judge(p.cfg.Interface, t, e)
		results[i] = Result{Target: t, Verdict: verdict, Detail: t.Prefix.String() + ": " + detail, RTT: e.rtt, Route: e.route}
		p.cfg.Log.Debug("reach: probed", "prefix", t.Prefix, "addr", t.Addr, "verdict", verdict, "rtt", e.rtt,
			"route", e.route, "entered", e.out, "left", e.in, "answer", e.answer, "from", e.from, "err", e.sendErr)
	}
	return results
}

// probe makes a run when it is its turn.
func (p *Prober) probe(ctx context.Context, r *run) error {
	if err := p.cfg.Tap.acquire(ctx); err != nil {
		return err
	}
	defer p.cfg.Tap.release()
	host, err := p.open()
	if err != nil {
		return err
	}
	defer host.close()
	return r.do(ctx, host)
}
