package hostdns

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostOf is a host with a resolver file and connections that come, go and crash. What each has
// journaled survives it.
type hostOf struct {
	t        *testing.T
	path     string
	now      time.Time
	journals map[string][]byte
	running  map[string]*Manager
	last     string // what the host's own programs last wrote
	before   string // the look of the file then
	log      []string
}

func (h *hostOf) did(format string, args ...any) { h.log = append(h.log, fmt.Sprintf(format, args...)) }

// journaled decodes anew each time, as processes do that share nothing but the disk.
func (h *hostOf) journaled(name string) *Record {
	data := h.journals[name]
	if data == nil {
		return nil
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		h.t.Fatal(err)
	}
	return &r
}

func (h *hostOf) lookup(name string) (*Record, bool) {
	return h.journaled(name), h.running[name] != nil
}

// wishOf is what connection a, b or c asks for: a server of its own.
func wishOf(name string, version int) Config {
	return Config{
		Servers: []netip.Addr{netip.AddrFrom4([4]byte{245, 0, 0, name[0]})},
		Search:  []string{fmt.Sprintf("%s%d.example", name, version)},
		Domains: []string{name + ".culvert.internal"},
	}
}

// connect repairs what crashes left, as every start does, and hooks the file.
func (h *hostOf) connect(name string) {
	for _, other := range []string{"a", "b", "c"} {
		h.repair(other)
	}
	m := &Manager{Name: name, Path: h.path, Log: slog.New(slog.DiscardHandler), Lookup: h.lookup, Began: h.now}
	m.Journal = func(r *Record) error {
		delete(h.journals, name)
		if r != nil {
			h.journals[name], _ = json.Marshal(r)
		}
		return nil
	}
	h.running[name] = m
	h.must(m.Upstreams())
	h.set(name, 0)
}

// connectHalf is connect of one that is killed, with its guard, between the journal and the file.
func (h *hostOf) connectHalf(name string) {
	h.connect(name)
	journal := h.journals[name]
	h.quit(name)
	h.journals[name] = journal
}

// quitHalf is quit of one that is killed, with its guard, between the file and the journal.
func (h *hostOf) quitHalf(name string) {
	h.must(h.journaled(name).Restore(h.lookup))
	delete(h.running, name)
}

