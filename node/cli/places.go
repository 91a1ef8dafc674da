package cli

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/culvert-dev/culvert/node/api"
	"github.com/culvert-dev/culvert/node/failure"
	"github.com/culvert-dev/culvert/node/helper"
)

// defaultName is the connection that commands mean when none is named.
const defaultName = helper.DefaultName

func checkName(name string) error {
	if err := helper.CheckName(name); err != nil {
		return failure.New(failure.Usage, err, "")
	}
	return nil
}

func socketPath(name string) string { return helper.Paths{}.APISocket(name) }
func nodeLog(name string) string    { return helper.Paths{}.NodeLog(name) }
func helperLog(name string) string  { return helper.Paths{}.HelperLog(name) }

// runningNames returns the names of the connections whose control socket is served, sorted.
func runningNames() []string { return servedBeside(socketPath("*")) }

// servedBeside returns the directories of the sockets that fit a pattern and that somebody listens at. One
// that was killed leaves its socket behind.
func servedBeside(pattern string) []string {
	sockets, _ := filepath.Glob(pattern) // the pattern is a good one
	var names []string
	for _, socket := range sockets {
		conn, err := net.DialTimeout("unix", socket, time.Second)
		if err != nil {
			continue
		}
		conn.Close() //nolint:errcheck // nothing was said
		names = append(names, filepath.Base(filepath.Dir(socket)))
	}
	return names
}

// lastWords returns the last status of a connection that ended by itself.
func lastWords(name string) (api.Status, bool) {
	data, err := os.ReadFile(helper.Paths{}.LastStatus(name))
	if err != nil {
		return api.Status{}, false
	}
	var s api.Status
	return s, json.Unmarshal(data, &s) == nil
}
