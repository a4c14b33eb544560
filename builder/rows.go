package builder

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// shardRecords are the records of one shard, of rows and of lines of attributes, in any order.
type shardRecords struct{ rows, lines []*partition.Records }

// eachOf calls do for every record of a list of them, with its position in all.
func eachOf(list []*partition.Records, want partition.Want, do func(position int, r *partition.Record) error) error {
	n := 0
	for _, records := range list {
		err := records.Each(want, func(r *partition.Record) error {
			n++
			return do(n-1, r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// place is where a record goes.
type place struct {
	id       string
	number   int64 // of the row, or the line, in the input
	record   int   // its position among the records
	rejected bool  // of a line: it rejects the row
}

func (p place) compare(o place) int {
	return cmp.Or(strings.Compare(p.id, o.id), cmp.Compare(p.number, o.number))
}

// placed is what is decided of one shard: its rows, ids ascending, each once, without those
// that a line of attributes rejects.
type placed struct {
	rows  []place
	lines []place // of which attributes are taken; ids ascending
	// rejections are of the rows and lines left out that were not rejected before.
	rejections partition.Rejections
}

// read returns places of a shard in the order of their ids, and then of their numbers.
func (j *job) readPlaces(kind shard.Kind, number int, what string, list []*partition.Records) ([]place, error) {
	var places []place
	shards := j.plan.Tower(kind).Shards
	err := eachOf(list, partition.Want{}, func(position int, r *partition.Record) error {
		if own := shard.Partition(r.ID, shards); own != number {
			return refused(&partition.OtherShardError{Row: fmt.Sprintf("%s %d", what, r.Number), ID: r.ID, Have: number, Own: own})
		}
		places = append(places, place{r.ID, r.Number, position, r.Rejected})
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(places, place.compare)
	for i := 1; i < len(places); i++ {
		if places[i].compare(places[i-1]) == 0 {
			return nil, refused(fmt.Errorf("%s: %s %d (id %.64q) is there twice", j.called(kind, number), what, places[i].number, places[i].id))
		}
	}
	return places, nil
}

// places decides the rows of one shard.
func (j *job) places(kind shard.Kind, number int, s shardRecords) (*placed, error) {
	rows, err := j.readPlaces(kind, number, "row", s.rows)
	if err != nil {
		return nil, err
	}
	lines, err := j.readPlaces(kind, number, "line", s.lines)
	if err != nil {
		return nil, err
	}
	p := &placed{}
	terms, survey := j.terms[kind], j.plan.Tower(kind).Lines
	repeated := func(at int64, kind, detail string) {
		p.rejections.Add(partition.Place{Phase: partition.OfRepeated, Number: at}, kind, detail)
	}
	bad := map[string]bool{}
	for _, l := range lines {
		last := len(p.lines) - 1
		switch {
		case l.rejected:
			bad[l.id] = true
		case last >= 0 && p.lines[last].id == l.id:
			repeated(l.number, "repeated attributes", fmt.Sprintf("%s (id %.64q): %s has attributes of this id already", survey.Place(l.number), l.id, survey.Place(p.lines[last].number)))
		default:
			p.lines = append(p.lines, l)
		}
	}
	for _, r := range rows {
		last := len(p.rows) - 1
		switch {
		case bad[r.id]: // counted with the line
		case last >= 0 && p.rows[last].id == r.id:
			repeated(r.number, "duplicate id", fmt.Sprintf("%s (id %.64q): %s has this id already", terms.Row(r.number), r.id, terms.Row(p.rows[last].number)))
		default:
			p.rows = append(p.rows, r)
		}
	}
	return p, nil
}

// contents are the rows of one shard in memory.
type contents struct {
	ids        []string
	input      index.Input
	attributes *attribute.Writer
}

// unjoined are attribute lines whose ids are of no row, and rows that no line is of.
type unjoined struct {
	Lines, Rows int
	First       int64  // the number of the first line
	ID          string `json:",omitempty"`
}

func (u *unjoined) addLine(number int64, id string) {
	if u.Lines++; u.Lines == 1 || number < u.First {
		u.First, u.ID = number, id
	}
}

func (u *unjoined) merge(o unjoined) {
	if o.Lines > 0 && (u.Lines == 0 || o.First < u.First) {
		u.First, u.ID = o.First, o.ID
	}
	u.Lines += o.Lines
	u.Rows += o.Rows
}

// load reads the rows of one shard whose places are decided.
func (j *job) load(kind shard.Kind, s shardRecords, p *placed) (c *contents, apart unjoined, err error) {
	terms := j.terms[kind]
	c = &contents{attributes: attribute.NewWriter(terms.Schema, len(p.rows))}
	rowOf, err := c.loadVectors(j.plan.Dim, p)
	if err != nil {
		return nil, apart, err
	}
	columns := lookup(terms.Schema, terms.Rows)
	err = eachOf(s.rows, partition.Want{Vector: true, Attributes: true}, func(position int, r *partition.Record) error {
		row, ok := rowOf[position]
		if !ok {
			return nil
		}
		if err := c.input.Vectors.Set(row, r.Vector); err != nil {
			return err
		}
		return c.set(row, columns, r.Attributes)
	})
	if err != nil || j.plan.Tower(kind).Lines == nil {
		return c, apart, err
	}
	lineOf := make(map[int]place, len(p.lines)) // by record
	for _, l := range p.lines {
		lineOf[l.record] = l
	}
	columns, joined := lookup(terms.Schema, terms.Lines), 0
	err = eachOf(s.lines, partition.Want{Attributes: true}, func(position int, r *partition.Record) error {
		l, ok := lineOf[position]
		if !ok {
			return nil
		}
		row, ok := slices.BinarySearch(c.ids, l.id)
		if !ok {
			apart.addLine(l.number, l.id)
			return nil
		}
		joined++
		return c.set(row, columns, r.Attributes)
	})
	apart.Rows = len(c.ids) - joined
	return c, apart, err
}

// loadVectors makes room for the rows, and returns their positions by those of their records.
func (c *contents) loadVectors(dim int, p *placed) (rowOf map[int]int, err error) {
	if c.input.Vectors, err = index.NewMatrix(dim, len(p.rows)); err != nil {
		return nil, err
	}
	rowOf = make(map[int]int, len(p.rows))
	for row, r := range p.rows {
		c.ids = append(c.ids, r.id)
		c.input.Keys = append(c.input.Keys, shard.Key(r.id))
		rowOf[r.record] = row
	}
	c.input.Vectors.Grow(len(p.rows))
	return rowOf, nil
}

// loadMean adds the vectors of one shard of users to a mean, in the order of their ids.
func (j *job) loadMean(s shardRecords, p *placed, mean *mean) error {
	c := &contents{}
	rowOf, err := c.loadVectors(j.plan.Dim, p)
	if err != nil {
		return err
	}
	err = eachOf(s.rows, partition.Want{Vector: true}, func(position int, r *partition.Record) error {
		if row, ok := rowOf[position]; ok {
			return c.input.Vectors.Set(row, r.Vector)
		}
		return nil
	})
	if err == nil {
		mean.add(c.input.Vectors)
	}
	return err
}

func (c *contents) set(row int, columns []int, values []attribute.Value) error {
	for i, v := range values {
		if v.Absent() {
			continue
		}
		if err := c.attributes.Set(row, columns[i], v); err != nil {
			return fmt.Errorf("id %q: %w: %w", c.ids[row], err, sections.ErrCorrupt)
		}
	}
	return nil
}
