//go:build netns

package helper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A file that is a mount point of its own cannot be replaced by renaming, as in containers.
func TestMountedResolverFile(t *testing.T) {
	sh(t, "cp -a /etc/resolv.conf /mnt/resolv.conf; mount --bind /mnt/resolv.conf /etc/resolv.conf")
	defer sh(t, "umount /etc/resolv.conf")
	before := snapshot(t)
	for range 2 {
		c := connect(t, LaunchOptions{})
		if c.report.Error != "" || !strings.Contains(sh(t, "cat /etc/resolv.conf"), "nameserver 245.1.2.10\n") {
			t.Fatalf("not hooked up: %s", c.report.Error)
		}
		sendSignal(t, c.HelperPID, unix.SIGKILL)
		restoredWithin(t, before, time.Second)
		c.end(t)
		eventually(t, 10*time.Second, "the lock is free", func() bool { return !(Paths{}).Running(DefaultName) })
	}
}

// As on a host with systemd-resolved: the file is a link to its stub's, and the servers behind the stub
// are listed elsewhere.
func TestHostWithSystemdResolved(t *testing.T) {
	sh(t, `mkdir -p /run/systemd/resolve; cd /run/systemd/resolve
		echo "nameserver 127.0.0.53" > stub-resolv.conf; echo "nameserver 192.168.77.7" > resolv.conf
		mv /etc/resolv.conf /mnt/resolv.conf; ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf`)
	defer sh(t, "rm -r /run/systemd; mv /mnt/resolv.conf /etc/resolv.conf")
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	if s := c.report.Host.Servers; len(s) != 1 || s[0].String() != "192.168.77.7" {
		t.Errorf("upstreams %v, want the one behind the stub", s)
	}
	sh(t, "printf 'nameserver 245.1.2.10\\nnameserver 192.168.77.8\\n' > /run/systemd/resolve/resolv.conf") // another network; ours counted in
	var e Event
	line, err := c.read.ReadBytes('\n')
	if err = errors.Join(err, json.Unmarshal(line, &e)); err != nil || e.Host == nil || fmt.Sprint(e.Host.Servers) != "[192.168.77.8]" {
		t.Errorf("event %s, %v: want the new server alone", line, err)
	}
	sendSignal(t, c.HelperPID, unix.SIGKILL)
	restoredWithin(t, before, time.Second)
	if link, err := os.Readlink("/etc/resolv.conf"); err != nil || link != "../run/systemd/resolve/stub-resolv.conf" {
		t.Errorf("link to %q, %v", link, err)
	}
}

func TestTwoConnectionsStackAndLeaveInAnyOrder(t *testing.T) {
	for _, firstLeaves := range []bool{true, false} {
		t.Run(fmt.Sprintf("first leaves first %v", firstLeaves), func(t *testing.T) {
			before := snapshot(t)
			a := connect(t, LaunchOptions{})
			b := connect(t, LaunchOptions{Name: "lab2", NodeArgs: []string{"2"}})
			if b.report.Error != "" || b.report.Interface != "culvert1" {
				t.Fatalf("second connection: %+v", b.report)
			}
			if s := b.report.Host.Servers; len(s) != 1 || s[0].String() != "245.1.2.10" {
				t.Errorf("the second connection asks %v, want the first one", s)
			}
			if firstLeaves {
				a.command(t, "close")
				var e Event
				line, err := b.read.ReadBytes('\n')
				if err = errors.Join(err, json.Unmarshal(line, &e)); err != nil || e.Host == nil || e.Host.Servers[0].String() != "192.168.77.2" {
					t.Errorf("event %s, %v: want the host's own servers", line, err)
				}
				b.command(t, "close")
			} else {
				b.command(t, "close")
				eventually(t, time.Second, "the first one's file is back", func() bool {
					return strings.Contains(sh(t, "cat /etc/resolv.conf"), "nameserver 245.1.2.10")
				})
				a.command(t, "close")
			}
			_, _ = a.Wait(), b.Wait()
			restoredWithin(t, before, time.Second)
		})
	}
}

func TestRewrittenResolverFileIsAdopted(t *testing.T) {
	before := snapshot(t)
	c := connect(t, LaunchOptions{})
	original := sh(t, "cp -a /etc/resolv.conf /tmp/ours; printf 'nameserver 192.168.77.9\\n' > /etc/resolv.conf.dhcp; mv /etc/resolv.conf.dhcp /etc/resolv.conf")
	_ = original
	var e Event
	line, err := c.read.ReadBytes('\n')
	if err = errors.Join(err, json.Unmarshal(line, &e)); err != nil || e.Host == nil || e.Host.Servers[0].String() != "192.168.77.9" {
		t.Errorf("event %s, %v: want the new server", line, err)
	}
	if got := sh(t, "cat /etc/resolv.conf"); !strings.Contains(got, "nameserver 245.1.2.10\n") {
		t.Errorf("not hooked again:\n%s", got)
	}
	c.command(t, "close")
	_ = c.Wait()
	if got := sh(t, "cat /etc/resolv.conf"); got != "nameserver 192.168.77.9\n" {
		t.Errorf("restored to\n%s", got)
	}
	restoreResolvConf(t)
	_ = before
}

// restoreResolvConf writes the host's own file again, for the next test.
func restoreResolvConf(t testing.TB) {
	t.Helper()
	if err := os.WriteFile("/etc/resolv.conf", []byte(hostResolvConf), 0o644); err != nil {
		t.Fatal(err)
	}
}
