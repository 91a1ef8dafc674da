package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// suite is a call of `go test -bench` and what the table shows of it: the fastest of so many runs. times is a
// -benchtime: short, so that some run is disturbed by nothing, and a fixed count where it takes long to set up,
// so that it is done twice only.
type suite struct {
	pkg, bench, times string
	runs              int
	rows              []partRow
}

// partRow is a benchmark by its name without "Benchmark". less names one of the same suite that is taken off:
// what it would cost anyway. per is how many things one operation does; 0 means 1. metric is a number of
// bytes that the benchmark reports, to be shown in place of its time.
type partRow struct {
	name, what, less string
	per              float64
	metric           string
}

// How often a suite runs, and one with a million leases to make first.
const (
	shortRuns = 12
	longRuns  = 2
)

// perBatch is how many packets a batch at the TUN has.
const perBatch = 128

var suites = []suite{
	{"./internal/packet", "^BenchmarkRewrite$", "50ms", shortRuns, []partRow{
		{name: "Rewrite/ipv4/datagram", what: "rewriting a packet's address, IPv4"},
		{name: "Rewrite/ipv6/datagram", what: "the same, IPv6"},
		{name: "Rewrite/ipv4/error", what: "both addresses of an ICMP error and the quoted packet, IPv4"},
		{name: "Rewrite/ipv6/error", what: "the same, IPv6"},
	}},
	{"./node/vnat", "^BenchmarkDevice$", "50ms", shortRuns, []partRow{
		{"Device/idle/read", "the node's TUN, per packet out, no pool in use", "Device/bare/read", perBatch, ""},
		{"Device/idle/write", "the same, in", "Device/bare/write", perBatch, ""},
		{"Device/others/read", "a pool in use, out, to another address", "Device/bare/read", perBatch, ""},
		{"Device/others/write", "the same, in", "Device/bare/write", perBatch, ""},
		{"Device/vip/read", "to a VIP", "Device/bare/read", perBatch, ""},
		{"Device/vip/write", "from a VIP", "Device/bare/write", perBatch, ""},
		{"Device/vip6/read", "to a VIP, IPv6", "Device/bare/read", perBatch, ""},
		{"Device/vip6/write", "from a VIP, IPv6", "Device/bare/write", perBatch, ""},
	}},
	{"./gateway/twins", "^BenchmarkReal$", "50ms", shortRuns, []partRow{
		{name: "Real/246.63.4.7", what: "the gateway, per flow: one of 64 twins, IPv4"},
		{name: "Real/fd7a:0:3f::7", what: "the same, IPv6"},
		{name: "Real/10.1.2.3", what: "the same, no twin"},
	}},
	{"./dns", "^Benchmark(Virtual|Rewrite)$", "50ms", shortRuns, []partRow{
		{name: "Virtual/native-1", what: "DNS reply from memory, 1 address, native"},
		{name: "Virtual/twin-1", what: "the same, of a twin"},
		{name: "Virtual/pool-1", what: "the same, leased"},
		{name: "Virtual/native-100", what: "100 addresses, native"},
		{name: "Virtual/twin-100", what: "the same, of a twin"},
		{name: "Virtual/pool-100", what: "the same, leased"},
		{name: "Rewrite/1", what: "putting virtual addresses into an answer, 1 address"},
		{name: "Rewrite/3", what: "3 addresses"},
		{name: "Rewrite/100", what: "100 addresses"},
	}},
	{"./dns/vip", "^Benchmark(Real|VIP|RealOfOne|Renew|New|Reclaim)$", "1000000x", longRuns, []partRow{
		{name: "Real", what: "pool of 1,000,000 leases: VIP to real, a random one"},
		{name: "RealOfOne", what: "the same, always one"},
		{name: "VIP", what: "real to VIP, a random one"},
		{name: "Renew", what: "renewing a lease"},
		{name: "New/memory", what: "a new lease, until there are 1,000,000"},
		{name: "New/file", what: "the same, and written to the file"},
		{name: "Reclaim", what: "a new lease in a full pool of 1,048,576, the oldest of which goes"},
	}},
	{"./dns/vip", "^Benchmark(ReclaimAfterTraffic|Open|Close|Memory)$", "1x", longRuns, []partRow{
		{name: "Open", what: "taking 1,000,000 leases over from the file"},
		{name: "Close", what: "writing them"},
		{name: "ReclaimAfterTraffic", what: "finding nothing to reclaim among 1,000,000 all used"},
		{name: "Memory", what: "memory of one lease among 1,000,000, with its name", metric: "B/lease"},
	}},
}

// outcome is one line of `go test -bench`, by unit: ns/op, allocs/op.
type outcome map[string]float64

// parts makes the table of the benchmarks beside the code.
func parts(*labctl.Lab) (string, error) {
	note := fmt.Sprintf("the fastest of %d, of the pool of %d", shortRuns, longRuns) + load()
	var rows [][]string
	for _, s := range suites {
		found, err := s.run()
		if err != nil {
			return "", err
		}
		for _, r := range s.rows {
			cells, err := r.cells(found)
			if err != nil {
				return "", fmt.Errorf("%s: %w", s.pkg, err)
			}
			progress("%v", cells)
			rows = append(rows, cells)
		}
	}
	return render(note, []string{"", "each", "allocations"}, rows), nil
}

func (r partRow) cells(found map[string]outcome) ([]string, error) {
	mine, ok := found[r.name]
	if !ok {
		return nil, fmt.Errorf("there is no benchmark %q", r.name)
	}
	if r.metric != "" {
		return []string{r.what, fmt.Sprintf("%.0f B", mine[r.metric]), ""}, nil
	}
	ns := mine["ns/op"]
	if r.less != "" {
		base, ok := found[r.less]
		if !ok {
			return nil, fmt.Errorf("there is no benchmark %q", r.less)
		}
		ns -= base["ns/op"]
	}
	return []string{r.what, nanoseconds(ns / max(1, r.per)), plain(mine["allocs/op"])}, nil
}

// nanoseconds has two digits or so, in a fitting unit. What is taken off can leave less than nothing: noise.
func nanoseconds(v float64) string {
	switch {
	case v < 2:
		return "below 2 ns"
	case v < 1e3:
		return fmt.Sprintf("%.0f ns", v)
	case v < 1e6:
		return fmt.Sprintf("%.1f µs", v/1e3)
	}
	return fmt.Sprintf("%.0f ms", v/1e6)
}

// run returns the fastest run of each benchmark, by name.
func (s suite) run() (map[string]outcome, error) {
	cmd := exec.Command("go", "test", "-run", "-", "-bench", s.bench, "-benchtime", s.times, "-benchmem",
		"-count", strconv.Itoa(s.runs), "-timeout", "30m", s.pkg)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return parseBench(out), nil
}

// parseBench reads lines such as "BenchmarkReal/246.63.4.7-2   5   31.2 ns/op   0 allocs/op". The number
// after the last hyphen is GOMAXPROCS.
func parseBench(out []byte) map[string]outcome {
	found := map[string]outcome{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 4 || !strings.HasPrefix(words[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(words[0], "Benchmark")
		if i := strings.LastIndex(name, "-"); i >= 0 {
			name = name[:i]
		}
		o := outcome{}
		for i := 2; i+1 < len(words); i += 2 {
			if v, err := strconv.ParseFloat(words[i], 64); err == nil {
				o[words[i+1]] = v
			}
		}
		if before, ok := found[name]; !ok || o["ns/op"] < before["ns/op"] {
			found[name] = o
		}
	}
	return found
}
