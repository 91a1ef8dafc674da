package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// dependency is something the machine must have, and the Debian package with it.
type dependency struct {
	program string // looked for on PATH and in the sbin directories
	file    string // or a glob of files, one of which must exist
	deb     string
	build   bool // needed only to build parts
}

var dependencies = []dependency{
	{program: "ip", deb: "iproute2"},
	{program: "nft", deb: "nftables"},
	{program: "openvpn", deb: "openvpn"},
	{program: "mount", deb: "mount"},
	{program: "sysctl", deb: "procps"},
	{program: "ping", deb: "iputils-ping"},
	{program: "gcc", deb: "gcc", build: true},
	{program: "pkg-config", deb: "pkg-config", build: true},
	{file: "/usr/include/seccomp.h", deb: "libseccomp-dev", build: true},
	{file: "/usr/include/linux/types.h", deb: "libc6-dev", build: true},
}

// MissingPackages names the Debian packages the machine lacks. With building
// set, those needed to compile parts count too.
func MissingPackages(building bool) []string {
	var missing []string
	for _, d := range dependencies {
		if (building || !d.build) && !d.present() {
			missing = append(missing, d.deb)
		}
	}
	return missing
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
