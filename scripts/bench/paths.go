package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// row is one line of the table: a figure of each path, already as text; "" where there is none.
type row struct{ what, bare, pf, ours string }

// figures are what labnet prints, as far as the table shows it.
type figures struct {
	BitsPerSecond float64 `json:"bits_per_second"`
	Bytes         int     `json:"bytes"`
	PerSecond     float64 `json:"per_second"`
	Seconds       float64 `json:"seconds"`
	P50           float64 `json:"p50_ms"`
	P95           float64 `json:"p95_ms"`
	OK            int     `json:"ok"`
	Failed        int     `json:"failed"`
	Sent          int     `json:"sent"`
	Lost          int     `json:"lost"`
}

// path is one way to the echo pod.
type path struct {
	run  func(args ...string) labctl.Result
	host string                   // for TARGET
	port func(port string) string // of the pod -> of the path
}

// tunnelled is the way from the workstation to the echo pod by one of its addresses.
func tunnelled(l *labctl.Lab, host string) path {
	run := func(args ...string) labctl.Result { return l.Labnet(3*time.Minute, args...) }
	return path{run: run, host: host, port: samePort}
}

func samePort(port string) string { return port }

// repeats is how often each figure is taken; the table has the median.
const repeats = 5

// paths makes the table of whole paths.
func paths(l *labctl.Lab) (string, error) {
	note := fmt.Sprintf("median of %d", repeats) + load()
	rows, err := connectTimes(l)
	if err != nil {
		return "", err
	}
	measured, err := measure(l)
	if err != nil {
		return "", err
	}
	var cells [][]string
	for _, r := range append(rows, measured...) {
		cells = append(cells, []string{r.what, r.bare, r.pf, r.ours})
	}
	return render(note, []string{"", "bare veth", "kubectl port-forward", "culvert, apiserver"}, cells), nil
}

func measure(l *labctl.Lab) (rows []row, err error) {
	if err := l.WS(time.Minute, "culvert", "connect").OK(); err != nil {
		return nil, err
	}
	defer l.WS(30*time.Second, "culvert", "quit")
	bare := path{run: func(args ...string) labctl.Result {
		return l.Host(3*time.Minute, "node1", append([]string{filepath.Join(l.Bin, "lab"), "labnet"}, args...)...)
	}, host: l.EchoPod, port: samePort}
	ours := tunnelled(l, l.EchoPod)
	pf := path{run: ours.run, host: "127.0.0.1", port: func(port string) string { return "1" + port }}
	for _, m := range measurements {
		r := row{what: m.what}
		for _, p := range []struct {
			path path
			cell *string
			pf   bool
		}{{bare, &r.bare, false}, {pf, &r.pf, true}, {ours, &r.ours, false}} {
			if p.pf && m.noPortForward {
				*p.cell = "n/a"
				continue
			}
			*p.cell, err = m.take(l, p.path, p.pf)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.what, err)
			}
		}
		progress("%s: bare %s, port-forward %s, ours %s", r.what, r.bare, r.pf, r.ours)
		rows = append(rows, r)
	}
	memory, err := memoryRows(l)
	return append(rows, memory...), err
}

// measurement is one labnet command; TARGET in its arguments is replaced by host:port of each path.
type measurement struct {
	what          string
	args          []string
	port          string
	noPortForward bool
	value         func(figures) float64
	show          func(float64) string
}

var measurements = []measurement{
	{"round trip, TCP 64 B, p50", []string{"pingpong", "--count", "1000", "TARGET"}, "7000", false, func(f figures) float64 { return f.P50 }, ms},
	{"new HTTP connection, p50", []string{"http", "--count", "300", "http://TARGET/"}, "8080", false, func(f figures) float64 { return f.P50 }, ms},
	{"new HTTP connection, p95", []string{"http", "--count", "300", "http://TARGET/"}, "8080", false, func(f figures) float64 { return f.P95 }, ms},
	{"new HTTP connections per second, 8 clients", []string{"http", "--count", "2000", "--parallel", "8", "http://TARGET/"}, "8080", false, func(f figures) float64 { return f.PerSecond }, plain},
	{"TCP up", []string{"up", "--duration", "4s", "TARGET"}, "7010", false, func(f figures) float64 { return f.BitsPerSecond }, mbit},
	{"TCP down", []string{"down", "--duration", "4s", "TARGET"}, "7011", false, func(f figures) float64 { return f.BitsPerSecond }, mbit},
	{"UDP 1,200 B at 50 Mbit/s, loss", []string{"udp", "--count", "10000", "--size", "1200", "--rate", "5e7", "TARGET"}, "7000", true, func(f figures) float64 { return 100 * float64(f.Lost) / float64(max(1, f.Sent)) }, percent},
	{"1,000 connections at once, all echoing", []string{"connections", "--count", "1000", "TARGET"}, "7000", false, func(f figures) float64 { return f.Seconds }, seconds},
}

