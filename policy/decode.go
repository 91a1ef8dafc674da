package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// maxFileBytes bounds a settings file; real ones are below a thousandth of it.
const maxFileBytes = 1 << 20

// Decode reads settings in YAML (1.2, of which JSON is a part). It is strict: unknown and repeated
// keys, wrong types and bad values are errors, all of them together, each a [*SettingError] with
// file, line and full key path. The values returned are in normal form; on error nothing is.
//
// name is how messages call the text, usually its file name. An empty text is valid and says nothing.
func Decode(name string, data []byte) (v1alpha1.Settings, Positions, error) {
	d := decoder{name: name, at: Positions{}}
	if len(data) > maxFileBytes {
		d.fail(nil, "", "is larger than %d bytes; this is no settings file", maxFileBytes)
	} else if root, ok := d.document(data); ok {
		d.root(root)
	}
	if len(d.problems) > 0 {
		return v1alpha1.Settings{}, nil, errors.Join(d.problems...)
	}
	return d.settings, d.at, nil
}

type decoder struct {
	name     string
	settings v1alpha1.Settings
	at       Positions
	problems []error
}

func (d *decoder) position(n *yaml.Node) Position {
	if n == nil {
		return Position{Name: d.name}
	}
	return Position{Name: d.name, Line: n.Line}
}

func (d *decoder) fail(n *yaml.Node, key, format string, args ...any) {
	d.problems = append(d.problems, &SettingError{d.position(n), key, fmt.Sprintf(format, args...)})
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (?:did not find )?`)

// document parses the one document of the text; ok is false if there is nothing in it.
func (d *decoder) document(data []byte) (root *yaml.Node, ok bool) {
	var doc, second yaml.Node
	reader := yaml.NewDecoder(bytes.NewReader(data))
	err := reader.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, false
	}
	if err == nil {
		if err := reader.Decode(&second); err == nil {
			d.fail(&second, "", "is a second document; settings are one document, remove the line '---'")
			return nil, false
		} else if !errors.Is(err, io.EOF) {
			d.syntax(err)
			return nil, false
		}
		return doc.Content[0], true
	}
	d.syntax(err)
	return nil, false
}

// syntax passes on what the YAML parser says, with its line in our form.
func (d *decoder) syntax(err error) {
	at, text := Position{Name: d.name}, err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		at.Line, _ = strconv.Atoi(m[1])
		text = strings.TrimPrefix(text, "yaml: line "+m[1]+": ")
	}
	text = strings.TrimPrefix(text, "yaml: ")
	d.problems = append(d.problems, &SettingError{at, "", "not valid YAML: " + text})
}

func (d *decoder) root(root *yaml.Node) {
	d.mapping(root, "", sections(), func(section, value *yaml.Node) {
		if k, whole := KeyByPath(section.Value); whole { // a key without a section
			d.at[k.Path] = d.position(section)
			d.value(k, value)
			return
		}
		d.mapping(value, section.Value, keysIn(section.Value), func(name, value *yaml.Node) {
			k, _ := KeyByPath(section.Value + "." + name.Value)
			d.at[k.Path] = d.position(name)
			d.value(k, value)
		})
	})
}

// mapping walks a YAML mapping whose keys must be among accepted, each at most once. A null, as a
// section has when all in it is commented out, says nothing.
func (d *decoder) mapping(n *yaml.Node, path string, accepted []string, visit func(key, value *yaml.Node)) {
	n = resolve(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "is %s, but holds keys: %s", describe(n), strings.Join(accepted, ", "))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		full := joinKey(path, key.Value)
		switch line, again := seen[key.Value]; {
		case key.Kind != yaml.ScalarNode || !slices.Contains(accepted, key.Value):
			d.unknownKey(key, full, path, accepted)
		case again:
			d.fail(key, full, "is here a second time; it was set on line %d", line)
		default:
			seen[key.Value] = key.Line
			visit(key, value)
		}
	}
}

func (d *decoder) unknownKey(key *yaml.Node, full, path string, accepted []string) {
	if key.Kind != yaml.ScalarNode {
		d.fail(key, path, "has a key that is %s; accepted keys: %s", describe(key), strings.Join(accepted, ", "))
		return
	}
	hint := ""
	if s := Suggest(key.Value, accepted); s != "" {
		hint = "did you mean " + joinKey(path, s) + "? "
	}
	d.fail(key, full, "unknown key; %saccepted keys: %s", hint, strings.Join(accepted, ", "))
}

// value reads the value of one key into its field.
func (d *decoder) value(k Key, n *yaml.Node) {
	if n = resolve(n); k.Type.IsList() {
		d.list(k, n)
		return
	}
	if n.Kind != yaml.ScalarNode || isNull(n) || k.Type == TypeInteger && n.ShortTag() != "!!int" {
		d.fail(n, k.Path, "is %s, but wants one %s, such as %s", describe(n), k.Type, k.Example)
		return
	}
	text, err := k.check(n.Value)
	if err != nil {
		d.fail(n, k.Path, "%v", err)
		return
	}
	k.setText(&d.settings, text)
}

func (d *decoder) list(k Key, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, k.Path, "is %s, but wants a %s, such as %s", describe(n), k.Type, k.InFile(k.Example))
		return
	}
	texts := make([]string, 0, len(n.Content))
	for i, item := range n.Content {
		d.at[entryKey(k.Path, i)] = d.position(item)
		item = resolve(item)
		if k.Type.Fields() != nil {
			if text, ok := d.pair(k, entryKey(k.Path, i), item); ok {
				texts = append(texts, text)
			}
			continue
		}
		if item.Kind != yaml.ScalarNode || item.ShortTag() != "!!str" {
			d.fail(item, entryKey(k.Path, i), "is %s, but wants a text, such as %q", describe(item), k.Example)
			continue
		}
		texts = append(texts, item.Value)
	}
	if len(texts) < len(n.Content) {
		return
	}
	normal, errs := k.normalList(texts, func(i int) Position { return d.at[entryKey(k.Path, i)] })
	for _, e := range errs {
		d.fail(n.Content[e.index], entryKey(k.Path, e.index), "%v", e.err)
	}
	k.setList(&d.settings, normal)
}

// pair reads one mapping, such as {subnet, resolve}, into the form that a flag has.
func (d *decoder) pair(k Key, path string, n *yaml.Node) (text string, ok bool) {
	fields := k.Type.Fields()
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "is %s, but wants {%s: ..., %s: ...}", describe(n), fields[0], fields[1])
		return "", false
	}
	said := map[string]string{}
	before := len(d.problems)
	d.mapping(n, path, fields, func(key, value *yaml.Node) {
		if value = resolve(value); value.Kind != yaml.ScalarNode || value.ShortTag() != "!!str" {
			d.fail(value, joinKey(path, key.Value), "is %s, but wants a text", describe(value))
		}
		said[key.Value] = value.Value
	})
	for _, name := range fields {
		if said[name] == "" && len(d.problems) == before {
			d.fail(n, path, "has no %s; write %s", name, k.mapping(k.Example))
		}
	}
	return said[fields[0]] + "=" + said[fields[1]], len(d.problems) == before
}

// resolve follows aliases. The fixed shape of the settings bounds how often.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// describe says what a node is, for messages.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case isNull(n):
		return "empty"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the boolean " + n.Value
	case "!!timestamp":
		return "the date " + n.Value
	}
	return strconv.Quote(n.Value)
}

func joinKey(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
