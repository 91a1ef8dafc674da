package vip

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/culvert-dev/culvert/dns"
)

var _ dns.Pool = Quiet{}

// clock is a clock that a test sets.
type clock struct{ t time.Time }

func newClock() *clock                { return &clock{time.Unix(1_764_000_000, 0)} }
func (c *clock) now() time.Time       { return c.t }
func (c *clock) pass(d time.Duration) { c.t = c.t.Add(d) }
func addr(s string) netip.Addr        { return netip.MustParseAddr(s) }
func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func open(t testing.TB, cfg Config) *Pool {
	t.Helper()
	p, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// get leases and fails the test if that fails.
func get(t testing.TB, p *Pool, real, name string) string {
	t.Helper()
	vip, err := p.Lease(addr(real), name)
	if err != nil {
		t.Fatalf("%s for %s: %v", real, name, err)
	}
	return vip.String()
}

func TestNewLeasesLookLikeTheRealAddress(t *testing.T) {
	for _, row := range []struct{ pool, real, want string }{
		{"211.55.48.0/20", "10.130.4.7", "211.55.52.7"},
		{"211.55.48.0/20", "10.130.48.0", "211.55.48.1"},   // the first address is no host's
		{"211.55.48.0/20", "10.130.63.255", "211.55.48.1"}, // nor is the last
		{"211.55.48.0/30", "10.130.0.2", "211.55.48.2"},
		{"245.0.0.0/8", "10.130.4.7", "245.130.4.7"},
		{"240.0.0.0/4", "10.130.4.7", "250.130.4.7"},
		{"fd8a:1::/64", "fd00:10:244::17", "fd8a:1::17"},
		{"fd8a:1::/64", "fd00:10:244::ffff:ffff:ffff:ffff", "fd8a:1::1"},
		{"fd8a:1::/48", "fd00:10:244:9::17", "fd8a:1::17"},
		{"fd8a:1::/112", "fd00:10:244::1:17", "fd8a:1::17"},
	} {
		p := open(t, Config{Prefixes: prefixes(row.pool)})
		if got := get(t, p, row.real, "a."); got != row.want {
			t.Errorf("%s out of %s: %s, want %s", row.real, row.pool, got, row.want)
		}
	}
}

func TestLeaseAndLookUp(t *testing.T) {
	c := newClock()
	p := open(t, Config{Prefixes: prefixes("211.55.48.0/20", "fd8a::/64"), Now: c.now, Reserved: []netip.Addr{addr("211.55.48.8")}})
	first := get(t, p, "10.0.0.7", "Echo.")
	c.pass(time.Minute)
	if again := get(t, p, "::ffff:10.0.0.7", "other."); again != first {
		t.Errorf("%s again: %s", first, again)
	}
	if got := get(t, p, "10.1.0.8", "a."); got != "211.55.48.9" {
		t.Errorf("beside a reserved address: %s", got)
	}
	if got := get(t, p, "10.1.0.7", "a."); got != "211.55.48.10" {
		t.Errorf("beside taken and reserved addresses: %s", got)
	}
	get(t, p, "fd00::7", "a.")
	for _, row := range []struct{ vip, real string }{{first, "10.0.0.7"}, {"211.55.48.9", "10.1.0.8"}, {"fd8a::7", "fd00::7"}} {
		if real, ok := p.Real(addr(row.vip)); !ok || real != addr(row.real) {
			t.Errorf("%s stands for %v, %v", row.vip, real, ok)
		}
		if vip, ok := p.VIP(addr(row.real)); !ok || vip != addr(row.vip) {
			t.Errorf("%s is called %v, %v", row.real, vip, ok)
		}
	}
	for _, a := range []netip.Addr{addr("211.55.48.99"), addr("fd8a::99"), {}} {
		if real, ok := p.Real(a); ok {
			t.Errorf("%v stands for %v", a, real)
		}
		if vip, ok := p.VIP(a); ok {
			t.Errorf("%v is called %v", a, vip)
		}
		if info, ok := p.Peek(a); ok {
			t.Errorf("%v is leased: %v", a, info)
		}
	}
	c.pass(time.Minute)
	info, ok := p.Peek(addr(first))
	if !ok || info.Real != addr("10.0.0.7") || !slices.Equal(info.Names, []string{"echo.", "other."}) ||
		!info.Since.Equal(c.t.Add(-2*time.Minute)) || info.Used.Sub(c.t.Add(-time.Minute)).Abs() > time.Second {
		t.Errorf("%+v, %v at %v", info, ok, c.t)
	}
	if same, ok := p.PeekReal(info.Real); !ok || !reflect.DeepEqual(same, info) {
		t.Errorf("by what it stands for: %+v, %v", same, ok)
	}
	if _, ok := p.PeekReal(addr("10.9.9.9")); ok {
		t.Error("a lease of an address that has none")
	}
}

// The cluster chooses names: however long they are, a lease remembers but a little.
func TestLongNamesCostLittle(t *testing.T) {
	cfg := Config{Prefixes: prefixes("211.55.48.0/20"), Path: filepath.Join(t.TempDir(), "pool")}
	p := open(t, cfg)
	long := func(c string) string { return strings.Repeat(c, 250) + "." }
	var reals []string
	for i := range 100 {
		reals = append(reals, fmt.Sprintf("10.130.4.%d", i))
		for _, name := range []string{long("a"), long("b"), long("c"), "short.", long("d"), "another."} {
			get(t, p, reals[i], name)
		}
	}
	check := func(p *Pool) {
		t.Helper()
		var first string
		for i, real := range reals {
			info, ok := p.PeekReal(addr(real))
			if want := []string{long("a"), long("b")}; !ok || !slices.Equal(info.Names, want) {
				t.Fatalf("%s has %d names, %q, want %q", real, len(info.Names), info.Names, want)
			}
			if i == 0 {
				first = info.Names[0]
			} else if unsafe.StringData(info.Names[0]) != unsafe.StringData(first) {
				t.Fatalf("%s has the name once more", real)
			}
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, cfg))
	// What an earlier version or somebody else wrote.
	var lines strings.Builder
	fmt.Fprintln(&lines, fileHeader)
	for i, real := range reals {
		fmt.Fprintf(&lines, "lease 211.55.48.%d %s 1764079200 1764079300 %q %q %q %q\n", i+1, real, long("a"), long("b"), long("c"), long("d"))
	}
	cfg.Path = filepath.Join(t.TempDir(), "pool")
	if err := os.WriteFile(cfg.Path, []byte(lines.String()+lineClosed+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(open(t, cfg))
}

func TestReclaim(t *testing.T) {
	c := newClock()
	p := open(t, Config{Prefixes: prefixes("211.55.48.0/29"), Now: c.now, PerName: 100}) // six addresses
	for i := range 6 {
		get(t, p, fmt.Sprintf("10.0.0.%d", i+1), fmt.Sprint(i))
		c.pass(time.Second)
	}
	refused := func(when string) {
		t.Helper()
		if vip, err := p.Lease(addr("10.0.0.99"), "new."); !errors.Is(err, ErrExhausted) {
			t.Errorf("%s: %v, %v", when, vip, err)
		}
	}
	refused("nothing is old enough")
	c.pass(2*time.Minute - 6*time.Second) // the first lease is two minutes old, rounded
	refused("just about two minutes")
	c.pass(time.Second)
	p.Peek(addr("211.55.48.2"))
	if real, ok := (Quiet{p}).Real(addr("211.55.48.2")); !ok || real != addr("10.0.0.2") {
		t.Errorf("asked quietly: %v, %v", real, ok)
	}
	p.Real(addr("211.55.48.1")) // a packet
	refused("packets keep the oldest, the next is not old enough")
	c.pass(time.Second)
	if got := get(t, p, "10.0.0.98", "newer."); got != "211.55.48.2" {
		t.Errorf("took %s: those who only looked kept the oldest", got)
	}
	p.VIP(addr("10.0.0.98"))
	get(t, p, "10.0.0.3", "2")
	c.pass(time.Minute)
	if got := get(t, p, "10.0.0.99", "new."); got != "211.55.48.4" {
		t.Errorf("took %s, not the longest idle", got)
	}
	if vip, ok := p.VIP(addr("10.0.0.4")); ok {
		t.Errorf("the reclaimed lease is there: %v", vip)
	}
	if got := get(t, p, "10.0.0.4", "3"); got != "211.55.48.5" {
		t.Errorf("took %s, not the longest idle", got)
	}
	s := p.Stats().Pools[0]
	if s.Capacity != 6 || s.Leased != 6 || s.Reclaimable != 1 || s.Exhausted != 3 || s.LastExhausted != "new." || s.Refused != 0 {
		t.Errorf("%+v", s)
	}
}

func TestOneNameCannotHaveThePool(t *testing.T) {
	c := newClock()
	p := open(t, Config{Prefixes: prefixes("211.55.48.0/24"), Now: c.now, PerName: 3})
	for i := range 3 {
		get(t, p, fmt.Sprintf("10.0.0.%d", i+1), "big.")
		c.pass(time.Second)
	}
	if _, err := p.Lease(addr("10.0.0.4"), "Big."); !errors.Is(err, ErrNameLimit) {
		t.Errorf("a fourth: %v", err)
	}
	get(t, p, "10.0.0.1", "big.") // renewals are free
	get(t, p, "10.0.0.4", "small.")
	get(t, p, "10.0.0.4", "big.") // counts for the other name
	c.pass(2 * time.Minute)
	p.Real(addr("211.55.48.2"))
	get(t, p, "10.0.0.5", "big.") // the third is idle and counts no longer
	if real, ok := p.Real(addr("211.55.48.3")); !ok || real != addr("10.0.0.3") {
		t.Errorf("an address was taken back without need: %v, %v", real, ok)
	}
	get(t, p, "10.0.0.1", "big.")
	if _, err := p.Lease(addr("10.0.0.3"), "big."); !errors.Is(err, ErrNameLimit) {
		t.Errorf("one that no longer counts comes back: %v", err)
	}
	get(t, p, "10.0.0.3", "small.")
	text, err := json.Marshal(p.Stats())
	if want := `{"pools":[{"prefix":"211.55.48.0/24","capacity":254,"leased":5,"reclaimable":0,"perName":3,"exhausted":0,"refused":2,"lastRefused":"big."}]}`; err != nil || string(text) != want {
		t.Errorf("%s, %v\nwant %s", text, err, want)
	}
}

func TestRefusedConfigurations(t *testing.T) {
	for _, bad := range [][]netip.Prefix{
		prefixes("211.55.48.0/31"), prefixes("fd8a::1/128"), prefixes("211.55.48.0/24", "245.0.0.0/8"),
		prefixes("::ffff:211.55.48.0/120"), {netip.Prefix{}},
	} {
		if _, err := Open(Config{Prefixes: bad}); err == nil {
			t.Errorf("%v is no error", bad)
		}
	}
	p := open(t, Config{Prefixes: prefixes("211.55.48.0/20")})
	for _, a := range []netip.Addr{addr("fd00::1"), {}} {
		if _, err := p.Lease(a, "a."); !errors.Is(err, ErrNoPool) {
			t.Errorf("%v: %v", a, err)
		}
	}
	p.Close()
	if _, err := p.Lease(addr("10.0.0.1"), "a."); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestLeasesSurvive(t *testing.T) {
	for _, row := range []struct {
		name  string
		end   func(*Pool)
		clean bool
	}{
		{"quit", func(p *Pool) { p.Close() }, true},
		{"kill -9", kill, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newClock()
			cfg := Config{Prefixes: prefixes("211.55.48.0/29", "fd8a::/64"), Now: c.now, Path: filepath.Join(t.TempDir(), "new", "vips")}
			p := open(t, cfg)
			first := get(t, p, "10.0.0.13", `odd name".`)
			c.pass(time.Second)
			second := get(t, p, "10.0.0.5", "b.")
			third := get(t, p, "fd00::5", "b.")
			c.pass(time.Hour)
			p.Real(addr(second))
			row.end(p)
			c.pass(time.Minute)

			p = open(t, cfg)
			for real, vip := range map[string]string{"10.0.0.13": first, "10.0.0.5": second, "fd00::5": third} {
				if info, ok := p.Peek(addr(vip)); !ok || info.Real != addr(real) {
					t.Errorf("%s stands for %v, %v", vip, info.Real, ok)
				}
			}
			if info, _ := p.Peek(addr(first)); !slices.Equal(info.Names, []string{`odd name".`}) || !info.Since.Equal(newClock().t) {
				t.Errorf("%+v", info)
			}
			want := map[bool]int{true: 1, false: 0}[row.clean] // after a crash nobody knows the last use
			if s := p.Stats(); s.Pools[0].Reclaimable != want || s.Pools[0].Leased != 2 || s.Error != "" {
				t.Errorf("%+v", s)
			}
			if info, err := os.Stat(cfg.Path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
}

// kill ends a pool as the end of its process does.
func kill(p *Pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.store != nil {
		p.store.give()
		p.store.lock.Close()
	}
}

func TestOneProcessHasTheFile(t *testing.T) {
	cfg := Config{Prefixes: prefixes("211.55.48.0/20"), Path: filepath.Join(t.TempDir(), "vips")}
	p := open(t, cfg)
	if _, err := Open(cfg); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), cfg.Path) {
		t.Errorf("a second one: %v", err)
	}
	p.Close()
	open(t, cfg)
}

func TestPrefixesChange(t *testing.T) {
	c := newClock()
	p := open(t, Config{Prefixes: prefixes("211.55.48.0/24"), Now: c.now, Path: filepath.Join(t.TempDir(), "vips")})
	set := func(s ...string) {
		t.Helper()
		if err := p.SetPrefixes(prefixes(s...)); err != nil {
			t.Fatal(err)
		}
	}
	stays := func(vip, real string) {
		t.Helper()
		if got, ok := p.Real(addr(vip)); !ok || got != addr(real) {
			t.Errorf("%s stands for %v, %v", vip, got, ok)
		}
	}
	get(t, p, "10.0.0.7", "a.")
	get(t, p, "10.0.0.200", "b.")
	set("211.55.48.0/24", "fd8a::/64")
	get(t, p, "fd00::1", "a.")
	set("211.55.48.0/20", "fd8a::/64")
	stays("211.55.48.7", "10.0.0.7")
	stays("fd8a::1", "fd00::1")
	set("211.55.48.0/25")
	stays("211.55.48.7", "10.0.0.7")
	if real, ok := p.Real(addr("211.55.48.200")); ok {
		t.Errorf("out of the prefix, and stands for %v", real)
	}
	if got := get(t, p, "10.0.0.200", "b."); got != "211.55.48.72" {
		t.Errorf("anew: %s", got)
	}
	set("211.55.48.0/24") // now .200 has two addresses of the recent past
	stays("211.55.48.72", "10.0.0.200")
	if got := get(t, p, "10.1.0.200", "c."); got != "211.55.48.201" {
		t.Errorf("an address means another host within the quarantine: %s", got)
	}
	if err := p.SetPrefixes(prefixes("211.55.48.0/32")); err == nil {
		t.Error("no room is no error")
	}
	set("245.0.0.0/8")
	if _, ok := p.VIP(addr("10.0.0.7")); ok {
		t.Error("a lease survived a prefix that moved")
	}
	kill(p)
	p = open(t, p.cfg)
	set("211.55.48.0/24")
	stays("211.55.48.7", "10.0.0.7") // it came back, also after a restart
}
