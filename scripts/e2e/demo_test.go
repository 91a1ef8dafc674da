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

var update = flag.Bool("update", false, "rewrite the transcript in README.md")

const (
	readme         = "../../README.md"
	transcriptFrom = "<!-- begin: transcript of make demo -->\n"
	transcriptTo   = "<!-- end -->"
)

// TestDemoIsWhatTheReadmeShows runs the demo and compares its transcript with the README's, apart from
// what differs from run to run.
func TestDemoIsWhatTheReadmeShows(t *testing.T) {
	l := shared
	before := l.snapshot(t)
	r := labctl.Run(3*time.Minute, "", "env", "CULVERT_DEMO_LAB="+l.Name, "../../scripts/demo/demo")
	if r.Code != 0 {
		t.Fatalf("demo: %s", r)
	}
	l.unchanged(t, before)
	data, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(data), transcriptFrom)
	shown, tail, foundEnd := strings.Cut(rest, transcriptTo)
	if !found || !foundEnd {
		t.Fatalf("%s has no transcript between %q and %q", readme, transcriptFrom, transcriptTo)
	}
	want := transcript(r.Out)
	if *update {
		if err := os.WriteFile(readme, []byte(head+transcriptFrom+want+transcriptTo+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := lineDiff(steady(shown), steady(want)); diff != "" {
		t.Errorf("%s does not show what the demo does; rewrite it with -update:\n%s", readme, diff)
	}
}

// transcript is the demo's output as the README shows it.
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
