package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// rounds is how often each measurement of a comparison is made each way.
const rounds = 21

// comparison is a measurement made natively, by virtual address, and natively again, in an order that
// differs each round: what native differs from itself is noise.
type comparison struct {
	measurement
	// work returns how many units of what the processor time is told for were done.
	work    func(figures) float64
	perWork string
}

var comparisons = []comparison{
	{measurement{"round trip, TCP 64 B, p50", []string{"pingpong", "--count", "1000", "TARGET"}, "7000", false, func(f figures) float64 { return f.P50 }, ms},
		done, "round trip"},
	{measurement{"new HTTP connections per second, 8 clients", []string{"http", "--count", "500", "--parallel", "8", "http://TARGET/"}, "8080", false, func(f figures) float64 { return f.PerSecond }, plain},
		done, "connection"},
	{measurement{"TCP up", []string{"up", "--duration", "1s", "TARGET"}, "7010", false, func(f figures) float64 { return f.BitsPerSecond }, mbit},
		megabytes, "MB up"},
	{measurement{"TCP down", []string{"down", "--duration", "1s", "TARGET"}, "7011", false, func(f figures) float64 { return f.BitsPerSecond }, mbit},
		megabytes, "MB down"},
}

func done(f figures) float64      { return float64(f.OK) }
func megabytes(f figures) float64 { return float64(f.Bytes) / 1e6 }

func micros(v float64) string { return fmt.Sprintf("%.0f µs", v) }

// Ways of a comparison.
const (
	native = iota
	byVIP
	nativeAgain
	ways
)

// series are the values of one row, by way and round.
type series [ways][]float64

// virtual makes the table of virtual addresses beside native ones.
func virtual(l *labctl.Lab) (string, error) {
	note := fmt.Sprintf("medians of %d rounds, in brackets the quartiles", rounds) + load()
	var cells [][]string
	for _, c := range comparisons {
		cells = append(cells, []string{c.what}, []string{"processor time per " + c.perWork})
	}
	for _, k := range kinds {
		rows, err := compare(l, k)
		if err != nil {
			return "", fmt.Errorf("%s: %w", k.name, err)
		}
		for i, r := range rows {
			show := comparisons[i/2].show
			if i%2 == 1 {
				show = micros
			}
			cells[i] = append(cells[i], r.cells(show)...)
			progress("%s: %v", k.name, cells[i])
		}
	}
	return render(note, []string{"", "native", "twin", "twin : native", "native : native", "native", "pool", "pool : native", "native : native"}, cells), nil
}

// cells are the medians of native and virtual, and those of the ratios within a round: of virtual to the mean
// of both natives, and of these two.
func (s series) cells(show func(float64) string) []string {
	mean := make([]float64, len(s[native]))
	for i := range mean {
		mean[i] = (s[native][i] + s[nativeAgain][i]) / 2
	}
	return []string{show(middle(mean)), show(middle(s[byVIP])), ratio(s[byVIP], mean), ratio(s[nativeAgain], s[native])}
}

// ratio describes the ratios of a to b, which belong together one by one.
func ratio(a, b []float64) string {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = a[i] / b[i]
	}
	slices.Sort(r)
	return fmt.Sprintf("%.2f (%.2f to %.2f)", middle(r), r[len(r)/4], r[len(r)*3/4])
}

func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// compare returns two series for each comparison: of its value, and of the processor time of node and
// gateway, in microseconds per unit of work.
func compare(l *labctl.Lab, k kind) ([]series, error) {
	h, err := hide(l, k)
	if err != nil {
		return nil, err
	}
	defer h.quit()
	p, err := findProcesses(l)
	if err != nil {
		return nil, err
	}
	rows := make([]series, 2*len(comparisons))
	for range rounds {
		for i, c := range comparisons {
			for _, way := range rand.Perm(ways) {
				value, cost, err := c.once(h.path(way), p)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", c.what, err)
				}
				rows[2*i][way] = append(rows[2*i][way], value)
				rows[2*i+1][way] = append(rows[2*i+1][way], cost)
			}
		}
	}
	return rows, nil
}

// path is one of the ways to the echo pod.
func (h *hiding) path(way int) path {
	host := h.lab.EchoPod
	if way == byVIP {
		host = h.vip
	}
	return tunnelled(h.lab, host)
}

// once is one measurement, all of which has to succeed.
func (c comparison) once(way path, p processes) (value, cost float64, err error) {
	before, err := processorTime(p.Node, p.Gateway)
	if err != nil {
		return 0, 0, err
	}
	f, err := c.measurement.once(way)
	if err != nil {
		return 0, 0, err
	}
	after, err := processorTime(p.Node, p.Gateway)
	if err != nil {
		return 0, 0, err
	}
	if f.Failed > 0 || c.work(f) == 0 {
		return 0, 0, errors.New("not all went well" + failures(f))
	}
	return c.value(f), float64((after - before).Microseconds()) / c.work(f), nil
}
