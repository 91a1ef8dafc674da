package policy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// leaves returns the paths of all fields of the API's settings.
func leaves(t reflect.Type, path string) []string {
	var out []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if f := t.Field(i).Type; f.Kind() == reflect.Struct { // a section
			out = append(out, leaves(f, joinKey(path, name))...)
		} else {
			out = append(out, joinKey(path, name))
		}
	}
	return out
}

// TestKeysAreTheAPI keeps the table of keys and the API type the same: neither has a key more.
func TestKeysAreTheAPI(t *testing.T) {
	want := leaves(reflect.TypeFor[v1alpha1.Settings](), "")
	var got []string
	for _, k := range Keys() {
		got = append(got, k.Path)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("keys %q\nAPI  %q", got, want)
	}
}

// TestKeysAreComplete checks that a key's own words hold: its example is accepted, its default too, it
// reaches the field it names, and its names are its own.
func TestKeysAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		named := k.PolicyOnly() || k.Flag != "" && strings.HasPrefix(k.Env, "CULVERT_") && !seen[k.Flag] && !seen[k.Env]
		if k.Doc == "" || k.Example == "" || !named {
			t.Errorf("%s is incomplete, or its names are taken: %+v", k.Path, k)
		}
		seen[k.Flag], seen[k.Env] = true, true
		for _, text := range []string{k.Example, k.Default} {
			if text == "" {
				continue
			}
			if _, err := Values(SourceFlag, Value{k.Path, text, "--" + k.Flag}); err != nil {
				t.Errorf("%s does not accept its own %q: %v", k.Path, text, err)
			}
		}
		text := k.Path + ": " + k.InFile(k.Example)
		if section, name, inSection := strings.Cut(k.Path, "."); inSection {
			text = section + ": {" + name + ": " + k.InFile(k.Example) + "}"
		}
		s, _, err := Decode("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if reflect.ValueOf(k.field(&s)).Elem().IsZero() {
			t.Errorf("%s in a file does not reach its field", k.Path)
		}
	}
}
