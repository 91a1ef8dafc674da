package peers

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// liveFor is how long after it was heard, or made, a Peer counts as in use.
const liveFor = time.Hour

// beyondLimit returns those of peers, sorted by age, that are not served when only most may be: 0 means
// all may. No user keeps others out by making many Peers, so everybody's first comes before anybody's
// second, and so on; of one rank those in use come before those left behind (by a job that was killed,
// say), the oldest first, so that nobody who works is cut off for somebody who comes later.
func beyondLimit(peers []v1alpha1.Peer, in Input) map[types.UID]bool {
	if in.MaxPeers <= 0 || len(peers) <= in.MaxPeers {
		return nil
	}
	type entry struct {
		rank  int // among the Peers of its user
		live  bool
		heard time.Time
		peer  v1alpha1.Peer
	}
	list := make([]entry, len(peers))
	for i, p := range peers {
		heard := lastHeard(p, in)
		list[i] = entry{heard: heard, live: in.Now.Sub(heard) <= liveFor, peer: p}
	}
	// Stable sorts: where nothing is said, the order by age stays.
	slices.SortStableFunc(list, func(a, b entry) int {
		switch {
		case a.live != b.live && a.live:
			return -1
		case a.live != b.live:
			return 1
		case a.live:
			return 0
		}
		return b.heard.Compare(a.heard)
	})
	users := map[string]int{}
	for i := range list {
		user := list[i].peer.Spec.User
		list[i].rank = users[user]
		users[user]++
	}
	slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(a.rank, b.rank) })
	out := map[types.UID]bool{}
	for _, e := range list[in.MaxPeers:] {
		out[e.peer.UID] = true
	}
	return out
}

// lastHeard is the latest sign of life of p: its creation or a handshake.
func lastHeard(p v1alpha1.Peer, in Input) time.Time {
	last := latest(p.CreationTimestamp.Time, in.Traffic[p.UID].LastHandshake)
	if p.Status.LastHandshake != nil {
		last = latest(last, p.Status.LastHandshake.Time)
	}
	return last
}
