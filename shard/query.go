package shard

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// Query is a question to one tower.
type Query struct {
	// Moment is which state of the tower is asked.
	Moment
	// Vectors holds the query vectors, at least one, each of the tower's
	// dimension. A row's score is the best over them.
	Vectors [][]float32
	// K is how many candidates are wanted, at least 1.
	K int
	// After is where they begin: candidates that rank up to it are not returned. nil is the
	// beginning.
	After *Cursor
	// Filter says which rows are eligible; nil means all.
	Filter *eligibility.Bound
	// Segment names the segment that eligible rows must also be in; empty means
	// any.
	Segment string
	// Include holds the only ids that may be returned; none means all. Ids that the
	// tower does not have are ignored.
	Include []string
	// Exclude holds ids that must not be returned. Ids that the tower does not
	// have are ignored.
	Exclude []string
	// Self is the id of the row that the query is, which is not returned; it is
	// empty if the query is not of this tower.
	Self string
	// AtMost bounds how many candidates have the same value of attributes, each
	// named once.
	AtMost []AtMost
	// Values asks for the values that AtMost counts of each candidate, and Behind for what ranks
	// up to After: for who draws one answer from those of several queries.
	Values, Behind bool
	// Ef is the search effort in each shard. When it is 0, Target decides.
	Ef int
	// Target is the mean recall to aim at, 0 < Target <= 1; 1 asks for the exact
	// plan.
	Target float64
	// Plan forces a plan, except for index.Auto.
	Plan index.Plan
	// Attributes holds the schema positions of the attributes to return.
	Attributes []int
	// MaxText is how many bytes of text the returned attributes may have in all; more is
	// a [TextError], and 0 no bound.
	MaxText int
	// Workers is how many goroutines search shards at a time at most, if no other query
	// does. 0 is as many as there are processors.
	Workers int
	// Pause, if not nil, is called in the midst of searches of shards of this process, about
	// every 0.1 ms, and may wait: the query is one that others go before. Its shards are
	// searched on the caller's goroutine, one after the other, and it does not count among
	// those that share the workers.
	Pause func()
	// MinCoverage is the least coverage that is accepted, 0 to 1; less is a
	// [CoverageError]. So is a shard that was cut short ([ShardAnswer].Cut) if it is 1.
	// Below 1, shards are given a little less time than the context has, so that what has
	// arrived can be answered in it.
	MinCoverage float64
	// Explain holds ids of which the answer says why they are or are not in it.
	Explain []string
	// Observe, if not nil, is told of each step of the search when it has ended, by several
	// goroutines at a time. It must not wait.
	Observe func(Step)
}

// Candidate is one row of an answer.
type Candidate struct {
	ID    string
	Score float32 // the metric's value
	// Attributes holds the values of Query.Attributes, in the same order.
	Attributes []attribute.Value
	// Values are those that Query.AtMost counts, if Query.Values asks for them.
	Values []FieldValue
}

// Answer is what a tower found.
type Answer struct {
	Candidates []Candidate // best first, ties by id
	Before     int         // candidates that were found and rank up to Query.After
	Behind     []Candidate // those, best first, without attributes, if Query.Behind asks for them
	Eligible   int         // eligible rows in the shards that answered, wherever they rank
	Rows       int         // rows in the shards that answered
	TowerRows  int         // rows in all shards
	Shards     []ShardAnswer
	Explained  []Explained // of each id of Query.Explain
	Text       int         // bytes of text in the attributes of the candidates
	// UnknownInclude and UnknownExclude count the ids of Query.Include and of Query.Exclude,
	// and Query.Self, that none of the shards which answered has.
	UnknownInclude, UnknownExclude int
	FanOut                         time.Duration // asking the shards
	Merge                          time.Duration // merging what they found
}

// Coverage returns the share of the tower's eligible rows that the answer is
// based on, 0 to 1: a hash of the id spreads rows over shards, so it is the share
// of the rows.
func (a *Answer) Coverage() float64 {
	if a.TowerRows == 0 {
		return 1
	}
	return float64(a.Rows) / float64(a.TowerRows)
}

// ShardAnswer says how one shard took part in an answer. Counts and times are sums
// over the times that it was asked.
type ShardAnswer struct {
	Shard    string
	Err      error // why the shard did not answer; nil if it did
	Cut      error // why it did not answer once more, when it was to give more than it had
	Rows     int
	Eligible int
	// Asked is how many rows it was asked for, the last time.
	Asked int
	// Stats says how it found, the last time, those of the last query vector; Scored and
	// Expanded are sums over all of them.
	index.Stats
	// Deep is whether Query.AtMost passes over so many rows that the exact scan was
	// asked for.
	Deep bool

	Filter time.Duration // finding the eligible rows
	Search time.Duration // searching among them
	// From names the process that has answered, the last time, of several that could have; empty
	// for this one.
	From string
}

