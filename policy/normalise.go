package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// extend begins an entry that is added to the list of lower precedence instead of replacing it.
const extend = "+"

// isExtension reports whether a list in normal form extends the one of lower precedence.
func isExtension(list []string) bool { return len(list) > 0 && strings.HasPrefix(list[0], extend) }

// entryError is what is wrong with one entry of a list.
type entryError struct {
	index int
	err   error
}

// normalList checks the entries of a list, each and against one another, and returns them in normal form,
// the "+" kept. at says where an entry was written.
func (k Key) normalList(entries []string, at func(i int) Position) ([]string, []entryError) {
	out := make([]string, 0, len(entries))
	var errs []entryError
	extends := isExtension(entries)
	for i, e := range entries {
		text, plus := strings.CutPrefix(e, extend)
		normal, err := k.check(strings.TrimSpace(text))
		if plus != extends && err == nil {
			err = fmt.Errorf(`%q: either all entries begin with "+", which extends the list of lower precedence, or none does, which replaces it`, e)
		}
		if err != nil {
			errs = append(errs, entryError{i, err})
			continue
		}
		if plus {
			normal = extend + normal
		}
		out = append(out, normal)
	}
	if len(errs) > 0 {
		return out, errs
	}
	return out, k.clashes(out, at)
}

// clashes returns what entries in normal form have against one another.
func (k Key) clashes(entries []string, at func(i int) Position) []entryError {
	if k.Type != TypeProxyVia {
		return nil
	}
	rules := make([]RoutingRule, len(entries))
	for i, e := range entries {
		rules[i] = viaRule(strings.TrimPrefix(e, extend), Origin{Position: at(i)})
	}
	var errs []entryError
	for _, c := range viaClashes(rules, nil) {
		errs = append(errs, entryError{c.second, errors.New(c.problem(rules))})
	}
	return errs
}

// setText stores a value that check has accepted, in a key that is no list.
func (k Key) setText(s *v1alpha1.Settings, text string) {
	switch f := k.field(s).(type) {
	case *string:
		*f = text
	case *int32:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			panic("policy: " + k.Path + ": check let " + strconv.Quote(text) + " pass")
		}
		*f = int32(n)
	}
}

// text returns a value that is no list as it would be written; "" if the settings say nothing.
func (k Key) text(s *v1alpha1.Settings) string {
	switch f := k.field(s).(type) {
	case *string:
		return *f
	case *int32:
		if *f != 0 {
			return strconv.Itoa(int(*f))
		}
	}
	return ""
}

// Value is one setting as a flag or an environment variable gives it: text, lists joined by commas.
type Value struct {
	// Key is the path of the setting.
	Key  string
	Text string
	// Name is the flag or the variable, for messages and provenance: "--mtu", "CULVERT_MTU".
	Name string
}

// Values makes a layer out of flags or environment variables, through the same checks as a file.
func Values(source Source, values ...Value) (Layer, error) {
	l := Layer{Source: source, Positions: Positions{}}
	var problems []error
	for _, v := range values {
		at := Position{Name: v.Name}
		k, ok := KeyByPath(v.Key)
		if !ok {
			problems = append(problems, &SettingError{at, v.Key, "unknown key"})
			continue
		}
		l.Positions[k.Path] = at
		if err := k.setFromText(&l.Settings, v.Text); err != nil {
			problems = append(problems, &SettingError{Position: at, Problem: err.Error()})
		}
	}
	if len(problems) > 0 {
		return Layer{}, errors.Join(problems...)
	}
	return l, nil
}

func (k Key) setFromText(s *v1alpha1.Settings, text string) error {
	if !k.Type.IsList() {
		normal, err := k.check(strings.TrimSpace(text))
		if err == nil {
			k.setText(s, normal)
		}
		return err
	}
	entries := []string{}
	for _, e := range strings.Split(text, ",") {
		if e = strings.TrimSpace(e); e != "" {
			entries = append(entries, e)
		}
	}
	normal, errs := k.normalList(entries, func(int) Position { return Position{} })
	if len(errs) > 0 {
		return errs[0].err
	}
	k.setList(s, normal)
	return nil
}

// Validate checks settings that did not come through [Decode], such as a Policy of the cluster, and
// returns them in normal form. name is how messages call them. All problems are reported together,
// each a [*SettingError].
func Validate(name string, s v1alpha1.Settings) (v1alpha1.Settings, error) {
	return (&Layer{Name: name, Settings: s}).normal()
}

// normal checks a layer and returns its settings in normal form.
func (l *Layer) normal() (v1alpha1.Settings, error) {
	var out v1alpha1.Settings
	var problems []error
	for _, k := range keys {
		if k.Type.IsList() {
			problems = append(problems, l.normalList(k, &out)...)
			if len(k.list(&out)) > 0 && k.PolicyOnly() && l.Source != SourcePolicy && l.Source != "" {
				problems = append(problems, &SettingError{l.origin(k.Path).Position, k.Path, "only a Policy of the cluster can enforce; here it has no meaning"})
			}
			continue
		}
		text := k.text(&l.Settings)
		if text == "" {
			continue
		}
		if normal, err := k.check(text); err != nil {
			problems = append(problems, &SettingError{l.origin(k.Path).Position, k.Path, err.Error()})
		} else {
			k.setText(&out, normal)
		}
	}
	return out, errors.Join(problems...)
}

func (l *Layer) normalList(k Key, out *v1alpha1.Settings) (problems []error) {
	list := k.list(&l.Settings)
	if list == nil {
		return nil
	}
	at := func(i int) Position { return l.origin(entryKey(k.Path, i), k.Path).Position }
	normal, errs := k.normalList(list, at)
	for _, e := range errs {
		problems = append(problems, &SettingError{at(e.index), entryKey(k.Path, e.index), e.err.Error()})
	}
	k.setList(out, normal)
	return problems
}
