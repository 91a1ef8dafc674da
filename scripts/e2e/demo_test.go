//go:build lab

package e2e

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/culvert-dev/culvert/scripts/internal/labctl"
)

var update = flag.Bool("update", false, "rewrite the transcripts in README.md and docs")

const (
	readme         = "../../README.md"
	transcriptFrom = "<!-- begin: transcript -->\n"
	transcriptTo   = "<!-- end -->"
)

// TestDemoIsWhatTheReadmeShows runs the demo and compares its transcript with the README's, apart from
// what differs from run to run.
func TestDemoIsWhatTheReadmeShows(t *testing.T) {
	l := shared
	before := l.snapshot(t)
	r := labctl.Run(3*time.Minute, "", "env", "CULVERT_DEMO_LAB="+l.Name, noMemory(t), "../../scripts/demo/demo")
	if r.Code != 0 {
		t.Fatalf("demo: %s", r)
	}
	l.unchanged(t, before)
	shows(t, readme, r.Out)
}

// noMemory is an entry of the environment with which a connection remembers no virtual addresses that others
// of this lab were given: it gets the first ones, as on a new machine.
func noMemory(t *testing.T) string { return "XDG_STATE_HOME=" + t.TempDir() }

// shows compares the transcript in a document with what was put out, apart from what differs from run to
// run, or rewrites it with -update.
func shows(t *testing.T, document, out string) {
	t.Helper()
	text := readFile(t, document)
	head, rest, found := strings.Cut(text, transcriptFrom)
	shown, tail, foundEnd := strings.Cut(rest, transcriptTo)
	if !found || !foundEnd {
		t.Fatalf("%s has no transcript between %q and %q", document, transcriptFrom, transcriptTo)
	}
	want := transcript(out)
	if *update {
		if err := os.WriteFile(document, []byte(head+transcriptFrom+want+transcriptTo+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := lineDiff(steady(shown), steady(want)); diff != "" {
		t.Errorf("%s does not show what happens; rewrite it with -update:\n%s", document, diff)
	}
}

// transcript is output as documents show it.
func transcript(out string) string {
	return "\n```console\n" + strings.TrimSpace(out) + "\n```\n\n"
}

// changing is what differs from run to run.
var changing = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`echo-[0-9a-f]+-[0-9a-z]{5}`), "POD"},
	{regexp.MustCompile(`\b24[345]\.\d+\.\d+\.\d+\b`), "OVERLAY4"},
	{regexp.MustCompile(`\bfd[0-9a-f:]+\b`), "OVERLAY6"},
	{regexp.MustCompile(`\b(10|246)\.130\.\d+\.\d+\b`), "$1.SERVICE"},
	{regexp.MustCompile(`\b10\.132\.0\.\d+(:\d+)?\b`), "PODADDR"},
	{regexp.MustCompile(`(10\.99\.0\.2):\d+`), "$1:PORT"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ms|s| ms| B| KiB| MiB)\b`), "AMOUNT"},
	{regexp.MustCompile(`(node|helper|guard) \d+`), "$1 PID"},
	{regexp.MustCompile(` {2,}`), "  "},
}

func steady(text string) string {
	for _, c := range changing {
		text = c.what.ReplaceAllString(text, c.with)
	}
	return text
}
