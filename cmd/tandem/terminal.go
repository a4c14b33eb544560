package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// A terminal that does not say how wide it is has usualColumns; none is taken to be narrower
// than fewestColumns.
const (
	usualColumns  = 80
	fewestColumns = 40
)

// terminal is standard output that a person looks at.
type terminal struct{ *os.File }

// onTerminal returns what a file is written by: one that says how wide it is if it is a
// terminal. Lines to anything else are as long as they are, so that a program finds a row in a
// line.
func onTerminal(f *os.File) io.Writer {
	if !term.IsTerminal(int(f.Fd())) {
		return f
	}
	return &terminal{f}
}

// Columns returns how many characters a line has.
func (t *terminal) Columns() int {
	width, _, err := term.GetSize(int(t.Fd()))
	if err != nil || width <= 0 {
		return usualColumns
	}
	return max(width, fewestColumns)
}

// isTerminal says whether a writer is a terminal on which the cursor can be moved.
func isTerminal(w io.Writer) bool {
	switch f := w.(type) {
	case *terminal:
		return os.Getenv("TERM") != "dumb"
	case *os.File:
		return os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
	}
	return false
}
