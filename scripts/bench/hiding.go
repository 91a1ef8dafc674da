package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

// kind is a way to connect in which a VPN that routes the pods has names answered with virtual addresses.
type kind struct {
	name    string
	flags   []string
	subnet  netip.Prefix // that those addresses lie in
	already bool         // whether the helper may route subnet without being told by root
}

// smallSubnet is too small for twins of the cluster's subnets: programs get addresses out of a pool.
var smallSubnet = netip.MustParsePrefix("211.55.48.0/20")

var (
	twin  = kind{"twin", []string{"--on-conflict", "virtualize"}, netip.MustParsePrefix("240.0.0.0/4"), true}
	pool  = kind{"pool", []string{"--on-conflict", "virtualize", "--virtual-ip-subnet", smallSubnet.String()}, smallSubnet, false}
	kinds = []kind{twin, pool}
)

const (
	podSubnet  = "10.132.0.0/16"            // the lab's, unless told otherwise
	limitsFile = "/etc/culvert/limits.yaml" // root's word on what the helper may route
)

// hiding is a connection and the VPN that it hides the pods from. The path to the API server, and so the
// tunnel, does not depend on that VPN.
//
//	VPN up      name ──► VIP ──► culvert0
//	VPN down    name ──► real ──► culvert0, VIP ──► culvert0 as before
type hiding struct {
	lab  *labctl.Lab
	kind kind
	vip  string // of the echo pod
	up   bool   // whether the VPN is
}

// hide connects. The VPN is down when it returns, so that the echo pod is reached by both addresses.
func hide(l *labctl.Lab, k kind) (*hiding, error) {
	h := &hiding{lab: l, kind: k}
	if err := h.connect(); err != nil {
		h.quit()
		return nil, fmt.Errorf("connect with %s addresses: %w", k.name, err)
	}
	return h, nil
}

func (h *hiding) connect() error {
	if err := h.widen(); err != nil {
		return err
	}
	if err := h.vpn("down"); err != nil {
		return err
	}
	if err := h.lab.WS(time.Minute, append([]string{"culvert", "connect"}, h.kind.flags...)...).OK(); err != nil {
		return err
	}
	if err := h.hidden(); err != nil {
		return err
	}
	return h.native()
}

// widen lets the helper route the kind's subnet, if it does not by itself.
func (h *hiding) widen() error {
	if h.kind.already {
		return nil
	}
	write := fmt.Sprintf(`mkdir -p %s; echo "prefixes: [%s]" > %s`, filepath.Dir(limitsFile), h.kind.subnet, limitsFile)
	return h.lab.WS(5*time.Second, "sh", "-ec", write).OK()
}

// quit ends the connection and leaves the VPN off.
func (h *hiding) quit() {
	h.lab.WS(30*time.Second, "culvert", "quit")
	h.lab.Run(time.Minute, "vpn", "down")
	if !h.kind.already {
		h.lab.WS(5*time.Second, "rm", "-f", limitsFile)
	}
}

// turn has the VPN up or down.
func (h *hiding) turn(up bool) error {
	switch {
	case h.up == up:
		return nil
	case up:
		return h.hidden()
	}
	return h.native()
}

// hidden brings the VPN up, waits until names are answered with virtual addresses, and learns the echo pod's.
func (h *hiding) hidden() error {
	if err := h.vpn("up", "openvpn", "--routes", podSubnet); err != nil {
		return err
	}
	h.up = true
	name := h.echoName()
	return await("a virtual address of "+name, func() error {
		a, err := h.lookup(name)
		if err == nil && !h.kind.subnet.Contains(a) {
			return fmt.Errorf("it is at %s, want an address in %s", a, h.kind.subnet)
		}
		h.vip = a.String()
		return err
	})
}

// native takes the VPN down and waits until names are answered with real addresses.
func (h *hiding) native() error {
	if err := h.vpn("down"); err != nil {
		return err
	}
	h.up = false
	name := h.echoName()
	return await("the real address of "+name, func() error {
		a, err := h.lookup(name)
		if err == nil && a.String() != h.lab.EchoPod {
			return fmt.Errorf("it is at %s, want %s", a, h.lab.EchoPod)
		}
		return err
	})
}

// vpn is `lab vpn`.
func (h *hiding) vpn(args ...string) error {
	return h.lab.Run(2*time.Minute, append([]string{"vpn"}, args...)...).OK()
}

// echoName is a name of the echo pod alone.
func (h *hiding) echoName() string {
	return strings.ReplaceAll(h.lab.EchoPod, ".", "-") + ".default.pod.cluster.local."
}

func (h *hiding) lookup(name string) (netip.Addr, error) {
	r := h.lab.WS(10*time.Second, "dig", "+short", "+tries=1", "+time=3", name)
	a, err := netip.ParseAddr(strings.TrimSpace(r.Out))
	if err != nil {
		return a, fmt.Errorf("look %s up: %s", name, r)
	}
	return a, nil
}

// await tries until it succeeds, for at most 15 s.
func await(what string, try func() error) error {
	var err error
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("wait for %s: %w", what, err)
}
