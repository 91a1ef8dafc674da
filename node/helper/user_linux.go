package helper

import (
	"fmt"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// User is whom the user half runs as.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
	Name   string
	// Home is the user's home directory.
	Home string
}

// InvokingUser returns who called sudo, by the variables that sets (sudo(8)), or else the user this
// process runs as. getenv is [os.Getenv].
func InvokingUser(getenv func(string) string) (User, error) {
	uid := getenv("SUDO_UID")
	if uid == "" {
		self, err := user.Current()
		if err != nil {
			return User{}, fmt.Errorf("find out who runs this: %w", err)
		}
		uid = self.Uid
	}
	u, err := lookUp(uid)
	if err != nil {
		return User{}, fmt.Errorf("look up user id %s, as whom to run the user half: %w", uid, err)
	}
	return u, nil
}

// lookUp returns the user with this id and the groups it is in.
func lookUp(uid string) (User, error) {
	entry, err := user.LookupId(uid)
	if err != nil {
		if entry, err = askSystem(uid); err != nil {
			return User{}, err
		}
	}
	u := User{Name: entry.Username, Home: entry.HomeDir}
	if u.UID, err = parseID(entry.Uid); err != nil {
		return User{}, err
	}
	if u.GID, err = parseID(entry.Gid); err != nil {
		return User{}, err
	}
	groups, err := entry.GroupIds()
	if out, e := exec.Command("id", "-G", uid).Output(); e == nil {
		groups, err = strings.Fields(string(out)), nil // knows directory services too
	}
	if err != nil {
		return User{}, fmt.Errorf("groups of %s: %w", u.Name, err)
	}
	for _, g := range groups {
		gid, err := parseID(g)
		if err != nil {
			return User{}, err
		}
		u.Groups = append(u.Groups, gid)
	}
	return u, nil
}

// askSystem asks getent(1): users of a directory service are in no file, and a static binary reads
// files only.
func askSystem(uid string) (*user.User, error) {
	out, err := exec.Command("getent", "passwd", uid).Output()
	if err != nil {
		return nil, fmt.Errorf("getent passwd %s: %w", uid, err)
	}
	fields := strings.Split(strings.TrimSpace(string(out)), ":")
	if len(fields) < 7 || fields[2] != uid {
		return nil, fmt.Errorf("getent passwd %s: unexpected answer", uid)
	}
	return &user.User{Username: fields[0], Uid: fields[2], Gid: fields[3], HomeDir: fields[5]}, nil
}

// parseID parses a user or group id.
func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("id %q: %w", text, err)
	}
	return uint32(id), nil
}

// credential returns what the kernel needs to know.
func (u User) credential() *syscall.Credential {
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// environ returns env with the variables that say who one is.
func (u User) environ(env []string) []string {
	own := map[string]string{"HOME": u.Home, "USER": u.Name, "LOGNAME": u.Name}
	var out []string
	for _, e := range env {
		key, _, _ := strings.Cut(e, "=")
		if _, replaced := own[key]; !replaced && !strings.HasPrefix(key, "SUDO_") {
			out = append(out, e)
		}
	}
	return append(out, "HOME="+u.Home, "USER="+u.Name, "LOGNAME="+u.Name)
}
