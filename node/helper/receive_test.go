package helper

import (
	"testing"

	"github.com/culvert-dev/culvert/dns/hostdns"
)

// TestAStormOfOneKindOfEventCostsNoOther: of what nobody reads, the last of each kind is kept.
func TestAStormOfOneKindOfEventCostsNoOther(t *testing.T) {
	c := &Client{events: make(chan Event, 4)}
	fight := func(over bool) Event { return Event{Contested: &Contested{Kind: ContestUndone, Over: over}} }
	host := Event{Host: &hostdns.Config{Search: []string{"example"}}}
	for _, e := range []Event{host, fight(false), fight(true)} {
		c.deliverEvent(e)
	}
	for range 100 {
		c.deliverEvent(Event{IPsecChanged: true})
	}
	var kinds []string
	over := false
	for len(c.events) > 0 {
		e := <-c.events
		kinds = append(kinds, e.kind())
		over = over || e.Contested != nil && e.Contested.Over
	}
	seen := map[string]bool{}
	for _, k := range kinds {
		seen[k] = true
	}
	if !seen["host"] || !seen["contest undone"] || !seen["IPsec"] || !over {
		t.Errorf("kept %q, end of the fight %v", kinds, over)
	}
}
