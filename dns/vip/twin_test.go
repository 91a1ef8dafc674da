package vip

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// twin is a pool of one family, slow and obvious: maps, and a search through everything. Times are whole seconds.
type twin struct {
	prefix  netip.Prefix
	perName int
	leases  map[netip.Addr]*twinLease // by virtual address
}

type twinLease struct {
	real    netip.Addr
	used    int64
	names   []string
	charged string // the name it counts for; "" for none
}

const twinQuarantine = 120

func (w *twin) find(real netip.Addr) (vip netip.Addr, l *twinLease) {
	for v, l := range w.leases {
		if l.real == real {
			return v, l
		}
	}
	return netip.Addr{}, nil
}

// addresses are what may be leased, in order.
func (w *twin) addresses() (all []netip.Addr) {
	for a := w.prefix.Addr().Next(); w.prefix.Contains(a.Next()); a = a.Next() {
		all = append(all, a)
	}
	return all
}

// preferred is the first free address from the one with the low bits of real on.
func (w *twin) preferred(real netip.Addr) netip.Addr {
	all := w.addresses()
	start := 0
	for i, a := range all {
		r, v := real.As4(), a.As4()
		if r[3]&0x1f == v[3]&0x1f { // all prefixes here are /27
			start = i
		}
	}
	for i := range all {
		if a := all[(start+i)%len(all)]; w.leases[a] == nil {
			return a
		}
	}
	return netip.Addr{}
}

// oldest are the virtual addresses of the leases idle longest, of those that pass.
func (w *twin) oldest(pass func(*twinLease) bool) (vips []netip.Addr, used int64) {
	for v, l := range w.leases {
		switch {
		case !pass(l), len(vips) > 0 && l.used > used:
		case len(vips) > 0 && l.used == used:
			vips = append(vips, v)
		default:
			vips, used = []netip.Addr{v}, l.used
		}
	}
	return vips, used
}

// lease says which addresses Lease may give, or its error, and which leases may stop counting for the name.
func (w *twin) lease(real netip.Addr, name string, now int64) (allowed, discharged []netip.Addr, err error) {
	vip, l := w.find(real)
	if l != nil && l.charged != "" {
		return []netip.Addr{vip}, nil, nil
	}
	mine := func(l *twinLease) bool { return l.charged == name }
	count := 0
	for _, l := range w.leases {
		if mine(l) {
			count++
		}
	}
	if count >= w.perName {
		var used int64
		if discharged, used = w.oldest(mine); now-used <= twinQuarantine {
			return nil, nil, ErrNameLimit
		}
	}
	if l != nil {
		return []netip.Addr{vip}, discharged, nil
	}
	if free := w.preferred(real); free.IsValid() {
		return []netip.Addr{free}, discharged, nil
	}
	all, used := w.oldest(func(*twinLease) bool { return true })
	if now-used <= twinQuarantine {
		return nil, discharged, ErrExhausted
	}
	return all, discharged, nil
}

// leased takes up what Lease gave.
func (w *twin) leased(vip, real netip.Addr, name string, now int64) {
	l := w.leases[vip]
	if l == nil || l.real != real {
		l = &twinLease{real: real}
		w.leases[vip] = l
	}
	l.used = now
	if l.charged == "" {
		l.charged = name
	}
	others := 0
	for i, n := range append(slices.Clone(l.names), name) {
		if i > 0 {
			others += len(n)
		}
	}
	if len(l.names) < maxNames && others <= maxOtherNames && !slices.Contains(l.names, name) {
		l.names = append(l.names, name)
	}
}

// restart is what a new process knows.
func (w *twin) restart(clean bool, now int64) {
	for _, l := range w.leases {
		l.charged = l.names[0]
		l.used = min(l.used+1, now)
		if !clean {
			l.used = now
		}
	}
}

func TestPoolDoesAsItsTwin(t *testing.T) {
	seeds := 8
	if testing.Short() {
		seeds = 4
	}
	outcomes := make(map[error]int)
	for i := range seeds {
		seed := rand.Uint64()
		perName := 3 + i%4*6
		t.Run(fmt.Sprint(perName, "-", seed), func(t *testing.T) { walkWithTwin(t, rand.New(rand.NewPCG(seed, 0)), perName, outcomes) })
	}
	if outcomes[nil] == 0 || outcomes[ErrExhausted] == 0 || outcomes[ErrNameLimit] == 0 {
		t.Errorf("not everything was tried: %v", outcomes)
	}
}

