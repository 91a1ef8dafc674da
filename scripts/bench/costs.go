package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// costs makes the table of what virtual addresses cost beside the traffic: connecting, and memory.
func costs(l *labctl.Lab) (string, error) {
	note := fmt.Sprintf("connect the median of %d, memory once", repeats) + load()
	connects, err := warmConnects(l)
	if err != nil {
		return "", err
	}
	if err := l.WS(time.Minute, "culvert", "connect").OK(); err != nil {
		return "", err
	}
	first, err := memoryAfterLoad(l, tunnelled(l, l.EchoPod))
	l.WS(30*time.Second, "culvert", "quit")
	if err != nil {
		return "", err
	}
	memory := []string{"memory of the user half, after 2,000 connections and 2 s up and down", mib(first)}
	for _, k := range kinds {
		size, err := hidingMemory(l, k)
		if err != nil {
			return "", fmt.Errorf("%s: %w", k.name, err)
		}
		memory = append(memory, mib(size))
	}
	return render(note, []string{"", "without", "twin", "pool"}, [][]string{connects, memory}), nil
}

// warmConnects measures connect, in turn without and with virtual addresses, from the second time on.
func warmConnects(l *labctl.Lab) ([]string, error) {
	h := &hiding{lab: l, kind: pool}
	defer h.quit()
	if err := errors.Join(h.widen(), h.vpn("down")); err != nil {
		return nil, err
	}
	took := make([][]time.Duration, 1+len(kinds))
	for range 1 + repeats {
		for i, flags := range [][]string{nil, twin.flags, pool.flags} {
			r := l.WS(time.Minute, append([]string{"culvert", "connect"}, flags...)...)
			if err := r.OK(); err != nil {
				return nil, err
			}
			if err := l.WS(time.Minute, "culvert", "quit").OK(); err != nil {
				return nil, err
			}
			took[i] = append(took[i], r.Took)
		}
	}
	cells := []string{"connect, warm"}
	for _, t := range took {
		cells = append(cells, fmt.Sprintf("%.2f s", median(t[1:]).Seconds()))
	}
	return cells, nil
}

func hidingMemory(l *labctl.Lab, k kind) (float64, error) {
	h, err := hide(l, k)
	if err != nil {
		return 0, err
	}
	defer h.quit()
	return memoryAfterLoad(l, h.path(byVIP))
}

// memoryAfterLoad returns how much the user half has resident after the same load for all.
func memoryAfterLoad(l *labctl.Lab, way path) (float64, error) {
	for _, m := range []measurement{
		{args: []string{"http", "--count", "2000", "--parallel", "8", "http://TARGET/"}, port: "8080"},
		{args: []string{"up", "--duration", "2s", "TARGET"}, port: "7010"},
		{args: []string{"down", "--duration", "2s", "TARGET"}, port: "7011"},
	} {
		if _, err := m.once(way); err != nil {
			return 0, err
		}
	}
	p, err := findProcesses(l)
	if err != nil {
		return 0, err
	}
	return resident(p.Node)
}
