package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// resolves are what a rule of routing.conflicts can say.
var resolves = []string{string(ResolveAllow), string(ResolveYield)}

// conflictRule reads one entry of routing.conflicts as a flag gives it: SUBNET=RESOLVE.
func conflictRule(s string) (string, error) {
	subnet, resolve, ok := strings.Cut(s, "=")
	if !ok {
		return "", fmt.Errorf("%q names no resolution; write SUBNET=RESOLVE, such as 10.132.64.0/18=yield", s)
	}
	normal, err := prefixOrSymbol(strings.TrimSpace(subnet))
	if err != nil {
		return "", err
	}
	resolve, err = oneOf(resolves...)(strings.TrimSpace(resolve))
	return normal + "=" + resolve, err
}

// oneOf returns a check for one of a few words.
func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if slices.Contains(words, s) {
			return s, nil
		}
		hint := ""
		if word := suggest(s, words); word != "" {
			hint = fmt.Sprintf("; did you mean %s?", word)
		}
		return "", fmt.Errorf("%q is not one of %s%s", s, strings.Join(words, ", "), hint)
	}
}

// entriesOfConflicts returns rules in the form of a flag, a "+" kept in front.
func entriesOfConflicts(rules []v1alpha1.ConflictRule) []string {
	if rules == nil {
		return nil
	}
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = r.Subnet + "=" + r.Resolve
	}
	return out
}

// conflictsOfEntries is the inverse of entriesOfConflicts.
func conflictsOfEntries(texts []string) []v1alpha1.ConflictRule {
	if texts == nil {
		return nil
	}
	out := make([]v1alpha1.ConflictRule, len(texts))
	for i, t := range texts {
		out[i].Subnet, out[i].Resolve, _ = strings.Cut(t, "=")
	}
	return out
}

// InFile returns a value in the form that a file has; entries of a list are joined by commas.
func (k Key) InFile(value string) string {
	if !k.Type.IsList() {
		return value
	}
	if k.Type != TypeConflicts {
		return "[" + value + "]"
	}
	var out []string
	for _, text := range strings.Split(value, ",") {
		subnet, resolve, _ := strings.Cut(text, "=")
		out = append(out, fmt.Sprintf("{subnet: %s, resolve: %s}", subnet, resolve))
	}
	return "[" + strings.Join(out, ", ") + "]"
}