func walkWithTwin(t *testing.T, r *rand.Rand, perName int, outcomes map[error]int) {
	c := newClock()
	cfg := Config{Prefixes: prefixes("211.55.48.64/27"), Now: c.now, Path: filepath.Join(t.TempDir(), "vips"), PerName: perName}
	w := &twin{prefix: cfg.Prefixes[0], perName: cfg.PerName, leases: make(map[netip.Addr]*twinLease)}
	p := open(t, cfg)
	for range 4000 {
		now := c.t.Unix()
		real := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(r.IntN(24))})
		switch op := r.IntN(100); {
		case op < 60:
			name := fmt.Sprintf("n%d.", r.IntN(4))
			outcomes[leaseWithTwin(t, p, w, real, name, now)]++
		case op < 75:
			vip, l := w.find(real)
			got, ok := p.VIP(real)
			if ok != (l != nil) || got != vip {
				t.Fatalf("%v is called %v, want %v", real, got, vip)
			}
			if l != nil {
				l.used = now
			}
		case op < 98:
			vip := w.addresses()[r.IntN(30)]
			l := w.leases[vip]
			got, ok := p.Real(vip)
			if ok != (l != nil) || l != nil && got != l.real {
				t.Fatalf("%v stands for %v, want %v", vip, got, l)
			}
			if l != nil {
				l.used = now
			}
		default:
			clean := r.IntN(2) == 0
			if clean {
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				kill(p)
			}
			p = open(t, cfg)
			w.restart(clean, now)
		}
		c.pass(time.Duration(1+r.IntN(1<<r.IntN(7))) * time.Second)
		compareWithTwin(t, p, w, c.t.Unix())
	}
}

func leaseWithTwin(t *testing.T, p *Pool, w *twin, real netip.Addr, name string, now int64) error {
	t.Helper()
	allowed, discharged, wantErr := w.lease(real, name, now)
	got, err := p.Lease(real, name)
	if !errors.Is(err, wantErr) || err == nil && !slices.Contains(allowed, got) {
		t.Fatalf("lease of %v for %s: %v, %v; want %v, %v", real, name, got, err, allowed, wantErr)
	}
	if len(discharged) > 0 { // one of them: see which
		found := 0
		for _, vip := range discharged {
			if l := p.families[0].Load().vips.find(vip); l.holder == nil || l.real != w.leases[vip].real {
				w.leases[vip].charged = ""
				found++
			}
		}
		// A lease that stopped counting may have been the one to be renewed or reclaimed.
		if found == 0 && !slices.Contains(discharged, got) || found > 2 {
			t.Fatalf("%d of %v stopped counting for %s", found, discharged, name)
		}
	}
	if err == nil {
		w.leased(got, real, name, now)
	}
	return wantErr
}

// compareWithTwin checks everything that can be seen: the leases one to one, what is reclaimable, who holds what.
func compareWithTwin(t *testing.T, p *Pool, w *twin, now int64) {
	t.Helper()
	f := p.families[0].Load()
	old, held := 0, make(map[string]int)
	for vip, l := range w.leases {
		got := f.vips.find(vip)
		if got == nil || got.real != l.real || f.reals.find(l.real) != got {
			t.Fatalf("%v: %+v, want %+v", vip, got, l)
		}
		if charged := got.holder; (charged == nil) != (l.charged == "") || charged != nil && charged.name != l.charged {
			t.Fatalf("%v counts for %+v, want %q", vip, charged, l.charged)
		}
		if l.charged != "" {
			held[l.charged]++
		}
		if now-l.used > twinQuarantine {
			old++
		}
	}
	s := p.Stats().Pools[0]
	if s.Leased != len(w.leases) || s.Reclaimable != old || f.reals.live != len(w.leases) || f.vips.live != len(w.leases) {
		t.Fatalf("%+v, %d and %d in the tables; want %d leases, %d reclaimable", s, f.vips.live, f.reals.live, len(w.leases), old)
	}
	got := make(map[string]int)
	for name, h := range f.holders {
		got[name] = h.leases.len()
	}
	if !maps.Equal(got, held) {
		t.Fatalf("holders %v, want %v", got, held)
	}
}

