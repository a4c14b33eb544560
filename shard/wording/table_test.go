package wording_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/wording"
)

// screen is a writer whose lines have so many characters.
type screen struct {
	bytes.Buffer
	columns int
}

func (s *screen) Columns() int { return s.columns }

func TestTable(t *testing.T) {
	const text = "two tables\nsnapshot\tpublished by\twhy\n4be1\ta pipeline\tit is fit\n77c0\tada\tit is one of the newest three\n\nname\tis\na\tb\n"
	for _, c := range []struct {
		columns int
		want    string
	}{
		{0, `two tables
snapshot  published by  why
4be1      a pipeline    it is fit
77c0      ada           it is one of the newest three

name  is
a     b
`},
		{40, `two tables
snapshot  published by  why
4be1      a pipeline    it is fit
77c0      ada           it is one of the
                        newest three

name  is
a     b
`},
		{30, `two tables
snapshot  published  why
          by
4be1      a          it is fit
          pipeline
77c0      ada        it is one
                     of the
                     newest
                     three

name  is
a     b
`},
		{24, `two tables
snapshot      4be1
published by  a pipeline
why           it is fit

snapshot      77c0
published by  ada
why           it is one of the newest three

name  is
a     b
`},
	} {
		w := &screen{columns: c.columns}
		table := wording.NewTable(w)
		fmt.Fprint(table, text)
		require.NoError(t, table.Flush())
		require.Equal(t, c.want, w.String(), "%d columns", c.columns)
	}

	w := &screen{columns: 19}
	table := wording.NewTable(w, wording.Right)
	fmt.Fprint(table, "k\trecall\tworst percent\t\n10\t0.99\t0.8\t\n")
	require.NoError(t, table.Flush())
	require.Equal(t, " k  recall    worst\n            percent\n10    0.99      0.8\n", w.String(), "numbers stay below their names")
}

// Whatever a table has: every word of it is written, in its order within its cell; without a
// bound it is as text/tabwriter has it, and lines keep to the bound unless a word is too long or
// the table has become records.
func TestTableLosesNothing(t *testing.T) {
	word := rapid.StringMatching(`[a-zé世]{1,12}`)
	cell := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(word, 0, 5).Draw(t, "words"), " ") })
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 6).Draw(t, "columns of the table")
		var text strings.Builder
		var words []string
		for range rapid.IntRange(1, 6).Draw(t, "rows") {
			cells := rapid.SliceOfN(cell, count, count).Draw(t, "cells")
			text.WriteString(strings.Join(cells, "\t") + "\n")
			for _, c := range cells {
				words = append(words, strings.Fields(c)...)
			}
		}
		w := &screen{columns: rapid.IntRange(0, 100).Draw(t, "columns of the screen")}
		table := wording.NewTable(w)
		_, err := table.Write([]byte(text.String()))
		require.NoError(t, err)
		require.NoError(t, table.Flush())

		var plain bytes.Buffer
		tw := tabwriter.NewWriter(&plain, 0, 0, 2, ' ', 0)
		_, err = tw.Write([]byte(text.String()))
		require.NoError(t, err)
		require.NoError(t, tw.Flush())
		if w.columns == 0 || width(plain.String()) <= w.columns {
			require.Equal(t, plain.String(), w.String())
			return
		}
		got := map[string]int{}
		for word := range strings.FieldsSeq(w.String()) {
			got[word]++
		}
		for _, word := range words {
			require.Positive(t, got[word], "%q is lost in\n%s", word, w.String())
			got[word]--
		}
	})
}

// A text is wrapped into its own words, and lines are as long as they may be.
func TestWrap(t *testing.T) {
	require.Equal(t, []string{"  kept  as it is"}, wording.Wrap("  kept  as it is", 16))
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[aé]{1,9}`), 1, 20).Draw(t, "words")
		width := rapid.IntRange(0, 40).Draw(t, "width")
		lines := wording.Wrap(strings.Join(words, " "), width)
		require.Equal(t, words, strings.Fields(strings.Join(lines, " ")))
		for i, line := range lines {
			require.True(t, utf8.RuneCountInString(line) <= width || !strings.Contains(line, " "), "%q", line)
			if i > 0 {
				first, _, _ := strings.Cut(line, " ")
				require.Greater(t, utf8.RuneCountInString(lines[i-1]+" "+first), width, "%q has room for %q", lines[i-1], first)
			}
		}
	})
}

// width is how long the longest line is.
func width(text string) (most int) {
	for line := range strings.Lines(text) {
		most = max(most, utf8.RuneCountInString(strings.TrimRight(line, " \n")))
	}
	return most
}
