package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/tandem-ann/tandem/docs"
	"github.com/tandem-ann/tandem/shard/wording"
)

type docsCommand struct {
	Page   string `arg:"" optional:"" help:"Name of the page, as the list has it."`
	Search string `placeholder:"WORDS" help:"List the sections of all pages that have all these words, the best first."`
	JSON   bool   `help:"Print JSON."`
}

func (docsCommand) Help() string {
	return `Without a page it lists them: one for each question. A page is printed in Markdown. A server shows them to browsers at /docs/ of its admin listener.

Examples:

    tandem docs

    tandem docs gates | less

    tandem docs --search "taken down app"`
}

// docsPage is a page as JSON.
type docsPage struct {
	Page  string `json:"page"`
	Title string `json:"title"`
	Text  string `json:"text,omitempty"` // in Markdown; absent in the list
}

// docsSection is a section as JSON.
type docsSection struct {
	Page    string `json:"page"`
	Heading string `json:"heading"`
	Anchor  string `json:"anchor"`
	Line    string `json:"line"` // with one of the words
}

// maxFound is how many sections a search lists.
const maxFound = 20

func (c *docsCommand) Run(e *environment) error {
	switch {
	case c.Page != "" && c.Search != "":
		return usagef("a page and --search do not go together: --search looks through all pages")
	case c.Search != "":
		return c.search(e)
	case c.Page != "":
		return c.page(e)
	}
	var list []docsPage
	for _, p := range docs.Pages() {
		list = append(list, docsPage{Page: p.Name, Title: p.Title})
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, list)
	}
	t := newTable(e.stdout)
	for _, p := range list {
		fmt.Fprintf(t, "%s\t%s\n", p.Page, p.Title)
	}
	return t.Flush()
}

// page prints one.
func (c *docsCommand) page(e *environment) error {
	p := docs.Get(strings.TrimSuffix(c.Page, ".md"))
	if p == nil {
		var names []string
		near, best := "", len(c.Page)
		for _, p := range docs.Pages() {
			names = append(names, p.Name)
			if d := wording.Distance(shortened(c.Page, 100), p.Name); d < best && d <= 3 {
				near, best = ", perhaps "+p.Name, d
			}
		}
		return usagef("page is %.100q, which is none%s; accepted: %s", c.Page, near, strings.Join(names, ", "))
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, docsPage{p.Name, p.Title, p.Text})
	}
	_, err := io.WriteString(e.stdout, p.Text)
	return err
}

// search lists sections.
func (c *docsCommand) search(e *environment) error {
	found := docs.Search(c.Search)
	more := max(len(found)-maxFound, 0)
	list := []docsSection{}
	for _, s := range found[:len(found)-more] {
		list = append(list, docsSection{s.Page.Name, s.Heading, s.Anchor, s.Line(c.Search)})
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, struct {
			Found []docsSection `json:"found"`
			More  int           `json:"more"` // that are not listed
		}{list, more})
	}
	if len(list) == 0 {
		return fmt.Errorf("no section has all of %.200q; fewer words find more", c.Search)
	}
	for _, s := range list {
		fmt.Fprintf(e.stdout, "%s: %s\n    %s\n", s.Page, s.Heading, s.Line)
	}
	if more > 0 {
		fmt.Fprintf(e.stdout, "and %s more\n", wording.Plural(more, "section"))
	}
	return nil
}
