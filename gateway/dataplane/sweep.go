package dataplane

import (
	"time"
)

// sweep closes flows that have been silent for too long, until the plane closes.
func (p *Plane) sweep() {
	ticker := time.NewTicker(p.cfg.Timeouts.sweepInterval())
	defer ticker.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case now := <-ticker.C:
			for _, pr := range p.peers.Load().peers {
				p.sweepPeer(pr, now)
			}
		}
	}
}

// sweepInterval is short against every time-out it serves.
func (t Timeouts) sweepInterval() time.Duration {
	shortest := min(t.Transitory, t.UDP, t.UDPQuick, t.Echo)
	return min(max(shortest/4, 10*time.Millisecond), 5*time.Second)
}

func (p *Plane) sweepPeer(pr *peer, now time.Time) {
	var streams []*tcpFlow
	var datagrams []*datagramFlow
	pr.mu.Lock()
	for _, f := range pr.tcp {
		if f.stale(now) {
			streams = append(streams, f)
		}
	}
	for _, f := range pr.dgrams {
		if now.Sub(time.Unix(0, f.active.Load())) > f.idle {
			datagrams = append(datagrams, f)
		}
	}
	pr.mu.Unlock()
	end(streams, datagrams)
}

// stale reports whether f is half-closed, or in its handshake, and silent for too long. Established
// flows are probed instead, see [tcpFlow.keepAlive]; dials have their own time-out.
func (f *tcpFlow) stale(now time.Time) bool {
	if now.Sub(time.Unix(0, f.active.Load())) <= max(f.plane.cfg.Timeouts.Transitory, f.plane.cfg.Timeouts.Dial) {
		return false
	}
	return f.halfClosed.Load() || !f.isOpen()
}
