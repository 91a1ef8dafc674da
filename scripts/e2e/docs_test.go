//go:build lab

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestDocumentOfVirtualAddresses runs the commands that docs/virtual.md shows and compares what they say.
func TestDocumentOfVirtualAddresses(t *testing.T) {
	l := shared
	const document = "../../docs/virtual.md"
	before := l.snapshot(t)
	t.Cleanup(func() {
		l.WS(30*time.Second, "culvert", "quit") // the document has done so unless something failed
		l.unchanged(t, before)
	})
	shows(t, document, l.rerun(t, readFile(t, document)))
}

// rerun runs the commands of a document's transcript and returns it with what they put out now.
func (l *lab) rerun(t *testing.T, document string) string {
	t.Helper()
	_, rest, _ := strings.Cut(document, transcriptFrom)
	old, _, _ := strings.Cut(rest, transcriptTo)
	memory := noMemory(t)
	var out strings.Builder
	for line := range strings.Lines(old) {
		command, ok := strings.CutPrefix(line, "$ ")
		switch {
		case ok:
			r := l.WSEnv(connectLimit, []string{memory}, "bash", "-o", "pipefail", "-c", command)
			must(t, r, command)
			out.WriteString(line + r.Out)
		case strings.HasPrefix(line, "# ") && out.Len() > 0:
			out.WriteString("\n" + line)
		case strings.HasPrefix(line, "# "):
			out.WriteString(line)
		}
	}
	return out.String()
}
