package policy

import (
	"fmt"
	"strconv"
)

// Source is a kind of place that settings come from.
type Source string

// Sources, highest precedence first.
const (
	SourceFlag        Source = "flag"
	SourceEnvironment Source = "environment"
	SourceFile        Source = "file"
	SourceUserFile    Source = "user file"
	SourceKubeconfig  Source = "kubeconfig"
	SourcePolicy      Source = "policy"
	SourceDefault     Source = "default"
)

// Position says where a value was written.
type Position struct {
	// Name is a file name, a flag, an environment variable, or what else the source goes by.
	Name string `json:"name,omitempty"`
	// Line counts from 1; 0 means that the source has no lines.
	Line int `json:"line,omitempty"`
}

// String is the position as compilers print it, "config.yaml:12".
func (p Position) String() string {
	if p.Line == 0 {
		return p.Name
	}
	return p.Name + ":" + strconv.Itoa(p.Line)
}

// Positions holds where each key, "routing.alsoProxySubnets", and each entry of a list,
// "routing.alsoProxySubnets[0]", was written. A key that is absent was not written.
type Positions map[string]Position

// Origin is where an effective value came from.
type Origin struct {
	Source Source `json:"source"`
	Position
}

// String reads as part of a sentence: "user file /home/a/.config/culvert/config.yaml:12", "flag --mtu".
func (o Origin) String() string {
	if p := o.Position.String(); p != "" {
		return string(o.Source) + " " + p
	}
	return string(o.Source)
}

// Provenance holds, for each key, the sources that its effective value was made of, highest
// precedence first: one, or several where a list was extended.
type Provenance map[string][]Origin

// SettingError is one thing wrong with one setting.
type SettingError struct {
	Position Position
	// Key is the full path, such as "routing.alsoProxySubnets[1]"; "" where the text as a whole is meant.
	Key     string
	Problem string // what is wrong, and what would be accepted
}

func (e *SettingError) Error() string {
	switch {
	case e.Key == "":
		return fmt.Sprintf("%s: %s", e.Position, e.Problem)
	case e.Position.Name == "":
		return fmt.Sprintf("%s: %s", e.Key, e.Problem)
	}
	return fmt.Sprintf("%s: %s: %s", e.Position, e.Key, e.Problem)
}

func entryKey(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }
