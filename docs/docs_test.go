package docs_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/docs"
)

// Every file of the folder is a page, which has one heading of its kind, a question, at its begin,
// and which the index and README lead to.
func TestPages(t *testing.T) {
	files, err := filepath.Glob("*.md")
	require.NoError(t, err)
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	pages := docs.Pages()
	require.Len(t, pages, len(files))
	require.Equal(t, docs.Index, pages[0].Name)
	index := pages[0].Text
	for i, p := range pages {
		data, err := os.ReadFile(p.Name + ".md")
		require.NoError(t, err)
		require.Equal(t, string(data), p.Text)
		require.Same(t, p, docs.Get(p.Name))
		require.True(t, strings.HasPrefix(p.Text, "# "), p.Name)
		require.True(t, strings.HasSuffix(p.Title, "?"), "%s: %q is no question", p.Name, p.Title)
		require.Contains(t, string(readme), "(docs/"+p.Name+".md", "README leads to %s", p.Name)
		if i == 0 {
			continue
		}
		require.Contains(t, index, "("+p.Name+".md)", "the index leads to %s", p.Name)
		if i > 1 {
			require.Less(t, strings.Index(index, "("+pages[i-1].Name+".md)"), strings.Index(index, "("+p.Name+".md)"), "the order of the index")
		}
	}
	require.Nil(t, docs.Get("docs.go"))
	require.Nil(t, docs.Get(""))
	_, err = docs.Image("gates.md")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAnchors(t *testing.T) {
	for heading, want := range map[string]string{"Through a server": "through-a-server", "What `--json` says, and why?": "what---json-says-and-why", "A_b 2": "a_b-2"} {
		require.Equal(t, want, docs.Anchor(heading))
	}
	used := map[string]int{}
	require.Equal(t, []string{"a", "a-1", "b", "a-2"}, []string{docs.Unique(used, "a"), docs.Unique(used, "a"), docs.Unique(used, "b"), docs.Unique(used, "a")})
}

// A comment of a shell is no heading.
func TestSections(t *testing.T) {
	p := &docs.Page{Text: "# What?\n\nText.\n\n## How\n\n```sh\n# a comment\n```\n## How\nso\n"}
	list := p.Sections()
	require.Len(t, list, 3)
	require.Equal(t, []string{"what", "how", "how-1"}, []string{list[0].Anchor, list[1].Anchor, list[2].Anchor})
	require.Contains(t, list[1].Text, "# a comment")
	require.Equal(t, "so", list[2].Line("none"))
	require.Equal(t, "# a comment", list[1].Line("COMMENT"))
}

// A search finds the sections that have all words, and no others.
func TestSearch(t *testing.T) {
	require.Empty(t, docs.Search(" "))
	var first []string
	for _, s := range docs.Search("takedown")[:5] {
		first = append(first, s.Page.Name)
	}
	require.Contains(t, first, "live")
	require.NotContains(t, first, docs.Reference, "it names everything")
	var words []string
	for _, p := range docs.Pages() {
		for _, s := range p.Sections() {
			words = append(words, strings.Fields(s.Text)...)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		wanted := rapid.SliceOfN(rapid.SampledFrom(words), 1, 3).Draw(t, "words")
		var want, got []string
		for _, p := range docs.Pages() {
			for _, s := range p.Sections() {
				text := strings.ToLower(s.Heading + "\n" + s.Text)
				if !slices.ContainsFunc(wanted, func(w string) bool { return !strings.Contains(text, strings.ToLower(w)) }) {
					want = append(want, p.Name+"#"+s.Anchor)
				}
			}
		}
		for _, s := range docs.Search(strings.Join(wanted, " ")) {
			got = append(got, s.Page.Name+"#"+s.Anchor)
		}
		require.ElementsMatch(t, want, got)
	})
}
