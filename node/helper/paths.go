package helper

import (
	"fmt"
	"path/filepath"
	"regexp"

	"github.com/culvert-dev/culvert/node/journal"
)

// Paths are the places on the host that the helper knows. The zero value of a field means its default.
type Paths struct {
	// StateDir has the journals, one directory per connection: /var/lib/culvert.
	StateDir string `json:"stateDir,omitempty"`
	// RunDir has sockets, logs, pid and lock files, one directory per connection: /run/culvert.
	RunDir string `json:"runDir,omitempty"`
	// UAPIDir is where wg(8) looks for sockets of user space devices: /var/run/wireguard.
	UAPIDir string `json:"uapiDir,omitempty"`
	// ResolvConf is the host's resolver file: /etc/resolv.conf.
	ResolvConf string `json:"resolvConf,omitempty"`
	// Limits is the file of [Limits]: /etc/culvert/limits.yaml.
	Limits string `json:"limits,omitempty"`
}

// withDefaults fills in what is empty.
func (p Paths) withDefaults() Paths {
	set := func(field *string, path string) {
		if *field == "" {
			*field = path
		}
	}
	set(&p.StateDir, "/var/lib/culvert")
	set(&p.RunDir, "/run/culvert")
	set(&p.UAPIDir, "/var/run/wireguard")
	set(&p.ResolvConf, "/etc/resolv.conf")
	set(&p.Limits, "/etc/culvert/limits.yaml")
	return p
}

// journals returns the store of journals.
func (p Paths) journals() journal.Store { return journal.Store{Dir: p.withDefaults().StateDir} }

// run returns the path of a runtime file of connection name.
func (p Paths) run(name, file string) string {
	return filepath.Join(p.withDefaults().RunDir, name, file)
}

// APISocket returns the path of the connection's control socket, which the user half serves.
func (p Paths) APISocket(name string) string { return p.run(name, "api.sock") }

// HelperLog returns the path of the helper's log.
func (p Paths) HelperLog(name string) string { return p.run(name, "helper.log") }

// NodeLog returns the path of the user half's log.
func (p Paths) NodeLog(name string) string { return p.run(name, "node.log") }

// LastStatus returns the path of the last status of a connection that ended by itself, which the user
// half gave to [Client.Close].
func (p Paths) LastStatus(name string) string { return p.run(name, "last.json") }

// pidFile holds the helper's process id.
func (p Paths) pidFile(name string) string { return p.run(name, "helper.pid") }

// lockFile is locked while a connection runs.
func (p Paths) lockFile(name string) string { return p.run(name, "lock") }

var connectionName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// CheckName returns an error unless name can be a connection's: it becomes part of paths and of a
// resolver file's first line.
func CheckName(name string) error {
	if connectionName.MatchString(name) {
		return nil
	}
	return fmt.Errorf("connection name %q: use 1 to 32 lower-case letters, digits and dashes, beginning and ending with a letter or digit", name)
}
