package install

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// patience is how long something may take before a line says what is being waited for, and how
// often it is repeated.
const (
	patience      = time.Second
	patienceAgain = 10 * time.Second
)

// progress writes one line per step that was done, and says what takes long.
type progress struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

// step writes a line. What cannot be written is lost: progress is for eyes only.
func (p *progress) step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// waiting writes "waiting for WHAT" after a second, and again now and then, until the returned
// function is called. That function waits for the writing goroutine to end.
func (p *progress) waiting(what string) (done func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		started := time.Now()
		for timer := time.NewTimer(patience); ; timer.Reset(patienceAgain) {
			select {
			case <-stop:
				timer.Stop()
				return
			case <-timer.C:
				p.step("waiting for %s (%s)", what, time.Since(started).Round(time.Second))
			}
		}
	}()
	return func() { close(stop); <-stopped }
}
