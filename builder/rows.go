package builder

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// place is where a record of a spill goes.
type place struct {
	id     string
	number int64 // of the input row
	record int   // position in the spill
}

// fault is why a row or a line is left out.
type fault struct {
	number       int64 // of the row or the line
	kind, detail string
}

// places reads the ids of one shard and decides its rows: ids ascending, each
// once, without those that an attribute line rejects. The rows left out are
// handed to reject.
func (in *ingested) places(number int, reject func(fault)) ([]place, error) {
	var list []place
	err := in.rows[number].each(parts{}, in.inline, func(r *record) error {
		list = append(list, place{id: r.id, number: r.number, record: len(list)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	bad := map[string]bool{}
	if in.joined != nil {
		seen := map[string]int64{}
		err := in.joined[number].each(parts{}, 0, func(r *record) error {
			if r.rejected {
				bad[r.id] = true
				return nil
			}
			if first, again := seen[r.id]; again {
				reject(fault{r.number, "repeated attributes", fmt.Sprintf("%s (id %.64q): %s has attributes of this id already", in.line(r.number), r.id, in.line(first))})
				return nil
			}
			seen[r.id] = r.number
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b place) int {
		return cmp.Or(strings.Compare(a.id, b.id), cmp.Compare(a.number, b.number))
	})
	kept := list[:0]
	for _, p := range list {
		switch {
		case bad[p.id]: // counted with the line
		case len(kept) > 0 && kept[len(kept)-1].id == p.id:
			reject(fault{p.number, "duplicate id", fmt.Sprintf("%s (id %.64q): %s has this id already", in.row(p.number), p.id, in.row(kept[len(kept)-1].number))})
		default:
			kept = append(kept, p)
		}
	}
	return kept, nil
}

// rejectDuplicates counts what [ingested.places] will leave out of every shard, so
// that a build fails before it has spent time on a graph.
func (in *ingested) rejectDuplicates(progress Progress) (rows int, err error) {
	var faults []fault
	for number := range in.rows {
		progress.Step(int64(number))
		list, err := in.places(number, func(f fault) { faults = append(faults, f) })
		if err != nil {
			return 0, err
		}
		rows += len(list)
	}
	// Shards are an accident of hashing; the order of the messages is not.
	slices.SortFunc(faults, func(a, b fault) int { return cmp.Compare(a.number, b.number) })
	for _, f := range faults {
		in.rejections.add(f.kind, f.detail)
	}
	return rows, nil
}

// contents are the rows of one shard in memory.
type contents struct {
	ids        []string
	input      index.Input
	attributes *attribute.Writer
}

// unjoined are attribute lines whose ids are of no row, and rows that no line is of.
type unjoined struct {
	lines, rows int
	first       int64 // the number of the first line
	id          string
}

func (u *unjoined) addLine(number int64, id string) {
	if u.lines++; u.lines == 1 || number < u.first {
		u.first, u.id = number, id
	}
}

// load reads the rows of one shard. Those of it that are not joined it adds to apart.
func (in *ingested) load(number int, apart *unjoined) (c *contents, err error) {
	list, err := in.places(number, func(fault) {})
	if err != nil {
		return nil, err
	}
	c = &contents{attributes: attribute.NewWriter(in.schema, len(list))}
	if c.input.Vectors, err = index.NewMatrix(in.dim, len(list)); err != nil {
		return nil, err
	}
	rowOf := make(map[int]int, len(list)) // by record
	for row, p := range list {
		c.ids = append(c.ids, p.id)
		c.input.Keys = append(c.input.Keys, shard.Key(p.id))
		rowOf[p.record] = row
	}
	c.input.Vectors.Grow(len(list))
	n := 0
	err = in.rows[number].each(parts{vector: true, attributes: true}, in.inline, func(r *record) error {
		row, ok := rowOf[n]
		n++
		if !ok {
			return nil
		}
		if err := c.input.Vectors.Set(row, r.vector); err != nil {
			return err
		}
		return c.set(row, in.columns[:in.inline], r.attributes)
	})
	if err != nil || in.joined == nil {
		return c, err
	}
	done := map[int]bool{}
	err = in.joined[number].each(parts{attributes: true}, len(in.columns)-in.inline, func(r *record) error {
		row, ok := slices.BinarySearch(c.ids, r.id)
		switch {
		case r.rejected || ok && done[row]:
			return nil
		case !ok:
			apart.addLine(r.number, r.id)
			return nil
		}
		done[row] = true
		return c.set(row, in.columns[in.inline:], r.attributes)
	})
	apart.rows += len(c.ids) - len(done)
	return c, err
}

func (c *contents) set(row int, columns []int, values []attribute.Value) error {
	for i, v := range values {
		if v.Absent() {
			continue
		}
		if err := c.attributes.Set(row, columns[i], v); err != nil {
			return fmt.Errorf("id %q: %w", c.ids[row], err)
		}
	}
	return nil
}