// Whatever happens, prefixes that move and come back included, an address never means another host before the
// quarantine after its last use is over, and no two hosts share one.
func TestNoAddressChangesItsMeaningEarly(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 3
	}
	for range seeds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { walkMeanings(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

type meaning struct {
	real netip.Addr
	used time.Time
}

func walkMeanings(t *testing.T, r *rand.Rand) {
	c := newClock()
	pools := [][]netip.Prefix{
		prefixes("211.55.48.64/27"), prefixes("211.55.48.64/28"), prefixes("211.55.48.0/25", "fd8a::/124"),
		prefixes("fd8a::/124"), prefixes("fd8a::/123", "245.0.0.0/28"),
	}
	cfg := Config{Prefixes: pools[0], Now: c.now, Path: filepath.Join(t.TempDir(), "vips"), PerName: 20}
	p := open(t, cfg)
	meanings := make(map[netip.Addr]meaning)
	means := func(vip, real netip.Addr) {
		t.Helper()
		if old, ok := meanings[vip]; ok && old.real != real && c.t.Sub(old.used) < 2*time.Minute {
			t.Fatalf("%v meant %v %v ago and now %v", vip, old.real, c.t.Sub(old.used), real)
		}
		meanings[vip] = meaning{real, c.t}
	}
	changed := 0
	for range 4000 {
		real := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(r.IntN(48))})
		if r.IntN(2) == 0 {
			real = netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(r.IntN(2)), 15: byte(r.IntN(32))})
		}
		switch op := r.IntN(100); {
		case op < 60:
			if vip, err := p.Lease(real, fmt.Sprint(r.IntN(3))); err == nil {
				if old, ok := meanings[vip]; ok && old.real != real {
					changed++
				}
				means(vip, real)
			}
		case op < 85:
			if vip, ok := p.VIP(real); ok {
				means(vip, real)
				if back, ok := p.Real(vip); !ok || back != real {
					t.Fatalf("%v is called %v, which stands for %v", real, vip, back)
				}
			}
		case op < 95:
			cfg.Prefixes = pools[r.IntN(len(pools))]
			if err := p.SetPrefixes(cfg.Prefixes); err != nil {
				t.Fatal(err)
			}
		default:
			if r.IntN(2) == 0 {
				p.Close()
			} else {
				kill(p)
			}
			c.pass(time.Duration(r.IntN(3)) * time.Minute / 2)
			p = open(t, cfg)
		}
		c.pass(time.Duration(r.IntN(1<<(10+r.IntN(7)))) * time.Millisecond)
	}
	if changed == 0 {
		t.Error("no address ever changed its meaning: nothing was tried")
	}
}

// The queue gives the longest idle, whatever was used meanwhile: few leases, or nearly all.
func TestQueueGivesTheLongestIdle(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 2))
	q := queue{}
	var in []*lease
	for now := int32(1); now < 5000; now++ {
		switch op := r.IntN(10); {
		case op < 5 || len(in) == 0:
			l := new(lease)
			l.used.Store(r.Int32N(now))
			in = append(in, l)
			q.push(l)
		case op < 7:
			i := r.IntN(len(in))
			q.remove(in[i])
			in = slices.Delete(in, i, i+1)
		case op < 8 && now%50 == 0:
			for _, l := range in {
				l.touch(r.Int32N(now))
			}
		default:
			in[r.IntN(len(in))].touch(now)
		}
		if len(in) == 0 {
			continue
		}
		want := slices.MinFunc(in, func(a, b *lease) int { return int(a.used.Load() - b.used.Load()) })
		if l, used := q.oldest(); used != l.used.Load() || used != want.used.Load() || q.len() != len(in) || q.items[l.at[0]].lease != l {
			t.Fatalf("seed %d, step %d: used %d, want %d", seed, now, used, want.used.Load())
		}
	}
}
