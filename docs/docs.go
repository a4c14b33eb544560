// Package docs has the pages of the documentation, one for each question, as they are in its
// folder: for `tandem docs`, and for the admin listener of a server.
package docs

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
)

//go:embed *.md *.svg
var files embed.FS

const (
	// Index is the name of the page that leads to all others.
	Index = "index"
	// Reference is that of the page of the API, which names everything and explains little.
	Reference = "api"
)

// Page is a page of the documentation.
type Page struct {
	Name  string // of its file, without its ending
	Title string // its first heading, which is a question
	Text  string // in Markdown
}

// Section is what stands between two headings of a page.
type Section struct {
	Page    *Page
	Heading string
	Anchor  string // by which links name it
	Text    string // without the heading
}

// all are the pages, the index first, then in the order in which it leads to them.
var all = sync.OnceValue(func() []*Page {
	names, err := fs.Glob(files, "*.md")
	if err != nil {
		panic(err) // the pattern is right
	}
	var list []*Page
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err) // it is in the binary
		}
		p := &Page{Name: strings.TrimSuffix(name, ".md"), Text: string(text)}
		first, _, _ := strings.Cut(p.Text, "\n")
		p.Title = strings.TrimPrefix(first, "# ")
		list = append(list, p)
	}
	index := list[slices.IndexFunc(list, func(p *Page) bool { return p.Name == Index })]
	at := func(p *Page) int {
		if p == index {
			return -1
		}
		if i := strings.Index(index.Text, "]("+p.Name+".md)"); i >= 0 {
			return i
		}
		return len(index.Text)
	}
	slices.SortStableFunc(list, func(a, b *Page) int { return cmp.Compare(at(a), at(b)) })
	return list
})

// Pages returns all pages: the index, then the others in its order. The caller must not change
// them.
func Pages() []*Page { return slices.Clone(all()) }

// Get returns the page of a name, nil if there is none.
func Get(name string) *Page {
	i := slices.IndexFunc(all(), func(p *Page) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return all()[i]
}

// Image returns a drawing of the pages, an error if there is none of that name.
func Image(name string) ([]byte, error) {
	if !strings.HasSuffix(name, ".svg") {
		return nil, fmt.Errorf("drawing %.100q: %w", name, fs.ErrNotExist)
	}
	return files.ReadFile(name)
}

// Sections divides a page at its headings. What looks like one in a block of code is none.
func (p *Page) Sections() (list []Section) {
	code, used := false, map[string]int{}
	for line := range strings.Lines(p.Text) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if heading := strings.TrimLeft(line, "#"); !code && heading != line && strings.HasPrefix(heading, " ") {
			heading = strings.TrimSpace(heading)
			list = append(list, Section{Page: p, Heading: heading, Anchor: Unique(used, Anchor(heading))})
			continue
		}
		if len(list) > 0 {
			list[len(list)-1].Text += line
		}
	}
	return list
}

var notInAnchors = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)

// Anchor returns what links name a heading by: its letters, small, with dashes for spaces.
func Anchor(heading string) string {
	return strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// Unique returns an anchor, with a number behind it if a page has used it before, and notes it.
func Unique(used map[string]int, anchor string) string {
	used[anchor]++
	if n := used[anchor] - 1; n > 0 {
		return fmt.Sprintf("%s-%d", anchor, n)
	}
	return anchor
}

// Search returns the sections that have all words, wherever they begin in a word of the text, and
// in capital letters or small ones. Those come first that have them in their headings, then those
// that have them most often for their length; those of the reference come after all others.
func Search(words string) []Section {
	wanted := strings.Fields(strings.ToLower(words))
	if len(wanted) == 0 {
		return nil
	}
	type hit struct {
		Section
		score float64
	}
	var hits []hit
	for _, p := range all() {
		for _, s := range p.Sections() {
			heading, text := strings.ToLower(s.Heading), strings.ToLower(s.Heading+"\n"+s.Text)
			found := hit{Section: s}
			for _, word := range wanted {
				n := strings.Count(text, word)
				if n == 0 {
					found.score = 0
					break
				}
				found.score += float64(n) / float64(500+len(text))
				if strings.Contains(heading, word) {
					found.score++
				}
			}
			if found.score > 0 {
				hits = append(hits, found)
			}
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int {
		if a, b := a.Page.Name == Reference, b.Page.Name == Reference; a != b {
			return map[bool]int{true: 1, false: -1}[a]
		}
		return cmp.Compare(b.score, a.score)
	})
	list := make([]Section, len(hits))
	for i, h := range hits {
		list[i] = h.Section
	}
	return list
}

// Line returns the first line of a section that has one of the words, or else its first line.
func (s *Section) Line(words string) string {
	first := ""
	for line := range strings.Lines(s.Text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "```") {
			continue
		}
		if first == "" {
			first = line
		}
		for word := range strings.FieldsSeq(strings.ToLower(words)) {
			if strings.Contains(strings.ToLower(line), word) {
				return line
			}
		}
	}
	return first
}

// LLMs returns the list of the pages as llms.txt has it, for programs that read: a page is at its
// name with the ending .md below the base.
func LLMs(base string) string {
	var b strings.Builder
	b.WriteString("# Tandem\n\n> A candidate retrieval server for two-tower recommenders: an offline builder turns the app and user embeddings " +
		"of one model version into one immutable snapshot; servers answer queries from it, with eligibility filters, measured recall and durable takedowns.\n\n## Pages\n\n")
	for _, p := range all() {
		fmt.Fprintf(&b, "- [%s](%s%s.md): %s\n", p.Name, base, p.Name, p.Title)
	}
	return b.String()
}
