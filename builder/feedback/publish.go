package feedback

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
)

// last returns the set that the day has, nil for none.
func (j *join) last(ctx context.Context) (*joined.Set, error) {
	s, err := joined.Read(ctx, j.bucket, j.day)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, nil
	}
	return s, err
}

// there returns the sizes of the objects of the day, by their names.
func (j *join) there(ctx context.Context) (map[string]int64, error) {
	folder := joined.Prefix + j.day + "/"
	sizes := map[string]int64{}
	for o, err := range j.bucket.List(ctx, folder) {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", folder, err)
		}
		sizes[strings.TrimPrefix(o.Key, folder)] = o.Size
	}
	return sizes, nil
}

// same reports whether a set was made of what there is, in the way that is wanted, and is whole.
func (j *join) same(ctx context.Context, s *joined.Set, queries, acts *input) (bool, error) {
	q, a := queries.summary(), acts.summary()
	if s.Joiner != joiner || s.Window != j.Window || s.Late != j.Late || s.Negatives != j.Negatives || s.Queries.Digest != q.Digest || s.Outcomes.Digest != a.Digest ||
		!j.SkipDamaged && len(s.Queries.Damaged)+len(s.Outcomes.Damaged) > 0 {
		return false, nil
	}
	sizes, err := j.there(ctx)
	return err == nil && whole(s, sizes), err
}

// whole reports whether all is there that a set names, and nothing that it does not.
func whole(s *joined.Set, sizes map[string]int64) bool {
	n := 2
	for _, p := range s.Parts {
		if sizes[p.Name] != p.Size {
			return false
		}
		n++
	}
	_, listed := sizes[s.Inputs]
	for name := range sizes {
		if name != joined.SetName && !joined.IsOfSet(name) {
			n++ // it is somebody else's
		}
	}
	return listed && n == len(sizes)
}

// parts writes rows in parts.
type parts struct {
	*join
	last *joined.Set

	rows  []joined.Row
	bytes int
	list  []joined.Part
	sizes map[string]int64 // of objects that are there; nil before they are listed
}

// add adds the rows of an answer, which stay in one part.
func (p *parts) add(ctx context.Context, rows []joined.Row) error {
	for i := range rows {
		p.bytes += rows[i].Size()
	}
	p.rows = append(p.rows, rows...)
	if p.bytes >= p.PartBytes {
		return p.end(ctx)
	}
	return nil
}

// end writes the part that has begun.
func (p *parts) end(ctx context.Context) error {
	if len(p.rows) == 0 {
		return nil
	}
	data, err := joined.Encode(p.rows)
	if err != nil {
		return err
	}
	part := joined.Part{
		Name: joined.PartName(len(p.list), data),
		Rows: int64(len(p.rows)), Size: int64(len(data)),
	}
	if err := p.write(ctx, part.Name, data); err != nil {
		return err
	}
	p.list = append(p.list, part)
	p.rows, p.bytes = p.rows[:0], 0
	return nil
}

// write writes an object whose name says what is in it, unless it is there.
func (p *parts) write(ctx context.Context, name string, data []byte) (err error) {
	if p.sizes == nil {
		if p.sizes, err = p.there(ctx); err != nil {
			return err
		}
	}
	if size, there := p.sizes[name]; there && size == int64(len(data)) {
		return nil
	}
	return p.bucket.Write(ctx, joined.Prefix+p.day+"/"+name, data)
}

// publish has the parts be the set of the day, and deletes the others.
func (p *parts) publish(ctx context.Context, queries, acts *input) (*Joined, error) {
	inputs := names(queries, acts)
	s := &joined.Set{
		Day: p.day, Generation: 1, Written: p.Now.UTC(), Joiner: joiner, Window: p.Window, Late: p.Late, Negatives: p.Negatives,
		Queries: queries.summary(), Outcomes: acts.summary(), Inputs: "inputs-" + joined.Digest(inputs) + ".txt",
		Parts: p.list, Counts: p.counts,
	}
	changed := true
	if p.last != nil {
		changed = !slices.Equal(p.last.Parts, s.Parts)
		if s.Generation = p.last.Generation; changed {
			s.Generation++
		}
	}
	if err := p.write(ctx, s.Inputs, inputs); err != nil {
		return nil, err
	}
	data, err := joined.EncodeSet(s)
	if err != nil {
		return nil, err
	}
	if err := p.bucket.Write(ctx, joined.SetKey(p.day), data); err != nil {
		return nil, err
	}
	return &Joined{Set: s, Fresh: true, Changed: changed}, p.tidy(ctx, s)
}

// tidy deletes what a set that was just written does not name, and makes sure that it is whole:
// another join of the day may have taken its parts for left ones.
func (p *parts) tidy(ctx context.Context, s *joined.Set) error {
	sizes, err := p.there(ctx)
	if err != nil {
		return err
	}
	keep := map[string]bool{s.Inputs: true}
	for _, part := range s.Parts {
		keep[part.Name] = true
	}
	for name := range sizes {
		if keep[name] || !joined.IsOfSet(name) {
			continue
		}
		if err := p.ours(ctx, s); err != nil {
			return err
		}
		if err := p.bucket.Delete(ctx, joined.Prefix+p.day+"/"+name); err != nil && !errors.Is(err, objects.ErrNotFound) {
			return err
		}
	}
	if sizes, err = p.there(ctx); err != nil {
		return err
	}
	for _, part := range s.Parts {
		if sizes[part.Name] != part.Size {
			return fmt.Errorf("%w: the part %s is not there: another join of the day ran beside this one; join it again", joined.ErrChanged, part.Name)
		}
	}
	return nil
}

// ours returns an error unless the set of the day is one.
func (p *parts) ours(ctx context.Context, s *joined.Set) error {
	now, err := joined.Read(ctx, p.bucket, p.day)
	if err != nil {
		return err
	}
	if !now.Written.Equal(s.Written) || now.Queries.Digest != s.Queries.Digest || now.Outcomes.Digest != s.Outcomes.Digest {
		return fmt.Errorf("%w: another join of the day ran beside this one; join it again", joined.ErrChanged)
	}
	return nil
}
