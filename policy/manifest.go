package policy

import (
	"errors"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// PolicyKind is the kind that a manifest of the team's Policy names.
const PolicyKind = "Policy"

// IsManifest reports whether a text is an object of Kubernetes rather than plain settings: it names a
// kind. A text that is no YAML is none.
func IsManifest(data []byte) bool {
	root, ok := (&decoder{}).document(data)
	for i := 0; ok && root.Kind == yaml.MappingNode && i < len(root.Content); i += 2 {
		if root.Content[i].Value == "kind" {
			return true
		}
	}
	return false
}

// DecodeManifest reads the manifest of a Policy as `kubectl apply` takes it, with the strictness of
// [Decode] and the settings under spec. Metadata and status are not looked at.
func DecodeManifest(name string, data []byte) (v1alpha1.Settings, Positions, error) {
	d := decoder{name: name, at: Positions{}}
	root, ok := d.document(data)
	if !ok && len(d.problems) == 0 {
		d.fail(nil, "", "is empty; a manifest has apiVersion, kind, metadata and spec")
	}
	if ok {
		d.manifest(root)
	}
	if len(d.problems) > 0 {
		return v1alpha1.Settings{}, nil, errors.Join(d.problems...)
	}
	return d.settings, d.at, nil
}

func (d *decoder) manifest(root *yaml.Node) {
	want := map[string]string{"apiVersion": v1alpha1.Group + "/" + v1alpha1.Version, "kind": PolicyKind}
	d.mapping(root, "", []string{"apiVersion", "kind", "metadata", "spec", "status"}, func(key, value *yaml.Node) {
		if word, fixed := want[key.Value]; fixed {
			delete(want, key.Value)
			if value = resolve(value); value.Value != word {
				d.fail(value, key.Value, "is %s, but a Policy has %s", describe(value), word)
			}
		}
		if key.Value == "spec" {
			d.root(value)
		}
	})
	for _, key := range []string{"apiVersion", "kind"} {
		if word, lacking := want[key]; lacking && len(d.problems) == 0 {
			d.fail(root, key, "is missing; write %s: %s", key, word)
		}
	}
}

// SettingChange is a key that two settings say something different of.
type SettingChange struct {
	Key string `json:"key"`
	// From and To are as a file would have them; "" where nothing is said.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// DiffSettings returns the keys in which two settings differ, in the order of [Keys]. Bad values are an
// error, as in [Validate]. The order within a list is not a difference.
func DiffSettings(from, to v1alpha1.Settings) ([]SettingChange, error) {
	before, err := Validate("", from)
	after, err2 := Validate("", to)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	out := []SettingChange{}
	for _, k := range keys {
		c := SettingChange{k.Path, k.said(before), k.said(after)}
		if c.From != c.To {
			out = append(out, c)
		}
	}
	return out, nil
}

// said is what settings in normal form say of a key, as a file would have it, lists sorted; "" for
// nothing.
func (k Key) said(s v1alpha1.Settings) string {
	l := Layer{Settings: s}
	switch {
	case !l.says(k):
		return ""
	case k.Type.IsList():
		return k.inFile(slices.Sorted(slices.Values(k.list(&s))))
	}
	return k.text(&s)
}
