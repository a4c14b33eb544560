package overlay

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
)

// run is a part of what was upserted: a shard in memory, with what lies over it. It does not
// change, but is replaced.
type run struct {
	local *shard.Local
	over  *shard.Overlay
	given []given // of each ordinal
	bytes int64   // of those that are not dead
}

// given is what a row was made of. It is what the state has.
type given struct {
	vector     []float32
	attributes map[string]attribute.Value
	size       int64 // bytes
}

// is reports whether what was upserted is what a row was made of.
func (g *given) is(u *live.Upserted) bool {
	return slices.Equal(g.vector, u.Vector) && maps.EqualFunc(g.attributes, u.Attributes, attribute.Value.Equal)
}

// rows returns how many rows are not dead.
func (r *run) rows() int { return r.over.Rows() }

// with returns the run at a position with changes of its rows.
func (r *run) with(at shard.Position, rows []shard.OverlaidRow) (*run, error) {
	next := *r
	var err error
	if next.over, err = r.over.With(at, rows); err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.Dead != r.over.IsDead(row.Ordinal) {
			if row.Dead {
				next.bytes -= r.given[row.Ordinal].size
			} else {
				next.bytes += r.given[row.Ordinal].size
			}
		}
	}
	return &next, nil
}

// appendAlive appends the rows that are not dead.
func (r *run) appendAlive(dst []freshRow) []freshRow {
	s := r.local.Shard()
	for ordinal := range uint32(s.Rows()) {
		if r.over.IsDead(ordinal) {
			continue
		}
		from, until := r.over.Window(ordinal)
		dst = append(dst, freshRow{
			id: s.ID(ordinal), given: r.given[ordinal], from: r, place: ordinal,
			window: live.Window{From: from, Until: until},
		})
	}
	return dst
}

// nextRuns returns the runs with what the batch changes of them, and with its fresh rows,
// which are put together with runs that are not much larger, and with what is left of those
// that are mostly dead. It returns how many runs were made so far, too.
func (b *batch) nextRuns(at shard.Position) (runs []*run, made int, err error) {
	rows := make([]freshRow, 0, len(b.fresh))
	for _, r := range b.fresh {
		rows = append(rows, r)
	}
	for i, r := range b.runs {
		var changes []shard.OverlaidRow
		if b.inRuns != nil {
			changes = sorted(b.inRuns[i])
		}
		next, err := r.with(at, changes)
		if err != nil {
			return nil, 0, err
		}
		if 2*next.rows() < len(next.given) {
			rows = next.appendAlive(rows)
		} else {
			runs = append(runs, next)
		}
	}
	if len(rows) == 0 {
		return runs, b.made, nil
	}
	slices.SortStableFunc(runs, func(a, b *run) int { return cmp.Compare(b.rows(), a.rows()) })
	for n := len(runs) - 1; n >= 0 && shard.Mergeable(runs[n].rows(), len(rows)); n-- {
		rows, runs = runs[n].appendAlive(rows), runs[:n]
	}
	slices.SortFunc(rows, func(a, b freshRow) int { return cmp.Compare(a.id, b.id) })
	made = b.made + 1
	next, err := b.newRun(fmt.Sprintf("%s-fresh-%d", b.kind, made), rows, at)
	return append(runs, next), made, err
}

// newRun writes rows, in ascending order of their ids.
func (t *tower) newRun(name string, rows []freshRow, at shard.Position) (*run, error) {
	r := &run{}
	vectors, err := index.NewMatrix(t.base.Dim(), len(rows))
	if err != nil {
		return nil, err
	}
	attributes := attribute.NewWriter(t.schema, len(rows))
	var ids []string
	for i := range rows {
		row := &rows[i]
		if err := vectors.Append(row.vector); err != nil {
			return nil, err
		}
		for field := range t.schema.Len() {
			var v attribute.Value
			if row.from != nil {
				v = row.from.local.Shard().Attributes().Value(row.place, field)
			} else {
				v = row.attributes[field]
			}
			if err := attributes.Set(i, field, v); err != nil {
				return nil, err
			}
		}
		ids = append(ids, row.id)
		r.bytes += row.size
	}
	x, err := index.Flat(vectors, t.base.Metric())
	if err != nil {
		return nil, err
	}
	if r.local, err = t.base.InMemory(name, ids, x, attributes); err != nil {
		return nil, err
	}
	var windows []shard.OverlaidRow
	for ordinal, i := range x.Order() {
		r.given = append(r.given, rows[i].given)
		if w := rows[i].window; !w.From.IsZero() || !w.Until.IsZero() {
			windows = append(windows, shard.OverlaidRow{Ordinal: uint32(ordinal), From: w.From, Until: w.Until})
		}
	}
	r.over, err = r.local.Overlay().With(at, windows)
	return r, err
}
