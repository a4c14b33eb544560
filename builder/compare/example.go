package compare

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

const (
	// examples is how many users are shown, and shown how many candidates of each.
	examples = 3
	shown    = 5
	maxName  = 40 // characters of a name in a table
)

// nameAttributes are the keywords of apps that people know them by, the first that there
// is.
var nameAttributes = []string{"name", "title", "app_name", "display_name", "label"}

// Example is what one user is given by both snapshots, best first.
type Example struct {
	User     string  `json:"user"`
	Given    []Named `json:"given"`
	Previous []Named `json:"previous"`
}

// Named is a candidate, by the name that the snapshot has of it.
type Named struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // empty if the apps have no names
	Both bool   `json:"both"`           // whether it is among the best of the other snapshot too
}

// examplesOf shows the candidates of the first of some users, who are in the order of a
// hash, so that they are any users and always the same.
func examplesOf(candidate, previous *shard.Tower, users []probe.Row, given [2][][]shard.Candidate) (list []Example) {
	for i, u := range users[:min(len(users), examples)] {
		list = append(list, Example{
			User:  u.ID,
			Given: namesOf(candidate, given[0][i], given[1][i]), Previous: namesOf(previous, given[1][i], given[0][i]),
		})
	}
	return list
}

// namesOf returns the best of a list with their names; other is that of the other snapshot.
func namesOf(t *shard.Tower, list, other []shard.Candidate) []Named {
	in := map[string]bool{}
	for _, c := range other[:min(len(other), bands[0])] {
		in[c.ID] = true
	}
	name := ""
	for _, known := range nameAttributes {
		if i, ok := t.Schema().Lookup(known); ok && t.Schema().Field(i).Type == attribute.Keyword {
			name = known
			break
		}
	}
	out := []Named{}
	for _, c := range list[:min(len(list), shown)] {
		n := Named{ID: c.ID, Both: in[c.ID]}
		if row, ok := probe.Find(t, c.ID); ok && name != "" {
			n.Name = row.Keyword(name)
		}
		out = append(out, n)
	}
	return out
}

// writeExamples writes what users are given, before and now, side by side.
func (r *Report) writeExamples(w io.Writer) {
	for _, e := range r.Examples {
		fmt.Fprintf(w, "\ngiven to %s\tbefore\tnow (+ was not among the best %d)\n", printable(e.User), bands[0])
		for i := range max(len(e.Given), len(e.Previous)) {
			var before, now string
			if i < len(e.Previous) {
				before = e.Previous[i].String()
			}
			if i < len(e.Given) {
				now = e.Given[i].String()
				if !e.Given[i].Both {
					now = "+ " + now
				}
			}
			fmt.Fprintf(w, "%d\t%s\t%s\n", i+1, before, now)
		}
	}
}

// String returns the name with the id, or the id alone.
func (n Named) String() string {
	if n.Name == "" {
		return printable(n.ID)
	}
	return printable(n.Name) + " (" + printable(n.ID) + ")"
}

// printable returns a text of towers as a cell of a table has it: one short line.
func printable(text string) string {
	if utf8.RuneCountInString(text) > maxName {
		text = string([]rune(text)[:maxName-3]) + "..."
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, text)
}
