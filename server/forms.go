package server

import (
	"context"
	"fmt"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/tandem-ann/tandem/shard"
)

// forms are the Unicode normalisation forms, in which one text has different bytes: an é
// is one character or two. Ids are compared as bytes, so one that comes in another form
// than the tower's is unknown, and looks the same.
var forms = [...]struct {
	name string
	norm.Form
}{{"NFC", norm.NFC}, {"NFD", norm.NFD}, {"NFKC", norm.NFKC}, {"NFKD", norm.NFKD}}

// otherForm returns an id that a tower has, and its form, that is another Unicode form of
// one that it does not have; both are empty if there is none.
func otherForm(tower *shard.Tower, id string) (other, form string, err error) {
	if isASCII(id) {
		return "", "", nil
	}
	for _, f := range forms {
		other := f.String(id)
		if other == id {
			continue
		}
		if ok, err := tower.Has(other); ok || err != nil {
			return other, f.name, err
		}
	}
	return "", "", nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// inAnotherForm says that a tower has an unknown id in another form, or nothing.
func inAnotherForm(tower *shard.Tower, id string) (string, error) {
	other, form, err := otherForm(tower, id)
	if form == "" || err != nil {
		return "", err
	}
	return fmt.Sprintf(", which has it in another Unicode form (%s): %s for %s", form, excerpt(fmt.Sprintf("%+q", other)), excerpt(fmt.Sprintf("%+q", id))), nil
}

// The bounds of looking for other forms of a request's lists: how many ids that are not
// ASCII are looked at, and how many forms are told.
const (
	maxFormsLooked = 1000
	maxFormsTold   = 100
)

// otherForms returns those of the first unknown ids of some lists that a tower has in
// another form, with that form. An error is the context's or a [*shard.UnreadableError].
func otherForms(ctx context.Context, tower *shard.Tower, lists ...[]string) (map[string]string, error) {
	var found map[string]string
	looked := 0
	for _, list := range lists {
		for _, id := range list {
			if isASCII(id) {
				continue
			}
			if looked++; looked > maxFormsLooked || len(found) == maxFormsTold {
				return found, nil
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			ok, err := tower.Has(id)
			if err != nil {
				return nil, err
			}
			if ok {
				continue
			}
			other, form, err := otherForm(tower, id)
			if err != nil {
				return nil, err
			}
			if form != "" {
				if found == nil {
					found = map[string]string{}
				}
				found[id] = other
			}
		}
	}
	return found, nil
}