func mib(bytes float64) string { return fmt.Sprintf("%.0f MiB", bytes/(1<<20)) }
func ms(v float64) string      { return fmt.Sprintf("%.2f ms", v) }
func mbit(v float64) string    { return fmt.Sprintf("%.0f Mbit/s", v/1e6) }
func plain(v float64) string   { return fmt.Sprintf("%.0f", v) }
func percent(v float64) string { return fmt.Sprintf("%.1f %%", v) }
func seconds(v float64) string { return fmt.Sprintf("%.2f s", v) }

// take measures one path several times and returns the median as text, and what failed.
func (m measurement) take(l *labctl.Lab, p path, portForward bool) (string, error) {
	var values []float64
	var note string
	for range repeats {
		if portForward {
			stop, err := startPortForward(l)
			if err != nil {
				return "", err
			}
			defer stop() // also ended below; a port-forward does not live through every load
			f, err := m.once(p)
			stop()
			if err != nil {
				note = " (fails)"
				continue
			}
			values, note = append(values, m.value(f)), note+failures(f)
			continue
		}
		f, err := m.once(p)
		if err != nil {
			return "", err
		}
		values, note = append(values, m.value(f)), note+failures(f)
	}
	if len(values) == 0 {
		return "fails", nil
	}
	slices.Sort(values)
	if strings.Contains(note, "failed") {
		note = " (" + strings.TrimSpace(note) + ")"
	}
	return m.show(values[len(values)/2]) + note, nil
}

func failures(f figures) string {
	if f.Failed == 0 {
		return ""
	}
	return fmt.Sprintf(" %d of %d failed", f.Failed, f.OK+f.Failed)
}

func (m measurement) once(p path) (figures, error) {
	args := make([]string, len(m.args))
	for i, arg := range m.args {
		args[i] = strings.ReplaceAll(arg, "TARGET", p.host+":"+p.port(m.port))
	}
	r := p.run(args...)
	var f figures
	if err := json.Unmarshal([]byte(r.Out), &f); err != nil {
		return f, fmt.Errorf("labnet %v: %s", args, r)
	}
	return f, nil
}

// connectTimes measures connect and quit. Cold is the first of all, warm the median of those after it.
func connectTimes(l *labctl.Lab) ([]row, error) {
	var connects, quits []time.Duration
	for range repeats + 1 {
		r := l.WS(time.Minute, "culvert", "connect")
		if err := r.OK(); err != nil {
			return nil, err
		}
		connects = append(connects, r.Took)
		r = l.WS(time.Minute, "culvert", "quit")
		if err := r.OK(); err != nil {
			return nil, err
		}
		quits = append(quits, r.Took)
	}
	text := func(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
	return []row{
		{"connect, cold", "", "", text(connects[0])},
		{"connect, warm", "", "", text(median(connects[1:]))},
		{"quit", "", "", text(median(quits))},
	}, nil
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

// memoryRows reads the resident memory of every process of ours, after the load above.
func memoryRows(l *labctl.Lab) ([]row, error) {
	p, err := findProcesses(l)
	if err != nil {
		return nil, err
	}
	rows := []row{}
	for _, x := range []struct {
		what string
		pid  int
	}{{"the user half", p.Node}, {"the helper", p.Helper}, {"the guard", p.Guard}, {"the gateway", p.Gateway}} {
		size, err := resident(x.pid)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{what: "memory of " + x.what + ", after the load", ours: mib(size)})
	}
	return rows, nil
}
