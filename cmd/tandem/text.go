package main

import (
	"io"
	"math"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

// newTable returns a writer of aligned columns, cells separated by tabs.
func newTable(w io.Writer) *wording.Table { return wording.NewTable(w) }

// escapeLines returns lines with what a terminal does not print escaped.
func escapeLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = release.Escape(lines[i])
	}
	return strings.Join(lines, "\n")
}

// agoText says how long ago something was; the longest duration is that of what is not known to
// have been.
func agoText(d time.Duration) string {
	if d == math.MaxInt64 {
		return "at a time that is not known"
	}
	return wording.Seconds(d) + " ago"
}

// barWidth is the length of the longest bar, in characters.
const barWidth = 40

// bar draws a value that is share of the largest.
func bar(share float64) string {
	n := int(share*barWidth + 0.5)
	if n == 0 && share > 0 {
		return "."
	}
	return strings.Repeat("#", n)
}
