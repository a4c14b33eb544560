package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/tandem-ann/tandem/builder"
)

// progress shows how far a command is. Calls come from one goroutine at a time.
type progress interface {
	builder.Progress
	// Done ends the last stage.
	Done()
}

// newProgress returns bars for a terminal and plain lines for anything else.
func newProgress(w io.Writer) progress {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &bars{w: w}
	}
	return &lines{w: w, now: time.Now}
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

// lines prints a line now and then.
type lines struct {
	w       io.Writer
	now     func() time.Time
	name    string
	total   int64
	started time.Time // the stage
	printed time.Time // the last line
}

func (l *lines) Stage(name string, total int64) {
	l.name, l.total, l.started = name, total, l.now()
	if l.printed.IsZero() {
		l.printed = l.started
	}
}

func (l *lines) Step(done int64) {
	now := l.now()
	elapsed := now.Sub(l.started)
	if now.Sub(l.printed) < quiet || elapsed < settle {
		return
	}
	l.printed = now
	text := l.name + ": " + count(done)
	if l.total > 0 {
		text += fmt.Sprintf(" of %s (%d%%)", count(l.total), 100*done/l.total)
	}
	if rate := float64(done) / elapsed.Seconds(); done > 0 {
		text += fmt.Sprintf(", %s/s", count(int64(rate)))
		if left := l.total - done; left > 0 {
			text += fmt.Sprintf(", %s left", seconds(time.Duration(float64(left)/rate*float64(time.Second))))
		}
	}
	fmt.Fprintln(l.w, text)
}

func (l *lines) Note(text string) { fmt.Fprintf(l.w, "note: %s\n", text) }

func (l *lines) Done() {}
