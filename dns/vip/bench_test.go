package vip

import (
	"net/netip"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"
)

const million = 1_000_000

// manyHosts gives each lease a host and a name of its own; in a /12, a third of the hosts want another's place.
func manyHosts(i int) (netip.Addr, string) {
	n := i / 3
	return netip.AddrFrom4([4]byte{10, byte(i%3*8 + n>>16), byte(n >> 8), byte(n)}), "pod-" + strconv.Itoa(i) + ".svc."
}

// filled returns a pool with a million leases, and them.
func filled(b *testing.B, path string, now func() time.Time) (p *Pool, vips, reals []netip.Addr) {
	b.Helper()
	p = open(b, Config{Prefixes: prefixes("240.0.0.0/11"), Path: path, Now: now})
	for i := range million {
		real := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		vip, err := p.Lease(real, "pod-"+strconv.Itoa(i)+".svc.")
		if err != nil {
			b.Fatal(err)
		}
		vips, reals = append(vips, vip), append(reals, real)
	}
	return p, vips, reals
}

// BenchmarkReal and BenchmarkVIP are what each packet costs; they must not allocate.
func BenchmarkReal(b *testing.B) {
	p, vips, _ := filled(b, "", nil)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, ok := p.Real(vips[i*7919%million]); !ok {
			b.Fatal("not leased")
		}
	}
}

func BenchmarkVIP(b *testing.B) {
	p, _, reals := filled(b, "", nil)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, ok := p.VIP(reals[i*7919%million]); !ok {
			b.Fatal("not leased")
		}
	}
}

// BenchmarkRealOfOne is the same for a flow, whose lease is in the processor's cache.
func BenchmarkRealOfOne(b *testing.B) {
	p, vips, _ := filled(b, "", nil)
	b.ResetTimer()
	for range b.N {
		p.Real(vips[4711])
	}
}

func BenchmarkRenew(b *testing.B) {
	p, _, reals := filled(b, filepath.Join(b.TempDir(), "vips"), nil)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := p.Lease(reals[i*7919%million], "renewed."); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNew makes leases until there are a million, then starts anew. A third take the address after many taken ones.
func BenchmarkNew(b *testing.B) {
	for _, dir := range []string{"memory", "file"} {
		b.Run(dir, func(b *testing.B) {
			b.ReportAllocs()
			var p *Pool
			for i := range b.N {
				if i%million == 0 {
					b.StopTimer()
					cfg := Config{Prefixes: prefixes("240.0.0.0/12")}
					if dir == "file" {
						cfg.Path = filepath.Join(b.TempDir(), "vips")
					}
					p = open(b, cfg)
					b.StartTimer()
				}
				real, name := manyHosts(i % million)
				if _, err := p.Lease(real, name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReclaim makes new leases in a full pool of a million.
func BenchmarkReclaim(b *testing.B) {
	c := newClock()
	p := open(b, Config{Prefixes: prefixes("240.0.0.0/4"), Now: c.now})
	for i := range maxLeases {
		if _, err := p.Lease(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), strconv.Itoa(i)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%maxLeases == 0 {
			c.pass(time.Hour)
		}
		if _, err := p.Lease(netip.AddrFrom4([4]byte{byte(11 + i>>24), byte(i >> 16), byte(i >> 8), byte(i)}), "new"+strconv.Itoa(i)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReclaimAfterTraffic is the worst case of one lease: in a full pool of a million all were used since anyone
// looked, and none may be reclaimed.
func BenchmarkReclaimAfterTraffic(b *testing.B) {
	c := newClock()
	p, vips, _ := filled(b, "", c.now)
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		c.pass(time.Hour)
		for _, vip := range vips {
			p.Real(vip)
		}
		f := p.families[0].Load()
		b.StartTimer()
		if l := f.reclaim(p.now(), p.patience); l != nil {
			b.Fatal("reclaimed what is in use")
		}
	}
}

// BenchmarkOpen takes over a million leases from the file, BenchmarkClose writes them.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "vips")
	p, _, _ := filled(b, path, nil)
	p.Close()
	cfg := p.cfg
	b.ResetTimer()
	for range b.N {
		p, err := Open(cfg)
		if err != nil || p.Stats().Pools[0].Leased != million {
			b.Fatal(err)
		}
		b.StopTimer()
		kill(p)
		b.StartTimer()
	}
}

func BenchmarkClose(b *testing.B) {
	p, _, _ := filled(b, filepath.Join(b.TempDir(), "vips"), nil)
	b.ResetTimer()
	for range b.N {
		p.mu.Lock()
		err := p.rewriteLocked(p.now(), lineClosed)
		p.mu.Unlock()
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory reports the bytes that one lease takes, its name included.
func BenchmarkMemory(b *testing.B) {
	var before, after runtime.MemStats
	for range b.N {
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&before)
		p := open(b, Config{Prefixes: prefixes("240.0.0.0/11")})
		for i := range million {
			if _, err := p.Lease(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), "pod-"+strconv.Itoa(i)+".svc."); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(p)
		b.StartTimer()
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/million, "B/lease")
}
