package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// dependency is something the machine must have, and the Debian package with it.
type dependency struct {
	program string // looked for on PATH and in the sbin directories
	file    string // or a glob of files, one of which must exist
	deb     string
	when    need
}

// need is when something is needed.
type need int

const (
	always   need = iota
	Building      // to compile parts
	Tooling       // by tests and people inside hosts, not by the lab itself
)

var dependencies = []dependency{
	{program: "ip", deb: "iproute2"},
	{program: "nft", deb: "nftables"},
	{program: "openvpn", deb: "openvpn"},
	{program: "mount", deb: "mount"},
	{program: "sysctl", deb: "procps"},
	{program: "ping", deb: "iputils-ping"},
	{program: "curl", deb: "curl", when: Tooling},
	{program: "dig", deb: "bind9-dnsutils", when: Tooling},
	{file: "/lib/systemd/systemd-networkd", deb: "systemd", when: Tooling},
	{program: "dbus-daemon", deb: "dbus-daemon", when: Tooling},
	{file: "/usr/share/dbus-1/system.conf", deb: "dbus-system-bus-common", when: Tooling},
	{program: "gcc", deb: "gcc", when: Building},
	{program: "pkg-config", deb: "pkg-config", when: Building},
	{file: "/usr/include/seccomp.h", deb: "libseccomp-dev", when: Building},
	{file: "/usr/include/linux/types.h", deb: "libc6-dev", when: Building},
}

// MissingPackages names the Debian packages the machine lacks: those every lab
// needs, and those for the further needs given.
func MissingPackages(further ...need) []string {
	var missing []string
	for _, d := range dependencies {
		if (d.when == always || slices.Contains(further, d.when)) && !d.present() {
			missing = append(missing, d.deb)
		}
	}
	return missing
}

// MissingForLab is MissingPackages for bringing a lab up while these parts are
// still to be built.
func MissingForLab(parts []Part) []string {
	if len(parts) > 0 {
		return MissingPackages(Building)
	}
	return MissingPackages()
}

func (d dependency) present() bool {
	if d.file != "" {
		found, _ := filepath.Glob(d.file)
		return len(found) > 0
	}
	if _, err := exec.LookPath(d.program); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin"} {
		if _, err := os.Stat(filepath.Join(dir, d.program)); err == nil {
			return true
		}
	}
	return false
}

// InstallCommand is what a person runs to get packages.
func InstallCommand(packages []string) string {
	return "apt-get install --no-install-recommends " + strings.Join(packages, " ")
}

// Install gets packages with apt-get, showing its output on out.
func Install(ctx context.Context, packages []string, out io.Writer) error {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("this machine has no apt-get: install what Debian calls %s by its own means", strings.Join(packages, ", "))
	}
	for _, args := range [][]string{
		{"update"},
		append([]string{"install", "--yes", "--no-install-recommends"}, packages...),
	} {
		cmd := exec.CommandContext(ctx, apt, args...)
		cmd.Stdout, cmd.Stderr = out, out
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}
