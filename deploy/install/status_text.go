package install

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/culvert-dev/culvert/policy/v1alpha1"
)

// WriteText writes the status for people; now dates the release.
func (s *Status) WriteText(w io.Writer, now time.Time) error {
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "  %s\t"+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintf(table, "gateway in namespace %s: %s\n", s.Namespace, s.word())
	if r := s.Release; r != nil {
		row("release", "%s %s, revision %d, %s, %s ago", r.Name, r.Chart, r.Revision, r.State, now.Sub(r.Changed).Round(time.Second))
	}
	for _, p := range s.Pods {
		state := "ready"
		if !p.Ready {
			state = p.State
		}
		row("pod", "%s, %s, %d restarts, image %s, node %s", p.Name, state, p.Restarts, p.Image, p.Node)
	}
	if s.Policy != nil {
		row("services", "%s", subnetsText(s.Policy.Services))
		row("pods", "%s", subnetsText(s.Policy.Pods))
		if len(s.Policy.Problems) == 0 {
			row("policy", "no problems")
		}
		for _, problem := range s.Policy.Problems {
			row("policy", "ignored: %s", problem)
		}
	}
	if s.Peers >= 0 {
		row("peers", "%d", s.Peers)
	}
	for _, unknown := range s.Unknown {
		row("unknown", "%s", unknown)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (s *Status) word() string {
	switch {
	case !s.Installed && len(s.Unknown) > 0:
		return "not visible to you"
	case !s.Installed:
		return "not installed"
	case !s.Ready:
		return "not ready"
	}
	return "ready"
}

func subnetsText(subnets []v1alpha1.Subnet) string {
	if len(subnets) == 0 {
		return "not known yet"
	}
	var texts []string
	for _, s := range subnets {
		text := s.CIDR
		if s.Source != "" {
			text += " (" + s.Source + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}
