package policy

import (
	"fmt"
	"strings"
)

// Fields returns the keys of the mapping that an entry is in a file, where a flag has SUBNET=WORD; nil for
// types whose entries are no mappings.
func (t ValueType) Fields() []string {
	switch t {
	case TypeConflicts:
		return []string{"subnet", "resolve"}
	case TypeProxyVia:
		return []string{"subnet", "workload"}
	}
	return nil
}

// entriesOf returns the entries of a list of mappings in the form of a flag, a "+" kept in front; nil for
// nil. parts points at the two sides of an entry.
func entriesOf[T any](pairs []T, parts func(*T) (subnet, word *string)) []string {
	if pairs == nil {
		return nil
	}
	out := make([]string, len(pairs))
	for i := range pairs {
		subnet, word := parts(&pairs[i])
		out[i] = *subnet + "=" + *word
	}
	return out
}

// pairsOf is the inverse of entriesOf.
func pairsOf[T any](texts []string, parts func(*T) (subnet, word *string)) []T {
	if texts == nil {
		return nil
	}
	out := make([]T, len(texts))
	for i, t := range texts {
		subnet, word := parts(&out[i])
		*subnet, *word, _ = strings.Cut(t, "=")
	}
	return out
}

// paired returns every SUBNET=WORD.
func paired(subnets, words []string) []string {
	var out []string
	for _, subnet := range subnets {
		for _, word := range words {
			out = append(out, subnet+"="+word)
		}
	}
	return out
}

// InFile returns a value in the form that a file has; entries of a list are joined by commas.
func (k Key) InFile(value string) string {
	switch {
	case k.Type == TypePrefix && value == "":
		return `""`
	case !k.Type.IsList():
		return value
	case k.Type.Fields() == nil:
		return "[" + value + "]"
	}
	var out []string
	for _, text := range strings.Split(value, ",") {
		out = append(out, k.mapping(text))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// mapping returns an entry SUBNET=WORD as a file has it.
func (k Key) mapping(text string) string {
	fields := k.Type.Fields()
	subnet, word, _ := strings.Cut(text, "=")
	return fmt.Sprintf("{%s: %s, %s: %s}", fields[0], subnet, fields[1], word)
}
