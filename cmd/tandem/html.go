package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tandem-ann/tandem/server/reportpage"
)

// htmlFlag is of commands whose report can be had as a page.
type htmlFlag struct {
	HTML string `name:"html" placeholder:"FILE" help:"Write the report as a page too, with plots: one file that asks nobody for anything."`
}

// check returns an error for a page that cannot be written, before the work that it is of.
func (f *htmlFlag) check() error {
	switch f.HTML {
	case "":
		return nil
	case "-":
		return usagef("--html is -; accepted: a file")
	}
	folder := filepath.Dir(f.HTML)
	if s, err := os.Stat(folder); err != nil {
		return usageError{fmt.Errorf("--html: %w", err)}
	} else if !s.IsDir() {
		return usagef("--html: %s is no folder", folder)
	}
	if s, err := os.Stat(f.HTML); err == nil && s.IsDir() {
		return usagef("--html: %s is a folder; accepted: a file", f.HTML)
	}
	return nil
}

// write writes the page if it was asked for.
func (f *htmlFlag) write(kind reportpage.Kind, title string, of any) error {
	if f.HTML == "" {
		return nil
	}
	return writeFile(f.HTML, func(w io.Writer) error {
		return reportpage.Write(w, &reportpage.Report{Kind: kind, Title: title, Tool: toolRelease, Made: time.Now(), Of: of})
	})
}
