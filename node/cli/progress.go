package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress shows what is being done now, and only what takes longer than patience: on a terminal on
// one line that is replaced, else line by line.
type progress struct {
	w        io.Writer
	terminal bool
	timer    *time.Timer // of the text that waits to be shown
	shown    chan struct{}
	dirty    bool // the line on the terminal is ours
}

// patience is how long a step may take without being shown.
const patience = 400 * time.Millisecond

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// show replaces the text of the step before.
func (p *progress) show(text string) {
	p.settle()
	p.shown = make(chan struct{})
	shown := p.shown
	p.timer = time.AfterFunc(patience, func() {
		defer close(shown)
		p.print(text)
	})
}

func (p *progress) print(text string) {
	if !p.terminal {
		fmt.Fprintf(p.w, "%s ...\n", text) //nolint:errcheck // the terminal is gone
		return
	}
	fmt.Fprintf(p.w, "\r\033[K%s ...", text) //nolint:errcheck // the terminal is gone
	p.dirty = true
}

// settle makes sure that no text is waiting or being written.
func (p *progress) settle() {
	if p.timer != nil && !p.timer.Stop() {
		<-p.shown
	}
	p.timer = nil
}

// done takes the last text off a terminal.
func (p *progress) done() {
	p.settle()
	if p.dirty {
		fmt.Fprint(p.w, "\r\033[K") //nolint:errcheck // the terminal is gone
		p.dirty = false
	}
}
