package cli

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/scripts/lab/internal/cluster"
	"github.com/culvert-dev/culvert/scripts/lab/internal/host"
	"github.com/culvert-dev/culvert/scripts/lab/internal/launch"
	"github.com/culvert-dev/culvert/scripts/lab/internal/proc"
	"github.com/culvert-dev/culvert/scripts/lab/internal/state"
	"github.com/culvert-dev/culvert/scripts/lab/internal/topology"
)

type netPrefix = netip.Prefix

func text(prefixes []netip.Prefix) string {
	var words []string
	for _, p := range prefixes {
		words = append(words, p.String())
	}
	return strings.Join(words, ",")
}

// makeHost starts one host's holder with the file system it needs.
func makeHost(l *state.Lab, h topology.Host) (state.Host, error) {
	setup, err := setupFor(l, h.Name)
	if err != nil {
		return state.Host{}, err
	}
	if err := makeMountPoints(setup); err != nil {
		return state.Host{}, err
	}
	made := state.Host{Name: h.Name}
	for _, a := range h.Addrs {
		made.Addresses = append(made.Addresses, a.Prefix.Addr())
	}
	err = host.Start(setup, func(pid int) error {
		made.NetNS = inode(pid)
		made.Holder, err = launch.Record(l, proc.Process{Name: "hold-" + h.Name, Host: h.Name, PID: pid})
		return err
	})
	return made, err
}

// inode identifies the network namespace of pid; 0 when it is gone.
func inode(pid int) uint64 {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st); err != nil {
		return 0
	}
	return st.Ino
}

func setupFor(l *state.Lab, name string) (host.Setup, error) {
	s := host.Setup{
		Title:    "lab-" + l.Name + "-" + name,
		Hostname: name,
		FreshSys: true,
		Files: map[string]string{
			"/etc/resolv.conf":   "nameserver " + topology.CorpResolver.String() + "\n",
			"/etc/hostname":      name + "\n",
			"/etc/hosts":         "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 " + name + "\n",
			"/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n",
		},
	}
	switch {
	case name == topology.WS:
		return s, workstationSetup(&s)
	case strings.HasPrefix(name, "node"):
		s.FreshSys, s.Shared = false, true
		binds, err := cluster.NodeBinds(l, name)
		if err != nil {
			return s, err
		}
		for from, to := range binds {
			s.Bind = append(s.Bind, host.Bind{From: from, To: to})
		}
	}
	return s, nil
}

// workstationSetup adds the user dev and the places a client keeps things in.
func workstationSetup(s *host.Setup) error {
	s.Tmpfs = []host.Tmpfs{
		{Path: "/var/lib/culvert", Mode: 0o755},
		{Path: devHome, Mode: 0o755, UID: devUID, GID: devUID},
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	// What a client of root's keeps is the lab's, and what root's own client kept is none of the lab's.
	for _, dir := range []string{".config/culvert", ".local/state/culvert"} {
		s.Tmpfs = append(s.Tmpfs, host.Tmpfs{Path: filepath.Join(home, dir), Mode: 0o700})
	}
	for file, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("%s:x:%d:%d::%s:/bin/bash", devName, devUID, devUID, devHome),
		"/etc/group":  fmt.Sprintf("%s:x:%d:", devName, devUID),
	} {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		s.Files[file] = withUser(string(raw), line)
	}
	return nil
}

// withUser puts line, an entry of passwd(5) or group(5), in the place of entries
// with the same name or number.
func withUser(file, line string) string {
	fields := strings.Split(line, ":")
	same := regexp.MustCompile(`(?m)^(` + regexp.QuoteMeta(fields[0]) + `:.*|[^:\n]*:[^:\n]*:` + fields[2] + `:.*)\n?`)
	rest := same.ReplaceAllString(file, "")
	if rest != "" && !strings.HasSuffix(rest, "\n") {
		rest += "\n"
	}
	return rest + line + "\n"
}
