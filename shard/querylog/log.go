package querylog

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// Log is a place with recorded queries.
type Log struct{ rows *rowlog.Log[Query] }

// Of returns the log of the store in a bucket. Closing it leaves the bucket open.
func Of(bucket *objects.Bucket) *Log { return &Log{rows: format.Of(bucket)} }

// Open opens the log at a location: a store, a file, or a folder or a bucket whose objects that
// end in .parquet are all files of queries. The caller closes it.
func Open(ctx context.Context, location string) (*Log, error) {
	rows, err := format.OpenLog(ctx, location)
	if err != nil {
		return nil, err
	}
	return &Log{rows: rows}, nil
}

// Close frees what Open opened.
func (l *Log) Close() error { return l.rows.Close() }

// Location returns where the log is.
func (l *Log) Location() string { return l.rows.Location() }

// Queries returns the queries that came from since on and before until; a zero time
// sets no bound. Their order is that of the objects' names and, in one, that of its
// rows. One object is in memory at a time. An error names the object. One of class
// [ErrDamaged] ends what is returned of that object, and the next one follows; any other
// error is the last thing returned.
func (l *Log) Queries(ctx context.Context, since, until time.Time) iter.Seq2[*Query, error] {
	return l.rows.Rows(ctx, since, until, rowlog.ClockSlack)
}

// SweepOptions say which recorded queries go.
type SweepOptions struct {
	// Now is the time by the store's clock.
	Now time.Time
	// Keep is how long a file is kept since it was written. 0: for ever.
	Keep time.Duration
	// Forgotten reports whether an id is that of a user who is forgotten. Nil: nobody is.
	Forgotten func(id string) bool
	// Set names who is forgotten: it is another text whenever they are others.
	Set string
	// Users returns every text of a request that can be the id of a user.
	Users func(request []byte) ([]string, error)
	// DryRun says what would go, and changes nothing.
	DryRun bool
}

// Sweep deletes the files of a store that are too old, and takes the queries of users who are
// forgotten out of the others, as [rowlog.Log.Sweep] does: those whose request names one of
// them, and those whose answer does.
//
// An error is one of the store, or says how many files it could not do; what is returned is right
// all the same.
func (l *Log) Sweep(ctx context.Context, o SweepOptions) (*rowlog.Swept, error) {
	rows := rowlog.SweepOptions[Query]{Now: o.Now, Keep: o.Keep, Set: o.Set, DryRun: o.DryRun}
	if o.Forgotten != nil {
		forgotten := rowlog.Remembering(o.Forgotten)
		rows.Gone = func(q *Query) (bool, error) { return q.Names(forgotten, o.Users) }
	}
	done, err := l.rows.Sweep(ctx, rows)
	if err != nil {
		return done, fmt.Errorf("sweep recorded queries: %w", err)
	}
	return done, nil
}

// Unswept returns how many files of a store may have something of the users of a set, as
// [SweepOptions] names it, since no sweep is known to have looked into them.
func (l *Log) Unswept(ctx context.Context, set string) (int, error) { return l.rows.Unswept(ctx, set) }

// Names reports whether a query, or its answer, names a user who is forgotten, as forgotten
// says of a text. Users returns every text of a request that can be the id of a user; its
// errors are what is returned.
func (q *Query) Names(forgotten func(text string) bool, users func(request []byte) ([]string, error)) (bool, error) {
	if slices.ContainsFunc([]string{q.UserID, q.RequestKey, q.RequestID}, forgotten) {
		return true, nil
	}
	of := func(c Candidate) bool { return forgotten(c.ID) }
	if q.Tower != shard.Apps && (slices.ContainsFunc(q.Candidates, of) || slices.ContainsFunc(q.Next, of)) {
		return true, nil
	}
	texts, err := users(q.Request)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(texts, forgotten), nil
}
