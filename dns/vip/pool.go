package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrExhausted: every address of the pool is leased and none was idle for the quarantine.
	ErrExhausted = errors.New("no virtual address left")
	// ErrNameLimit: the name holds as many leases as one name may.
	ErrNameLimit = errors.New("too many virtual addresses for one name")
	// ErrNoPool: the pool has no prefix of the address's family.
	ErrNoPool = errors.New("no pool of virtual addresses for this family")
	// ErrClosed: the pool was closed.
	ErrClosed = errors.New("the pool of virtual addresses is closed")
	// ErrLocked: another process has the file.
	ErrLocked = errors.New("in use by another process")
)

const (
	defaultQuarantine = 2 * time.Minute
	maxNameBytes      = 1024 // of a name; a DNS name takes 1004 at most, every byte escaped
)

// Config is what a pool is made of.
type Config struct {
	Prefixes   []netip.Prefix   // at most one per family; the first and the last address are never leased
	Reserved   []netip.Addr     // never leased either
	Path       string           // of the file, whose directory is made if need be; "" keeps leases in memory only
	Quarantine time.Duration    // 0 = 2 minutes; must be longer than any TTL handed out
	PerName    int              // leases of one family that count for one name; 0 = a quarter of the pool, at most 4096
	Now        func() time.Time // nil = time.Now
	Log        *slog.Logger     // nil = nowhere
}

// Pool leases virtual addresses.
type Pool struct {
	cfg      Config
	elapsed  func() time.Duration // since Open; not the wall clock, which may be set
	patience int32                // seconds a lease must be idle before it is reclaimed
	families [2]atomic.Pointer[family]

	mu      sync.Mutex // guards all below, and the families but for their tables
	closed  bool
	store   *store      // nil without a file
	retired [2][]*lease // of prefixes that were left, and may come back
	counts  [2]counts
}