func (h *hostOf) set(name string, version int) {
	if err := h.running[name].Set(wishOf(name, version)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hostOf) must(_ any, err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// repair restores by journal what a connection that runs no more has left.
func (h *hostOf) repair(name string) {
	if r := h.journaled(name); r != nil && h.running[name] == nil {
		h.must(r.Restore(h.lookup))
		delete(h.journals, name)
	}
}

func (h *hostOf) quit(name string) {
	if err := h.running[name].Set(Config{}); err != nil {
		h.t.Fatal(err)
	}
	delete(h.running, name)
}

// rewrite is another program's work on the file.
func (h *hostOf) rewrite(n int) {
	h.last = fmt.Sprintf("nameserver 192.0.2.%d\nsearch net%d.example\n", n, n)
	write(h.t, h.path, h.last)
	h.before = look(h.t, h.path)
}

// settle lets time pass until every connection has looked often enough.
func (h *hostOf) settle() {
	for range 8 {
		h.now = h.now.Add(rehookEvery) // no limit matters
		for _, name := range []string{"b", "a", "c"} {
			if m := h.running[name]; m != nil {
				h.must(func() (Config, error) { c, _, err := m.Check(h.now); return c, err }())
			}
		}
	}
}

// check fails unless the file leads to one running connection, from that one to the next, so to each
// once, and in the end to the host's own resolvers. Without connections it is the host's own.
func (h *hostOf) check() {
	h.t.Helper()
	if len(h.running) == 0 && len(h.journals) == 0 {
		if got := look(h.t, h.path); got != h.before {
			h.t.Fatalf("restored to\n%s\nwant\n%s\nafter %s", got, h.before, strings.Join(h.log, ", "))
		}
	}
	if len(h.running) == 0 {
		return
	}
	visited := map[string]bool{}
	file := Parse([]byte(read(h.t, h.path)))
	at := file
	for len(visited) <= len(h.running) {
		if own := Parse([]byte(h.last)); slices.Equal(at.Servers, own.Servers) {
			break
		}
		var name string
		if len(at.Servers) == 1 {
			name = string(rune(at.Servers[0].As4()[3]))
		}
		if h.running[name] == nil || visited[name] {
			h.t.Fatalf("led to the servers %v, by way of %v\nafter %s\nfile:\n%s", at.Servers, visited, strings.Join(h.log, ", "), read(h.t, h.path))
		}
		visited[name] = true
		at = h.running[name].told
	}
	names := Connections([]byte(read(h.t, h.path)))
	if len(visited) != len(h.running) || len(names) != len(h.running) {
		h.t.Fatalf("names reach %v of %d connections, the file names %q\nafter %s", visited, len(h.running), names, strings.Join(h.log, ", "))
	}
	for _, domain := range file.Search {
		if len(domain) == len("a0.example") && h.running[domain[:1]] == nil {
			h.t.Fatalf("the search list %q has a domain of a connection that is gone\nafter %s", file.Search, strings.Join(h.log, ", "))
		}
	}
}

// step does something at random.
func (h *hostOf) step(random *rand.Rand) {
	name := string(rune('a' + random.IntN(3)))
	h.now = h.now.Add(time.Millisecond)
	switch what := random.IntN(12); {
	case h.running[name] == nil && what < 6:
		h.did("%s connects", name)
		h.connect(name)
	case h.running[name] == nil && what < 7:
		h.did("%s is killed half-way to connecting", name)
		h.connectHalf(name)
	case h.running[name] == nil && what < 9:
		h.did("%s is repaired", name)
		h.repair(name)
	case h.running[name] == nil:
	case what < 2:
		h.did("%s quits", name)
		h.quit(name)
	case what < 3:
		h.did("%s is killed half-way to quitting", name)
		h.quitHalf(name)
	case what < 5:
		h.did("%s is killed, its guard restores", name)
		delete(h.running, name)
		h.repair(name)
	case what < 7:
		h.did("%s and its guard are killed", name)
		delete(h.running, name)
	case what < 8:
		h.did("%s changes its wish", name)
		h.set(name, 1+random.IntN(8))
	case what < 9 && len(h.running) > 0:
		n := 1 + random.IntN(99)
		h.did("another program writes %d", n)
		h.rewrite(n)
		h.settle() // what nobody has looked at is not told from what a connection left
	default:
		h.did("time passes")
		h.settle()
		h.check()
	}
}

// TestAnyOrderOfComingGoingAndCrashing has three connections on one file.
func TestAnyOrderOfComingGoingAndCrashing(t *testing.T) {
	rounds := 500
	if testing.Short() {
		rounds = 50
	}
	dir := t.TempDir()
	for seed := range rounds {
		random := rand.New(rand.NewPCG(uint64(seed), 0))
		h := &hostOf{
			t: t, path: filepath.Join(dir, "resolv.conf"), now: time.Unix(1e9, 0),
			journals: map[string][]byte{}, running: map[string]*Manager{}, log: []string{fmt.Sprintf("seed %d", seed)},
		}
		_ = os.Remove(h.path)
		h.rewrite(1)
		chmodAge(t, h.path, 0o644)
		h.before = look(t, h.path)
		for range 4 + random.IntN(24) {
			h.step(random)
		}
		h.settle()
		h.check()
		for _, i := range random.Perm(3) {
			if name := string(rune('a' + i)); h.running[name] != nil {
				h.did("%s quits in the end", name)
				h.quit(name)
			}
		}
		for _, i := range random.Perm(3) {
			h.did("%c is repaired in the end", 'a'+i)
			h.repair(string(rune('a' + i)))
		}
		h.check()
		noLeftovers(t, dir)
	}
}
