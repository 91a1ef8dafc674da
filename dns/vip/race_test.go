package vip

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Packets beside leases: no lookup ever finds another host than the one the address was leased to, while leases are
// made and reclaimed, tables grow and prefixes change. For the race detector as well.
func TestPacketsBesideLeases(t *testing.T) {
	var second atomic.Int64
	p := open(t, Config{
		Prefixes: prefixes("211.55.0.0/22"), Path: filepath.Join(t.TempDir(), "vips"), PerName: 10_000,
		Now: func() time.Time { return time.Unix(1_764_000_000+second.Load(), 0) },
	})
	var stop atomic.Bool
	var hits atomic.Int64
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for r := rand.New(rand.NewPCG(rand.Uint64(), 0)); !stop.Load(); {
				checkPacket(t, p, r, &second, &hits)
			}
		})
	}
	leased, refused := 0, 0
	for i := range 40_000 {
		switch _, err := p.Lease(hostOf(uint32(i/4%3000)), "a."); {
		case err == nil:
			leased++
		case errors.Is(err, ErrExhausted):
			refused++
		default:
			t.Fatal(err)
		}
		if i%8 == 0 {
			second.Add(1)
		}
		if i%5000 == 0 {
			if err := p.SetPrefixes(prefixes([]string{"211.55.0.0/22", "211.55.0.0/21"}[i/5000%2])); err != nil {
				t.Fatal(err)
			}
			p.Stats()
		}
	}
	for deadline := time.Now().Add(10 * time.Second); hits.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	stop.Store(true)
	readers.Wait()
	if leased == 0 || hits.Load() == 0 {
		t.Errorf("%d leases, %d refusals, %d packets: nothing was tried", leased, refused, hits.Load())
	}
}

// hostOf is a host of the cluster; its low bits alone tell addresses apart.
func hostOf(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// checkPacket sends one packet out and its reply back in. It keeps to few addresses, so that others are reclaimed. If
// the quarantine went by meanwhile, the address may mean another host.
func checkPacket(t *testing.T, p *Pool, r *rand.Rand, second, hits *atomic.Int64) {
	real, before := hostOf(uint32(r.IntN(300))), second.Load()
	vip, ok := p.VIP(real)
	if !ok {
		return
	}
	back, ok := p.Real(vip)
	if second.Load()-before >= 120 {
		return
	}
	hits.Add(1)
	if ok && back != real {
		t.Errorf("%v is called %v, which stands for %v", real, vip, back)
	}
}

func TestLookupsDoNotAllocate(t *testing.T) {
	p := open(t, Config{Prefixes: prefixes("211.55.48.0/20", "fd8a::/64")})
	for _, real := range []string{"10.0.0.1", "fd00::1"} {
		vip, real := addr(get(t, p, real, "a.")), addr(real)
		if n := testing.AllocsPerRun(100, func() { p.Real(vip); p.VIP(real); p.Real(real) }); n > 0 {
			t.Errorf("%v: %v allocations", real, n)
		}
	}
}