// Open returns the pool with the leases of the file that fit the prefixes. It fails with [ErrLocked] while another
// process has the file, and for prefixes that are none. What cannot be read is logged and put aside.
func Open(cfg Config) (*Pool, error) {
	p := newPool(cfg)
	want, err := perFamily(cfg.Prefixes)
	if err != nil {
		return nil, err
	}
	clean := false
	if cfg.Path != "" {
		if p.store, err = openStore(cfg.Path, p.cfg.Log); err != nil {
			return nil, err
		}
		clean = p.restore()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range want {
		p.moveLocked(i, want[i])
	}
	p.startFileLocked(clean)
	return p, nil
}

func newPool(cfg Config) *Pool {
	if cfg.Quarantine == 0 {
		cfg.Quarantine = defaultQuarantine
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Pool{cfg: cfg}
	// Seconds are rounded down: one more makes sure of the whole quarantine.
	p.patience = int32((cfg.Quarantine+time.Second-1)/time.Second) + 1
	if cfg.Now == nil {
		start := time.Now()
		p.cfg.Now, p.elapsed = time.Now, func() time.Duration { return time.Since(start) }
	} else {
		start := cfg.Now()
		p.elapsed = func() time.Duration { return cfg.Now().Sub(start) }
	}
	return p
}

// now returns the second of the pool's clock.
func (p *Pool) now() int32 { return int32(p.elapsed() / time.Second) }

// perFamily returns the one prefix of each family, the zero value where there is none.
func perFamily(prefixes []netip.Prefix) (want [2]netip.Prefix, err error) {
	for _, prefix := range prefixes {
		if !prefix.IsValid() || prefix.Addr().Is4In6() || lastOffset(prefix) == 0 {
			return want, fmt.Errorf("virtual addresses cannot be taken from %v: it has no room for any", prefix)
		}
		i := familyOf(prefix.Addr())
		if want[i].IsValid() {
			return want, fmt.Errorf("virtual addresses are taken from one prefix per family, not from %v and %v", want[i], prefix)
		}
		want[i] = prefix.Masked()
	}
	return want, nil
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Lease returns the virtual address of real, and counts that as use. A lease that is there is renewed, else a new one
// is made; it counts for name, which is remembered for people. Errors are [ErrExhausted], [ErrNameLimit], [ErrNoPool]
// and [ErrClosed]; they concern this call only.
func (p *Pool) Lease(real netip.Addr, name string) (netip.Addr, error) {
	real = real.Unmap().WithZone("")
	name = strings.ToLower(name[:min(len(name), maxNameBytes)])
	p.mu.Lock()
	defer p.mu.Unlock()
	i := familyOf(real)
	f := p.families[i].Load()
	switch {
	case p.closed:
		return netip.Addr{}, ErrClosed
	case f == nil || !real.IsValid():
		return netip.Addr{}, fmt.Errorf("%w: %v", ErrNoPool, real)
	}
	l, err := p.leaseLocked(f, real, name)
	if err != nil {
		p.counts[i].failed(err, name)
		return netip.Addr{}, err
	}
	return l.vip, nil
}

func (p *Pool) leaseLocked(f *family, real netip.Addr, name string) (*lease, error) {
	now := p.now()
	l := f.reals.find(real)
	if l != nil && l.holder != nil {
		l.touch(now)
		p.renewLocked(l, name, now)
		return l, nil
	}
	err := f.admit(name, now, p.patience)
	if err != nil {
		return nil, err
	}
	if l == nil {
		if l, err = f.take(real, now, p.patience); err != nil {
			return nil, err
		}
		l.since, l.noted = p.cfg.Now().Unix(), now-p.patience
	}
	l.touch(now)
	f.charge(l, name)
	p.renewLocked(l, name, now)
	return l, nil
}

// renewLocked remembers the name, and notes the lease in the file: a new one at once, a renewal once per quarantine.
func (p *Pool) renewLocked(l *lease, name string, now int32) {
	l.addName(name)
	if now-l.noted >= p.patience {
		p.noteLocked(l, now)
	}
}

// Real returns what the virtual address vip stands for, and counts that as use. It is meant for every packet.
func (p *Pool) Real(vip netip.Addr) (netip.Addr, bool) {
	f := p.families[familyOf(vip)].Load()
	if f == nil {
		return netip.Addr{}, false
	}
	l := f.vips.find(vip)
	if l == nil || !l.touch(p.now()) {
		return netip.Addr{}, false
	}
	return l.real, true
}

// VIP returns the virtual address that is leased to real, and counts that as use. It is meant for every packet.
func (p *Pool) VIP(real netip.Addr) (netip.Addr, bool) {
	f := p.families[familyOf(real)].Load()
	if f == nil {
		return netip.Addr{}, false
	}
	l := f.reals.find(real)
	if l == nil || !l.touch(p.now()) {
		return netip.Addr{}, false
	}
	return l.vip, true
}

// Quiet is a pool whose Real counts as no use: for those who only want to know, like a PTR query.
type Quiet struct{ *Pool }

// Real returns what the virtual address vip stands for.
func (q Quiet) Real(vip netip.Addr) (netip.Addr, bool) {
	f := q.families[familyOf(vip)].Load()
	if f == nil {
		return netip.Addr{}, false
	}
	l := f.vips.find(vip)
	if l == nil || l.used.Load() == gone {
		return netip.Addr{}, false
	}
	return l.real, true
}

// Info is one lease as people see it.
type Info struct {
	VIP   netip.Addr `json:"vip"`
	Real  netip.Addr `json:"real"`
	Names []string   `json:"names,omitempty"` // the first few it was asked for by
	Since time.Time  `json:"since"`
	Used  time.Time  `json:"used"` // right within seconds, never too early
}

// Peek returns the lease of vip without counting that as use.
func (p *Pool) Peek(vip netip.Addr) (Info, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.families[familyOf(vip)].Load()
	if f == nil {
		return Info{}, false
	}
	return p.infoLocked(f.vips.find(vip))
}

// PeekReal is Peek for the lease of a real address.
func (p *Pool) PeekReal(real netip.Addr) (Info, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.families[familyOf(real)].Load()
	if f == nil {
		return Info{}, false
	}
	return p.infoLocked(f.reals.find(real))
}

func (p *Pool) infoLocked(l *lease) (Info, bool) {
	if l == nil || l == removed {
		return Info{}, false
	}
	return Info{
		VIP: l.vip, Real: l.real, Names: append([]string(nil), l.names...),
		Since: time.Unix(l.since, 0), Used: time.Unix(p.unixLocked(l.used.Load(), p.now()), 0),
	}, true
}

// unixLocked returns the second used of the pool's clock in Unix seconds. The clock stands still while the host
// sleeps; counting back from now, a time may come out too late but never too early.
func (p *Pool) unixLocked(used, now int32) int64 {
	wall := p.cfg.Now().Unix()
	return min(wall, wall-int64(now-used)+1)
}

// SetPrefixes changes the prefixes. Leases that fit stay, others are put aside: they come back should their prefix
// do, and their addresses mean nothing else before the quarantine is over.
func (p *Pool) SetPrefixes(prefixes []netip.Prefix) error {
	want, err := perFamily(prefixes)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range want {
		f := p.families[i].Load()
		if f == nil && want[i].IsValid() || f != nil && f.prefix != want[i] {
			p.moveLocked(i, want[i])
		}
	}
	return nil
}

// moveLocked gives family i the prefix want, or none, and those leases that fit. Of two that do not go together, the
// later one in the order of the retired and then the present ones counts.
func (p *Pool) moveLocked(i int, want netip.Prefix) {
	leases, present := p.retired[i], 0
	if old := p.families[i].Load(); old != nil {
		present = old.idle.len()
		for _, it := range old.idle.items {
			leases = append(leases, it.lease)
		}
	}
	p.retired[i] = nil
	if !want.IsValid() {
		p.retireLocked(i, nil, leases)
		p.families[i].Store(nil)
		return
	}
	f := newFamily(want, p.cfg.Reserved, p.cfg.PerName, len(leases))
	var left []*lease
	for n := len(leases) - 1; n >= 0; n-- {
		if l := leases[n]; f.fits(l) {
			f.adopt(l)
		} else {
			left = append(left, l)
		}
	}
	slices.Reverse(left)
	p.retireLocked(i, f, left)
	p.families[i].Store(f)
	if moved := f.idle.len(); moved < present {
		p.cfg.Log.Info("virtual addresses have moved", "prefix", want, "leases", present, "kept", moved)
	}
}

// retireLocked puts leases aside that were in use within the quarantine, and keeps f from leasing their addresses.
func (p *Pool) retireLocked(i int, f *family, leases []*lease) {
	now := p.now()
	for _, l := range leases {
		if now-l.used.Load() >= p.patience {
			continue
		}
		p.retired[i] = append(p.retired[i], l)
		if f != nil && f.usable(l.vip) && f.vips.find(l.vip) == nil {
			f.reserved[f.offset(l.vip)] = true
		}
	}
	if f != nil {
		f.recount()
	}
}

// fits reports whether the family can take l up.
func (f *family) fits(l *lease) bool {
	return f.usable(l.vip) && !f.reserved[f.offset(l.vip)] && f.idle.len() < f.capacity &&
		f.vips.find(l.vip) == nil && f.reals.find(l.real) == nil
}

// adopt takes up a lease of another family, or of the file.
func (f *family) adopt(l *lease) {
	l.skip = f.offset(l.vip) + 1
	l.holder = nil
	f.add(l)
	if len(l.names) > 0 {
		f.charge(l, l.names[0])
	}
}

// Close writes the file with the last uses and lets go of it. Lookups go on, leases do not. A second Close does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.closeFileLocked()
}
