package cli

import (
	"encoding/json"
	"os"
	"path/filepath"

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

// runningNames returns the names of the connections that have a control socket, sorted.
func runningNames() []string {
	sockets, _ := filepath.Glob(socketPath("*")) // the pattern is a good one
	names := make([]string, len(sockets))
	for i, socket := range sockets {
		names[i] = filepath.Base(filepath.Dir(socket))
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
