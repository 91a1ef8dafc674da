package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseBench(t *testing.T) {
	const out = `goos: linux
pkg: github.com/culvert-dev/culvert/gateway/twins
BenchmarkReal/246.63.4.7-2   	  500	        31.2 ns/op	       0 B/op	       0 allocs/op
BenchmarkReal/246.63.4.7-2   	  500	        29.5 ns/op	       0 B/op	       1 allocs/op
BenchmarkReal/246.63.4.7-2   	  500	        40 ns/op	       0 B/op	       2 allocs/op
BenchmarkVirtual/native-100-2	  500	       160 ns/op
BenchmarkBroken
PASS
`
	found := parseBench([]byte(out))
	if o := found["Real/246.63.4.7"]; len(found) != 2 || o["ns/op"] != 29.5 || o["allocs/op"] != 1 {
		t.Errorf("want the fastest of three runs: %v", found)
	}
	if o := found["Virtual/native-100"]; o["ns/op"] != 160 {
		t.Errorf("a name that ends in a number: %v", found)
	}
}

// TestPartsExist has each row of the table of parts name a benchmark that is there, as far as its source
// shows.
func TestPartsExist(t *testing.T) {
	for _, s := range suites {
		files, err := filepath.Glob(filepath.Join("..", "..", s.pkg, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no tests: %v", s.pkg, err)
		}
		var source strings.Builder
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(data)
		}
		for _, r := range s.rows {
			name, _, _ := strings.Cut(r.name, "/")
			if !strings.Contains(source.String(), "func Benchmark"+name+"(") {
				t.Errorf("%s has no Benchmark%s", s.pkg, name)
			}
		}
	}
}

func TestPartLessThanItsBase(t *testing.T) {
	found := map[string]outcome{"D/bare": {"ns/op": 1000}, "D/vip": {"ns/op": 13800}, "D/idle": {"ns/op": 900}}
	for name, want := range map[string]string{"D/vip": "100 ns", "D/idle": "below 2 ns"} {
		cells, err := partRow{name: name, what: "what", less: "D/bare", per: 128}.cells(found)
		if err != nil || !slices.Equal(cells, []string{"what", want, "0"}) {
			t.Errorf("%s: %v, %v; want %s", name, cells, err, want)
		}
	}
	if _, err := (partRow{name: "D/gone"}).cells(found); err == nil {
		t.Error("a benchmark that did not run has a row")
	}
}

func TestRatio(t *testing.T) {
	s := series{{1, 2, 4, 8}, {1, 3, 4, 8}, {1, 4, 4, 8}}
	want := []string{"4", "4", "1.00 (1.00 to 1.00)", "1.00 (1.00 to 2.00)"}
	if got := s.cells(plain); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestChoose(t *testing.T) {
	if all, err := choose(""); err != nil || len(all) != len(tables) {
		t.Errorf("no name: %v, %v", all, err)
	}
	if some, err := choose("parts,names"); err != nil || len(some) != 2 || some[0].name != "parts" || some[1].name != "names" {
		t.Errorf("two names: %v, %v", some, err)
	}
	if _, err := choose("parts,"); err == nil {
		t.Error("an unknown name is taken")
	}
}

// TestWrite replaces one table and leaves all else, and the file has a place for each table.
func TestWrite(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "benchmarks.md")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range tables {
		if err := write(path, x.name, "table "+x.name+"\n"); err != nil {
			t.Errorf("docs/benchmarks.md: %v", err)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tables {
		if !strings.Contains(string(after), "made by scripts/bench -->\ntable "+x.name+"\n<!-- end -->") {
			t.Errorf("table %s is not in its place:\n%s", x.name, after)
		}
	}
	if err := write(path, "none", ""); err == nil {
		t.Error("a table without a place is written")
	}
}

// TestOrder has every question once, those with the VPN down first.
func TestOrder(t *testing.T) {
	for range 20 {
		var sorted []int
		hidden := false
		for _, i := range order() {
			if hidden && !questions[i].hidden {
				t.Fatal("the VPN goes down within a round")
			}
			hidden, sorted = questions[i].hidden, append(sorted, i)
		}
		slices.Sort(sorted)
		if !slices.Equal(sorted, []int{0, 1, 2, 3, 4}) {
			t.Fatal(sorted)
		}
	}
}

func TestDigOutput(t *testing.T) {
	const out = "e7.first.default.svc.cluster.local. 5 IN A\t10.132.128.7\n;; Query time: 812 usec\n;; SERVER: 10.130.0.10#53(10.130.0.10) (UDP)\n"
	if a, b := digAnswer.FindStringSubmatch(out), digTime.FindStringSubmatch(out); a == nil || b == nil || a[1] != "10.132.128.7" || b[1] != "812" {
		t.Errorf("%v, %v", a, b)
	}
}
