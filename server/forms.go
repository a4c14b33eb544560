package server

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/shard"
)

// inAnotherForm says that a tower has an unknown id in another form, or nothing.
func inAnotherForm(ctx context.Context, tower *shard.Tower, at shard.Moment, id string) (string, error) {
	other, form, ok, err := tower.OtherForm(ctx, at, id)
	if !ok || err != nil {
		return "", err
	}
	if form != "" {
		form = " (" + form + ")"
	}
	return fmt.Sprintf(", which has it in another Unicode form%s: %s for %s", form, excerpt(fmt.Sprintf("%+q", other)), excerpt(fmt.Sprintf("%+q", id))), nil
}

// The bounds of looking for other forms of a request's lists: how many ids that may have
// one are looked at, and how many forms are told.
const (
	maxFormsLooked = 1000
	maxFormsTold   = 100
)

// otherForms returns those of the first unknown ids of some lists that a tower has in
// another form, with that form. An error is as of
// [shard.Tower.Vector].
func otherForms(ctx context.Context, tower *shard.Tower, at shard.Moment, lists ...[]string) (map[string]string, error) {
	var found map[string]string
	looked := 0
	for _, list := range lists {
		for _, id := range list {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if !tower.MayHaveOtherForm(id) {
				continue
			}
			if looked++; looked > maxFormsLooked || len(found) == maxFormsTold {
				return found, nil
			}
			ok, err := tower.Has(ctx, at, id)
			if err != nil {
				return nil, err
			}
			if ok {
				continue
			}
			other, _, ok, err := tower.OtherForm(ctx, at, id)
			if err != nil {
				return nil, err
			}
			if ok {
				if found == nil {
					found = map[string]string{}
				}
				found[id] = other
			}
		}
	}
	return found, nil
}
