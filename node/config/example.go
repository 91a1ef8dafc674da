package config

import (
	"fmt"
	"strings"

	"github.com/culvert-dev/culvert/policy"
)

const exampleHead = `# Settings of culvert, all of them, with their defaults. The same keys work in a file given with
# -f/--config, in ~/.config/culvert/config.yaml, in the extension "culvert.dev" of a kubeconfig's cluster
# and, under spec, in the cluster's Policy. Flags win over the environment, that over files, those over
# the kubeconfig, that over the Policy. Lists replace those of lower precedence; entries that begin
# with "+" extend them instead.
#
# Nothing is set here: every line is a comment. Take away the "#" of what you need.
`

// Example returns the text of config.example.yaml: every key with its documentation, default, flag
// and environment variable.
func Example() string {
	var b strings.Builder
	b.WriteString(exampleHead)
	section := ""
	for _, key := range policy.Keys() {
		parent, name, inSection := strings.Cut(key.Path, ".")
		if !inSection {
			fmt.Fprintf(&b, "\n# %s\n%s#%s: %s\n", key.Doc, flagLine("", key), key.Path, key.InFile(key.Example))
			continue
		}
		if parent != section {
			fmt.Fprintf(&b, "\n#%s:\n", parent)
			section = parent
		}
		fmt.Fprintf(&b, "  # %s\n%s#  %s: %s\n", key.Doc, flagLine("  ", key), name, key.InFile(key.Example))
	}
	return b.String()
}

// flagLine names a key's flag, variable and default; "" for what only a Policy has.
func flagLine(indent string, key policy.Key) string {
	if key.PolicyOnly() {
		return ""
	}
	return fmt.Sprintf("%s# --%s, %s; default %s\n", indent, key.Flag, key.Env, defaultText(key))
}

func defaultText(key policy.Key) string {
	if key.Type.IsList() {
		return "none"
	}
	return key.InFile(key.Default)
}
