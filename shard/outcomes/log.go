package outcomes

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// Log is a place with outcomes.
type Log struct{ rows *rowlog.Log[Outcome] }

// Of returns the log of the store in a bucket. Closing it leaves the bucket open.
func Of(bucket *objects.Bucket) *Log { return &Log{rows: format.Of(bucket)} }

// Open opens the log at a location: a store, a file, or a folder or a bucket whose objects that
// end in .parquet are all files of outcomes. The caller closes it.
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

// Outcomes returns the outcomes that were from since on and before until, whenever they were
// received; a zero time sets no bound. One id may come several times. Their order is that of the
// objects' names and, in one, that of its rows. One object is in memory at a time. An error names
// the object. One of class [ErrDamaged] ends what is returned of that object, and the next one
// follows; any other error is the last thing returned.
func (l *Log) Outcomes(ctx context.Context, since, until time.Time) iter.Seq2[*Outcome, error] {
	return l.rows.Rows(ctx, since, until, MaxAhead+rowlog.ClockSlack)
}

// Days returns the days on which objects were written, the first first, each at its beginning in
// UTC.
func (l *Log) Days(ctx context.Context) ([]time.Time, error) { return l.rows.Days(ctx) }

// OfDay returns the outcomes in the objects that were written on a day in UTC, as Outcomes does.
func (l *Log) OfDay(ctx context.Context, day time.Time) iter.Seq2[*Outcome, error] {
	return l.rows.OfDay(ctx, day)
}

// SweepOptions say which outcomes go.
type SweepOptions struct {
	// Now is the time by the store's clock.
	Now time.Time
	// Keep is how long a file is kept since it was written. 0: for ever.
	Keep time.Duration
	// Forgotten reports whether an id is that of a user who is forgotten. Nil: nobody is.
	Forgotten func(id string) bool
	// Set names who is forgotten: it is another text whenever they are others.
	Set string
	// DryRun says what would go, and changes nothing.
	DryRun bool
}

// Sweep deletes the files of a store that are too old, and takes the outcomes that name users who
// are forgotten out of the others, as [rowlog.Log.Sweep] does.
//
// An error is one of the store, or says how many files it could not do; what is returned is right
// all the same.
func (l *Log) Sweep(ctx context.Context, o SweepOptions) (*rowlog.Swept, error) {
	rows := rowlog.SweepOptions[Outcome]{Now: o.Now, Keep: o.Keep, Set: o.Set, DryRun: o.DryRun}
	if o.Forgotten != nil {
		forgotten := rowlog.Remembering(o.Forgotten)
		rows.Gone = func(o *Outcome) (bool, error) { return o.Names(forgotten), nil }
	}
	done, err := l.rows.Sweep(ctx, rows)
	if err != nil {
		return done, fmt.Errorf("sweep outcomes: %w", err)
	}
	return done, nil
}

// Unswept returns how many files of a store may have something of the users of a set, as
// [SweepOptions] names it, since no sweep is known to have looked into them.
func (l *Log) Unswept(ctx context.Context, set string) (int, error) { return l.rows.Unswept(ctx, set) }
