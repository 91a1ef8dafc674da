//go:build netns

package helper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/culvert-dev/culvert/node/hostnet"
)

// The tests with the build tag netns need root. They run in a network and a mount namespace of their
// own, which the kernel removes with the last process in it:
//
//	lo, up
//	v0 192.168.77.1/24, fd77::1/64 ── v1 (same namespace), default route over v0
//	an unmarked rule, a route in another table and an nftables table, to stay as they are
//	/etc an overlay, /run and /var/lib empty

const inNamespaces = "CULVERT_TEST_NAMESPACES"

func init() { prepare = enterNamespaces }

// enterNamespaces runs the test program again inside fresh namespaces: as a whole, because a process
// with many threads cannot move.
func enterNamespaces() {
	if os.Getenv(inNamespaces) == "" {
		os.Exit(runInNamespaces())
	}
	if err := buildNamespaces(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the namespaces:", err)
		os.Exit(1)
	}
}

func runInNamespaces() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests need root")
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespaces+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func buildNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib", "/mnt"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for _, dir := range []string{"/mnt/upper", "/mnt/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work"); err != nil {
		return fmt.Errorf("mount /etc: %w", err)
	}
	if err := os.Remove("/etc/resolv.conf"); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.WriteFile("/etc/resolv.conf", []byte(hostResolvConf), 0o644); err != nil {
		return err
	}
	for _, line := range strings.Split(strings.TrimSpace(hostNetwork), "\n") {
		if out, err := exec.Command("sh", "-ec", line).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	return nil
}

const hostResolvConf = "# the host's own\nnameserver 192.168.77.2\nsearch corp.example\noptions ndots:2\n"

const hostNetwork = `
ip link set lo up
ip link add v0 type veth peer name v1
ip link set v0 addrgenmode none; ip link set v1 addrgenmode none; ip link set v0 up; ip link set v1 up
ip address add 192.168.77.1/24 dev v0
ip address add fd77::1/64 dev v0 nodad
ip route add default via 192.168.77.2
ip rule add priority 900 to 198.51.100.0/24 lookup 55
ip route add 10.0.0.0/8 via 192.168.77.3 table 55
nft add table inet other; nft add chain inet other in '{ type filter hook input priority 0; }'; nft add rule inet other in iifname culvert9 drop
`

// snapshot returns what tests compare: everything of the host that a connection touches, or must not.
func snapshot(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", strings.Join([]string{
		"ip -details link show", "ip address show | grep -v valid_lft",
		"ip -4 route show table all", "ip -6 route show table all",
		"ip -4 rule show", "ip -6 rule show",
		"nft --stateless list ruleset",
		"ls -la --time-style=full-iso /etc/resolv.conf", "ls -A /etc | grep resolv", "cat /etc/resolv.conf",
		"ls -A /run/wireguard 2>/dev/null || true",
		"ls -A /var/lib",
	}, "; echo ----; ")).CombinedOutput()
	if err != nil {
		t.Fatalf("snapshot: %v: %s", err, out)
	}
	return string(out)
}

// restoredWithin waits until nothing of ours is on the host and no journal is left, checks that this
// took no longer than limit, and that the host then is as it was before.
func restoredWithin(t testing.TB, before string, limit time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	host, closeHost, err := hostnet.New()
	if err != nil {
		t.Fatal(err)
	}
	defer closeHost()
	took := time.Since(start)
	for !clean(t, host) && took <= limit {
		time.Sleep(2 * time.Millisecond)
		took = time.Since(start)
	}
	if now := snapshot(t); now != before || took > limit {
		t.Fatalf("restored in %v, limit %v; not as it was:\n%s", took, limit, diff(t, before, now))
	}
	return took
}

// clean reports whether nothing carries our marks. Removing the journal is the last step of a restore.
func clean(t testing.TB, host hostnet.Host) bool {
	t.Helper()
	marked, err := host.Marked()
	if err != nil {
		t.Fatal(err)
	}
	journals, err := (Paths{}).journals().Names()
	if err != nil {
		t.Fatal(err)
	}
	return len(marked) == 0 && len(journals) == 0
}

// equalWithin waits until the host is as in an earlier snapshot.
func equalWithin(t testing.TB, want string, limit time.Duration) {
	t.Helper()
	var now string
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if now = snapshot(t); now == want {
			return
		}
	}
	t.Fatalf("not as it was within %v:\n%s", limit, diff(t, want, now))
}

// diff returns what changed.
func diff(t testing.TB, a, b string) string {
	dir := t.TempDir()
	for name, text := range map[string]string{"before": a, "after": b} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := exec.Command("diff", "-U1", filepath.Join(dir, "before"), filepath.Join(dir, "after")).CombinedOutput()
	return string(out)
}

// sh runs a command line and returns its output.
func sh(t testing.TB, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// eventually waits for a condition.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
