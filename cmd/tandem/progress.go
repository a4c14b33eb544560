package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/shard/wording"
)

// progress shows how far a command is. Calls come from one goroutine at a time.
type progress interface {
	builder.Progress
	// Done ends the last stage.
	Done()
}

// newProgress returns bars for a terminal and plain lines for anything else.
func newProgress(w io.Writer) progress {
	if isTerminal(w) {
		return &bars{w: w}
	}
	return &lines{w: w}
}

// bars shows one progress bar after the other.
type bars struct {
	w   io.Writer
	bar *progressbar.ProgressBar
}

func (b *bars) Stage(name string, total int64) {
	b.Done()
	b.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(b.w),
		progressbar.OptionSetDescription(name),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(24),
		progressbar.OptionSetSpinnerChangeInterval(0), // else a goroutine turns it, and races with Set64
		progressbar.OptionClearOnFinish(),
		progressbar.OptionUseANSICodes(true),
	)
	_ = b.bar.RenderBlank() // a stage shows before its first step, which may be its last
}

func (b *bars) Step(done int64) {
	if b.bar != nil {
		_ = b.bar.Set64(done) // a terminal that cannot be written to cannot be told so
	}
}

func (b *bars) Note(text string) {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
	fmt.Fprintf(b.w, "note: %s\n", text)
}

func (b *bars) Done() {
	if b.bar != nil {
		_ = b.bar.Clear()
		b.bar = nil
	}
}

const (
	quiet  = 3 * time.Second // how long lines says nothing between two lines
	settle = time.Second     // how long a stage must run for its rate to mean anything
)

// lines prints a line now and then, whether the stage has come any further or not.
type lines struct {
	w io.Writer

	mu      sync.Mutex
	timer   *time.Timer // nil before the first stage, and when it is done
	name    string
	total   int64
	done    int64
	started time.Time // the stage
}

func (l *lines) Stage(name string, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.name, l.total, l.done, l.started = name, total, 0, time.Now()
	if l.timer == nil {
		l.timer = time.AfterFunc(quiet, l.print)
	}
}

func (l *lines) Step(done int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = done
}

// print prints a line and sees to the next.
func (l *lines) print() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		return // it is done
	}
	l.timer.Reset(quiet)
	elapsed := time.Since(l.started)
	text := l.name + ": "
	switch {
	case l.total > 0:
		text += fmt.Sprintf("%s of %s (%d%%)", wording.Count(l.done), wording.Count(l.total), 100*l.done/l.total)
	case l.done > 0:
		text += wording.Count(l.done)
	case elapsed < settle:
		text += "begun"
	default:
		text += "for " + wording.Seconds(elapsed)
	}
	if rate := float64(l.done) / elapsed.Seconds(); elapsed >= settle && rate >= 1 {
		text += fmt.Sprintf(", %s/s", wording.Count(int64(rate)))
		if left := l.total - l.done; left > 0 && 100*l.done >= l.total {
			text += fmt.Sprintf(", %s left", wording.Seconds(time.Duration(float64(left)/rate*float64(time.Second))))
		}
	}
	fmt.Fprintln(l.w, text)
}

func (l *lines) Note(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "note: %s\n", text)
}

func (l *lines) Done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}
