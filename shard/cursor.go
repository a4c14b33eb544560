package shard

import (
	"fmt"
	"math"

	"github.com/tandem-ann/tandem/index"
)

// Cursor is where a page of an answer begins: behind a candidate that the page before it
// ended with.
//
// # Goals
//
// A page repeats no candidate of an earlier one, whatever has changed meanwhile: rows may have
// come, been taken down, or become eligible. Where nothing has changed, the pages of exact
// scans are together what one answer would be.
//
// # Design
//
// A page is what ranks after the cursor by score and id, and not what comes after so many
// others: a row's score is the same each time, whatever plan finds it, for as long as its
// vector and the query's are, and all that is on earlier pages ranks up to the cursor.
//
// Limits on values count from the first candidate of the first page on, so a page is found by
// searching all pages up to it: as many rows as they had are looked for beside those that are
// wanted, and more where more rank up to the cursor than did.
//
// A walk for more rows may come upon some that rank up to the cursor and that a walk for fewer
// had missed. They belong to earlier pages, which are gone, and are on none.
type Cursor struct {
	Score float32 // of the candidate that the page before it ended with
	ID    string  // of that
	// Rank is how many candidates there were up to it, on all pages before.
	Rank int
	// Most is how many candidates are looked for at most, those up to the cursor among them;
	// 0 is no bound. A page for which that is too few, because much ranks up to the cursor, is
	// short.
	Most int
}

// validate returns an error of class [index.ErrQuery].
func (c *Cursor) validate() error {
	switch {
	case c == nil:
	case math.IsNaN(float64(c.Score)):
		return fmt.Errorf("a page begins after a score that is NaN, want a number: %w", index.ErrQuery)
	case c.Rank < 0 || c.Most < 0:
		return fmt.Errorf("a page begins after %d candidates of at most %d, want at least 0: %w", c.Rank, c.Most, index.ErrQuery)
	}
	return nil
}

// Passed reports whether an id with a score ranks up to the cursor. None does up to no cursor.
func (c *Cursor) Passed(id string, score float32, metric index.Metric) bool {
	return !c.before(&Hit{ID: id, Score: score}, metric)
}

// before reports whether a hit ranks after the cursor. All hits rank after no cursor.
func (c *Cursor) before(h *Hit, metric index.Metric) bool {
	if c == nil {
		return true
	}
	at := Hit{ID: c.ID, Score: c.Score}
	return at.before(h, metric)
}

// reach returns how many candidates there are up to the end of a page of k, where so many
// rank up to the cursor.
func (c *Cursor) reach(k, before int) int {
	switch {
	case c == nil:
		return k
	case c.Most > 0:
		return min(before+k, c.Most)
	}
	return before + k
}

// depth returns how many rows a query looks for at first: those of the page, those up to its
// cursor, and of these, as a walk for more rows finds some that one for fewer has missed, as
// many as may have been.
func (q *Query) depth() int {
	c := q.After
	if c == nil {
		return q.K
	}
	target := q.Target
	if q.Ef != 0 {
		target = index.DefaultTarget
	}
	return c.reach(q.K, c.Rank+int(math.Ceil(float64(c.Rank)*(1-target))))
}
