package shard

import (
	"context"
	"time"
	"unsafe"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// Part is a part of a tower, as the fan-out knows it: a [Local] is a shard of this
// process, another implementation may ask one that is elsewhere. Rows of a part are in
// no other part of the same [Moment].
//
// # Errors
//
// The fan-out tells errors by their class:
//
//   - [index.ErrQuery]: what is asked is wrong, and so for every part. It ends the query,
//     and the caller is told.
//   - [*PanicError]: a bug. It ends the query, not the process.
//   - that of a context which has ended, [context.DeadlineExceeded] or
//     [context.Canceled]: the part is given up for want of time. It counts with what it gave
//     before, if it did.
//   - any other, such as [*UnreadableError]: the part is lost. The query is answered as if
//     it had not been there from the beginning, if its caller accepts that.
//
// A method that has returned an error has changed nothing that the fan-out reads: what is
// in a dst or a Reply then has no meaning. No method panics.
//
// # Concurrency
//
// Methods may be called from any number of goroutines, for one query too. They keep none
// of their arguments, nor what those alias, once they have returned, but for [Reply].Kept.
type Part interface {
	// Info says what a tower knows of the part for good. The caller must not change what
	// it refers to.
	Info() Info

	// Search makes reply what the part has of the best rows for a request: the K best that
	// an exact scan finds, or those that walks come upon, down to the floor at least. The same request gives the same
	// reply, but for its times, whatever was asked before.
	Search(ctx context.Context, r *Request, reply *Reply) error

	// Explain returns for each id what the part knows of its row. It reads of the request
	// what rows are judged by: Vectors, Filter, Segment and Limited. Without vectors scores are 0.
	Explain(ctx context.Context, r *Request, ids []string) ([]ExplainedRow, error)

	// Vectors sets each place of dst, which is as long as ids, to a copy of the embedding
	// of that id, and to nil if the part does not have it.
	Vectors(ctx context.Context, at Moment, ids []string, dst [][]float32) error

	// Attributes sets dst to copies of the attributes of rows: those that fields names by
	// their positions in the schema, row after row. Refs are of the part's hits for the
	// same Moment. It ends after the row with which the values have more than most bytes
	// of text, unless most is 0, and returns how many rows are done.
	Attributes(ctx context.Context, at Moment, refs []uint32, fields []int, most int, dst []attribute.Value) (rows int, err error)
}

// Info is what a tower knows of a part from the beginning. It does not change: what
// changes is another part, of another tower.
type Info struct {
	Name string
	// Elsewhere is whether asking the part is to wait, mostly, for another process: then all
	// such parts are asked at once. Else as many are as there are processors.
	Elsewhere bool
	// Rows is how many rows there are, whether or not their windows have begun or ended.
	Rows int
	// Segments has the part's segments in ascending order of their names, which are those
	// of all parts of a tower, and SegmentRows how many of the rows each makes eligible.
	Segments    []Segment
	SegmentRows []int
	Costs       Costs
	// Changed is how many of the rows have other attributes than when the snapshot was
	// built. Filters cost more for each of them.
	Changed int
}

// Costs estimates what searches of a part cost. [CostsOf] returns those of a shard.
type Costs interface {
	// FilteredEffortFor returns the effort of a walk for k rows of so many that are
	// eligible, and 0 for an exact scan; see [index.CostModel.FilteredEffortFor].
	FilteredEffortFor(k int, target float64, eligible int) int
	// Cost estimates a search with an effort, in rows of a scan; see [index.CostModel.Cost].
	Cost(k, ef, eligible int) float64
}

// Position is where in the live log something stands. The zero Position is before all
// events.
type Position struct {
	Log      string `json:"log,omitempty"` // changes when a person accepts a restored store
	Sequence uint64 `json:"sequence"`      // of an entry
}

// Moment says which state of a tower is asked. All that one request asks, of whatever
// tower and part, is asked at one Moment, so that no answer is of two states. A part that
// is not of the snapshot, or not at the position, returns an error and answers from no
// other.
type Moment struct {
	// Snapshot is the digest of the snapshot. It is empty where a tower is not of a
	// published one, which only a process that opened it can ask.
	Snapshot string
	// Position is that of the overlay that is to lie over the snapshot. A part answers at
	// that position alone, and at whatever it is at if this is zero.
	Position Position
	// Time is the one reading of the clock by which what holds from or until a time is
	// judged. Methods of a tower take it where it is zero; a part is always given it.
	Time time.Time
}

// Request is what one part is asked in one round of a query. It is a value: a part that
// is sent it by other means, the Filter as its text and its bindings, replies the same.
type Request struct {
	Moment

	Vectors [][]float32 // as in Query
	K       int         // how many hits are wanted, at least 1
	Ef      int         // as in Query; when it is 0, Target decides
	Target  float64
	// Expected is, if not 0, how many of the K hits are expected to be in the answer at most:
	// those that the effort for Target has to find.
	Expected int
	Plan     index.Plan
	// Pause is as in Query; a part that is elsewhere is not sent it.
	Pause func()

	// Floor is, if Floored, a score: K rows of other parts are known that score it or
	// better, and hits that score worse may be left out.
	Floored bool
	Floor   float32

	// Filter says which rows are eligible, nil that all are. It is compiled and bound once
	// a query; [eligibility.Bound.String] and [eligibility.Bound.Bindings] say what it is.
	Filter  *eligibility.Bound
	Segment string // as in Query

	// Include holds, if Included, the only ids that may be returned of the part, in any
	// order, perhaps repeated; there may be none.
	Included bool
	Include  []string
	// Exclude holds the ids that must not be returned, and that of the row that the query
	// itself is, in any order, perhaps repeated.
	Exclude []string

	// Limited holds the schema positions of the attributes whose values each hit brings.
	Limited []int
	// Full holds values of those attributes: a row that has one of them is not returned
	// unless Taken has its ref. From one round of a query to the next both only grow.
	Full  []FieldValue
	Taken []uint32
}

// FieldValue is one value that a row has of an attribute: of a keyword, and of each one
// of a keyword list, the text; of an int the number; of a bool 0 or 1. It is comparable.
type FieldValue struct {
	Field  int // its position in the schema
	Text   string
	Number int64
}

// Hit is one row that a part returns. It aliases the reply's memory.
type Hit struct {
	ID    string
	Score float32 // the metric's value
	// Ref is the part's name of the row, which is good for the same Moment, whoever
	// answers for the part.
	Ref    uint32
	part   int32        // its number in the tower
	Values []FieldValue // of Request.Limited, attribute by attribute
}

// Reply is what a part answers to a request. Its memory is reused from request to
// request: what it held before is overwritten.
type Reply struct {
	Hits []Hit // best first, ties by id; [Reply.Add] adds one

	Eligible int // rows that may be returned, but for Request.Full
	Left     int // rows that may be returned
	Asked    int // hits that were looked for: Request.K, or Left if that is less for Full
	// UnknownInclude counts the ids of Request.Include that the part does not have, and
	// UnknownExclude those of Request.Exclude.
	UnknownInclude, UnknownExclude int
	// Stats says how the hits for the last query vector were found; Scored and Expanded
	// are sums over all vectors.
	Stats  index.Stats
	Filter time.Duration // finding the eligible rows
	Search time.Duration // searching among them
	// From names the process that has replied, of several that could have; empty for this one.
	From string

	// Kept is what the part keeps of the query, for speed, or nil. The fan-out hands it
	// back with the replies to later rounds of the same query, and releases it at the end.
	// What the part answers must not depend on whether it does.
	Kept Kept

	part   int32 // number of the part that replies
	text   []byte
	values []FieldValue
}

// Kept is state of one query that a part keeps from round to round. One goroutine uses it
// at a time.
type Kept interface {
	// Release ends its use.
	Release()
}

// Reset empties the reply but for Kept, and keeps its memory.
func (r *Reply) Reset() {
	*r = Reply{Hits: r.Hits[:0], Kept: r.Kept, part: r.part, text: r.text[:0], values: r.values[:0]}
}

// Add adds a hit after those that there are. It copies the id.
func (r *Reply) Add(id string, ref uint32, score float32) {
	r.Hits = append(r.Hits, Hit{ID: r.copy(id), Ref: ref, Score: score, part: r.part})
}

// AddValue adds a value to the last hit. It copies the text.
func (r *Reply) AddValue(v FieldValue) { r.addValue(len(r.Hits)-1, v) }

// Take makes the reply what another one is, whose memory it takes, and gives it its own. It
// keeps Kept.
func (r *Reply) Take(o *Reply) {
	part, kept := r.part, r.Kept
	*r, *o = *o, *r
	r.part, r.Kept = part, kept
	for i := range r.Hits {
		r.Hits[i].part = part
	}
}

// addValue adds a value to a hit, those after which have none.
func (r *Reply) addValue(hit int, v FieldValue) {
	v.Text = r.copy(v.Text)
	h := &r.Hits[hit]
	from := len(r.values) - len(h.Values)
	r.values = append(r.values, v)
	h.Values = r.values[from:len(r.values):len(r.values)]
}

// copy returns a copy of a text, which is good until the reply is reset.
func (r *Reply) copy(text string) string {
	from := len(r.text)
	r.text = append(r.text, text...)
	copied := r.text[from:]
	return unsafe.String(unsafe.SliceData(copied), len(copied))
}

// room is how many hits there is room for in the reply's memory.
func (r *Reply) room() int { return cap(r.Hits) + cap(r.text)/64 + cap(r.values)/2 }

// ExplainedRow is what a part knows of an id. Of one that it does not have only that, and
// why, if that is because of the time.
type ExplainedRow struct {
	Known bool
	// OutsideWindow is whether there is a row, which is not known because the moment's time
	// is outside of its window.
	OutsideWindow bool
	// Fresh is whether it is newer than the snapshot, where a part has such rows too.
	Fresh bool
	Score float32 // exact, the best over the query's vectors
	// Outside is whether it is not in Request.Segment, and Eligible whether it is and
	// passes Request.Filter. Clause is, if it is not eligible, the first clause that is
	// false for it of the segment's expression, if it is outside, or else of the filter;
	// it is empty if there is none.
	Outside  bool
	Eligible bool
	Clause   string
	Values   []FieldValue // of Request.Limited, attribute by attribute
}
