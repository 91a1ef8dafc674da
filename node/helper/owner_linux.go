package helper

import (
	"io/fs"
	"syscall"
)

// fileOwner returns the user a file belongs to.
func fileOwner(info fs.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}
