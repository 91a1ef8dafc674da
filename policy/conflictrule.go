package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// resolves are what a rule of routing.conflicts can say, defaults what routing.onConflict can.
var (
	resolves = []string{string(ResolveAllow), string(ResolveYield), string(ResolveVirtualize)}
	defaults = []string{string(ResolveError), string(ResolveYield), string(ResolveVirtualize)}
)

// conflictRule reads one entry of routing.conflicts as a flag gives it: SUBNET=RESOLVE.
func conflictRule(s string) (string, error) {
	subnet, resolve, ok := strings.Cut(s, "=")
	if !ok {
		return "", fmt.Errorf("%q names no resolution; write SUBNET=RESOLVE, such as 10.132.64.0/18=yield", s)
	}
	normal, err := symbolOr(anyPrefix)(strings.TrimSpace(subnet))
	if err != nil {
		return "", err
	}
	resolve, err = oneOf(resolves...)(strings.TrimSpace(resolve))
	return normal + "=" + resolve, err
}

// conflictParts are the two sides of SUBNET=RESOLVE.
func conflictParts(r *v1alpha1.ConflictRule) (subnet, resolve *string) { return &r.Subnet, &r.Resolve }

// oneOf returns a check for one of a few words.
func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if slices.Contains(words, s) {
			return s, nil
		}
		hint := ""
		if word := Suggest(s, words); word != "" {
			hint = fmt.Sprintf("; did you mean %s?", word)
		}
		return "", fmt.Errorf("%q is not one of %s%s", s, strings.Join(words, ", "), hint)
	}
}