// Answered returns the number of shards that answered.
func (a *Answer) Answered() int {
	n := 0
	for _, s := range a.Shards {
		if s.Err == nil {
			n++
		}
	}
	return n
}

// Missed reports whether a shard that may have an id did not answer a query of the tower.
func (t *Tower) Missed(a *Answer, id string) bool {
	for i := range t.holders(id) {
		if a.Shards[i].Err != nil {
			return true
		}
	}
	return false
}

// Unreadable returns the reasons of the shards that did not answer because their files
// cannot be read.
func (a *Answer) Unreadable() (all []*UnreadableError) {
	for i := range a.Shards {
		if e, ok := errors.AsType[*UnreadableError](a.Shards[i].Err); ok {
			all = append(all, e)
		}
	}
	return all
}

// Cut returns the number of shards that answered, but not with all that they were to give.
func (a *Answer) Cut() int {
	n := 0
	for _, s := range a.Shards {
		if s.Err == nil && s.Cut != nil {
			n++
		}
	}
	return n
}

// CoverageError says that too few shards answered for the query.
type CoverageError struct {
	Answered, Shards      int
	Cut                   int // of those that answered, how many did not give all
	Coverage, MinCoverage float64
	Err                   error // the first shard's reason
	// Unreadable has the reasons of the shards whose files cannot be read.
	Unreadable []*UnreadableError
}

// Error implements error.
func (e *CoverageError) Error() string {
	return fmt.Sprintf("%s: coverage is %.3g, min_coverage is %g: %v", e.Answers(), e.Coverage, e.MinCoverage, e.Err)
}

// Answers says how many shards answered.
func (e *CoverageError) Answers() string {
	text := fmt.Sprintf("%d of %d shards answered", e.Answered, e.Shards)
	if e.Cut > 0 {
		text += fmt.Sprintf(", %d of them not with all that they have of the best", e.Cut)
	}
	return text
}

// Unwrap returns the first shard's reason.
func (e *CoverageError) Unwrap() error { return e.Err }

// TextError says that the returned attributes have more text than the query wants.
type TextError struct {
	Found      []Candidate // those that were looked at, of Of, best first
	Of         int
	Bytes, Max int // of the text of those in Found, and Query.MaxText
}

// Error implements error.
func (e *TextError) Error() string {
	return fmt.Sprintf("the attributes of %d of %d candidates have %d bytes of text, want at most %d", len(e.Found), e.Of, e.Bytes, e.Max)
}

// validate returns an error of class [index.ErrQuery].
func (q *Query) validate(schema attribute.Schema) error {
	for _, field := range q.Attributes {
		if field < 0 || field >= schema.Len() {
			return fmt.Errorf("attribute %d is asked for, the tower has %d: %w", field, schema.Len(), index.ErrQuery)
		}
	}
	for i, limit := range q.AtMost {
		if err := limit.validate(schema); err != nil {
			return err
		}
		if slices.ContainsFunc(q.AtMost[:i], func(a AtMost) bool { return a.Field == limit.Field }) {
			return fmt.Errorf("attribute %s is limited twice, want each once: %w", schema.Field(limit.Field).Name, index.ErrQuery)
		}
	}
	switch {
	case len(q.Vectors) == 0:
		return fmt.Errorf("query has no vector: %w", index.ErrQuery)
	case q.K < 1:
		return fmt.Errorf("k is %d, want at least 1: %w", q.K, index.ErrQuery)
	case q.Ef < 0:
		return fmt.Errorf("ef is %d, want at least 0: %w", q.Ef, index.ErrQuery)
	case q.Ef == 0 && !(q.Target > 0 && q.Target <= 1):
		return fmt.Errorf("recall target is %v, want above 0 and at most 1: %w", q.Target, index.ErrQuery)
	}
	return q.After.validate()
}

// PanicError is a panic while a part is asked, which is a bug. It ends the query and not
// the process. What cannot be read of a shard's file is an [UnreadableError].
type PanicError struct {
	Shard string
	Value any
	Stack []byte
}

// Error implements error. The text has the stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("search shard %s: panic: %v\n%s", e.Shard, e.Value, e.Stack)
}

// isFatal reports whether err ends the whole query: it is the caller's to mend, or
// a bug.
func isFatal(err error) bool {
	var panicked *PanicError
	return errors.Is(err, index.ErrQuery) || errors.As(err, &panicked)
}
