package twins

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/policy"
)

var (
	ula  = netip.MustParsePrefix("fd12:3456:789a::/48")
	key  = Key{"uid-1", "default"}
	mine = policy.Virtual{
		V4: netip.MustParsePrefix("246.0.0.0/8"), V6: ula,
		Assigned: []policy.Twin{{Real: netip.MustParsePrefix("10.130.0.0/16"), Kind: policy.KindServices, Virtual: netip.MustParsePrefix("246.130.0.0/16")}},
	}
)

func TestKeepAndRecall(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "culvert"))
	if got, others, err := s.Recall(key); err != nil || !reflect.DeepEqual(got, policy.Virtual{}) || others != nil {
		t.Errorf("of nothing: %+v, %v, %v", got, others, err)
	}
	if err := s.Keep(key, mine); err != nil {
		t.Fatal(err)
	}
	other := policy.Virtual{V4: netip.MustParsePrefix("247.0.0.0/8")}
	if err := s.Keep(Key{"uid-1", "second"}, other); err != nil {
		t.Fatal(err)
	}
	got, others, err := s.Recall(key)
	if err != nil || !reflect.DeepEqual(got, mine) || len(others) != 1 || others[0] != other.V4 {
		t.Errorf("%+v, %v, %v", got, others, err)
	}
	if info, err := os.Stat(s.path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: want it for the user alone", info, err)
	}
	if s.PoolPath(key) == s.PoolPath(Key{"uid-1", "second"}) {
		t.Error("two connections with one pool")
	}
}

func TestDamagedFileIsSetAside(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "another version": `{"version":9}`,
		"no twin": `{"version":1,"entries":{"a/b":{"twins":[{"real":"10.0.0.0/8","virtual":"246.0.0.0/9"}]}}}`,
		"no key":  `{"version":1,"entries":{"a":{}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := At(t.TempDir())
			if err := os.WriteFile(s.path(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, _, err := s.Recall(key); err == nil || !strings.Contains(err.Error(), s.path()) || got.V4.IsValid() {
				t.Errorf("%+v, %v", got, err)
			}
			if err := s.Keep(key, mine); err == nil {
				t.Error("setting aside is not told")
			}
			if data, err := os.ReadFile(s.path() + ".damaged"); err != nil || string(data) != text {
				t.Errorf("%q, %v", data, err)
			}
			if got, _, err := s.Recall(key); err != nil || !reflect.DeepEqual(got, mine) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestConnectionsKeepAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	var work sync.WaitGroup
	for _, name := range names {
		work.Go(func() {
			if err := At(dir).Keep(Key{"uid", name}, mine); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	b, err := At(dir).read()
	if err != nil || len(b.Entries) != len(names) {
		t.Errorf("%d entries, %v", len(b.Entries), err)
	}
}

func TestThoseNotUsedForLongestAreForgotten(t *testing.T) {
	b := empty()
	now := time.Now()
	for i := range maxEntries + 2 {
		b.Entries[Key{"uid", string(rune('A' + i))}.String()] = entry{Used: now.Add(time.Duration(i) * time.Second)}
	}
	b.forget("uid/A")
	if len(b.Entries) != maxEntries {
		t.Errorf("%d entries", len(b.Entries))
	}
	for name, want := range map[string]bool{"uid/A": true, "uid/B": false, "uid/C": false, "uid/D": true} {
		if _, ok := b.Entries[name]; ok != want {
			t.Errorf("%s remembered %v, want %v", name, ok, want)
		}
	}
}

// TestLeasesGoWithWhatIsForgotten: the file of a pool is of no use without the twins.
func TestLeasesGoWithWhatIsForgotten(t *testing.T) {
	s := At(t.TempDir())
	b := empty()
	for i := range maxEntries {
		b.Entries[Key{"uid", string(rune('A' + i))}.String()] = entry{Used: time.Unix(int64(i), 0)}
	}
	if err := s.write(b); err != nil {
		t.Fatal(err)
	}
	oldest, second, fresh := Key{"uid", "A"}, Key{"uid", "B"}, Key{"uid", "new"}
	for _, key := range []Key{oldest, second, fresh} {
		for _, path := range []string{s.PoolPath(key), s.PoolPath(key) + ".lock"} {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Keep(fresh, policy.Virtual{}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{s.PoolPath(oldest): false, s.PoolPath(oldest) + ".lock": true, s.PoolPath(second): true, s.PoolPath(fresh): true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path, err, want)
		}
	}
}

func TestULA(t *testing.T) {
	a, b := ULA("one"), ULA("another")
	for _, p := range []netip.Prefix{a, b} {
		if p.Bits() != 48 || p.Masked() != p || !p.Addr().IsPrivate() {
			t.Errorf("%s is no unique local /48", p)
		}
	}
	if a == b || a != ULA("one") {
		t.Errorf("%s and %s", a, b)
	}
}

// TestPlaces: where XDG_STATE_HOME is not absolute it does not count.
func TestPlaces(t *testing.T) {
	t.Setenv("HOME", "/home/dev")
	for set, want := range map[string]string{"": "/home/dev/.local/state/culvert", "rel": "/home/dev/.local/state/culvert", "/state": "/state/culvert"} {
		t.Setenv("XDG_STATE_HOME", set)
		if s, err := Open(); err != nil || s.dir != want {
			t.Errorf("%q: %+v, %v", set, s, err)
		}
	}
}
