package hostdns

import (
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// owner returns the user and group of a file.
func owner(info fs.FileInfo) (uid, gid int) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return 0, 0
}

// identify returns the device and inode of a file.
func identify(info fs.FileInfo) fileID {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{uint64(st.Dev), st.Ino}
	}
	return fileID{}
}

// touchLink sets the modification time of a link; not all file systems can.
func touchLink(path string, at time.Time) {
	ts := unix.NsecToTimespec(at.UnixNano())
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// copyLabel gives the file to the SELinux label of from, so that confined programs can still read the
// resolver file. Hosts without SELinux have none, and a failure costs nothing but the label.
func copyLabel(from, to string) {
	const name = "security.selinux"
	label := make([]byte, 256)
	if n, err := unix.Lgetxattr(from, name, label); err == nil {
		_ = unix.Lsetxattr(to, name, label[:n], 0)
	}
}
