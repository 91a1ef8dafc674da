package host

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// scratch holds the upper layers of overlays, on the host's private /run.
const scratch = "/run/.lab"

// apply makes the calling process's mount namespace that of the host. Order:
// private first (nothing may reach the machine), then /run, which carries the
// upper layer of /etc, then everything that lies on them.
func (s Setup) apply() error {
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set host name %s: %w", s.Hostname, err)
	}
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	steps := []func() error{s.mountRun, s.mountEtc, s.mountTun, s.mountSys, s.mountTmpfs, s.mountBinds, s.writeFiles, s.share}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

func (s Setup) mountRun() error {
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"lock", "netns", "wireguard"} {
		if err := os.MkdirAll(filepath.Join("/run", dir), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// mountEtc lays a writable overlay over /etc, so that users, certificates and
// tools stay those of the machine while renames over /etc/resolv.conf work.
func (s Setup) mountEtc() error {
	upper, work := filepath.Join(scratch, "etc"), filepath.Join(scratch, "etc.work")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+work)
}

// mountTun gives the host a /dev/net/tun that every user may open, the mode
// distributions ship.
func (s Setup) mountTun() error {
	if err := mount("tmpfs", "/dev/net", "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	const tun = "/dev/net/tun"
	if err := unix.Mknod(tun, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		return fmt.Errorf("make %s: %w", tun, err)
	}
	return os.Chmod(tun, 0o666) // past the umask
}

// mountSys shows this network namespace's devices under /sys. Nodes keep the
// machine's /sys, whose cgroup mounts kubelet needs.
func (s Setup) mountSys() error {
	if !s.FreshSys {
		return nil
	}
	// The control groups ride over: a container engine on ws needs them.
	const groups, aside = "/sys/fs/cgroup", scratch + "/cgroup"
	if err := os.MkdirAll(aside, 0o755); err != nil {
		return err
	}
	if err := mount(groups, aside, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount(aside, groups, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Unmount(aside, unix.MNT_DETACH)
}

func (s Setup) mountTmpfs() error {
	for _, t := range s.Tmpfs {
		data := fmt.Sprintf("mode=%o,uid=%d,gid=%d", t.Mode, t.UID, t.GID)
		if err := mount("tmpfs", t.Path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
			return err
		}
	}
	return nil
}

func (s Setup) mountBinds() error {
	for _, b := range s.Bind {
		if err := mount(b.From, b.To, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", b.From, err)
		}
	}
	return nil
}

// writeFiles replaces files whole, also where the machine has a symbolic link
// (/etc/resolv.conf often is one).
func (s Setup) writeFiles() error {
	for path, text := range s.Files {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("replace %s: %w", path, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s Setup) share() error {
	if !s.Shared {
		return nil
	}
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}
