package builder

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/builder/tower/hnswexport"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/wording"
)

type (
	// Rejection is that of package partition.
	Rejection = partition.Rejection
	// Rejections are those of package partition.
	Rejections = partition.Rejections
	// RejectedError is that of package partition.
	RejectedError = partition.RejectedError
)

// found is what all tasks of each tower found.
type found map[shard.Kind]*partition.Summary

func newFound() found {
	return found{shard.Apps: partition.NewSummary(), shard.Users: partition.NewSummary()}
}

// queries returns the rows of the other tower that ask a tower.
func (f found) queries(kind shard.Kind, dim int) (partition.Queries, error) {
	from := shard.Users
	if kind == shard.Users {
		from = shard.Apps
	}
	return f[from].Sample.Split(dim)
}

// record is what is known of one shard: what was left out of it, and, once it is built, the
// file.
type record struct {
	Rows       int                  // that are left
	Rejections partition.Rejections // of repeated ids
	Apart      unjoined
	Shard      *manifest.Shard // nil until it is built
}

// setShard notes the file.
func (r *record) setShard(sm manifest.Shard, x *index.Index) {
	sm.Rows, sm.Effort = x.Rows(), x.Effort()
	r.Shard = &sm
}

// judged records how many rows there are and were rejected, and returns an error if too many
// were, or none is left. Shards need not be built.
func (j *job) judged(m *manifest.Manifest, f found, records []record) error {
	if met := f[shard.Users].Met; len(met) > 0 {
		m.Inputs = append(m.Inputs, forgottenInput(met))
		j.progress.Note(fmt.Sprintf("users: left out %s of the inputs", wording.Plural(len(met), "forgotten user")))
	}
	for i, r := range records {
		kind, _ := j.plan.Shard(i)
		f[kind].Rejections.Merge(&r.Rejections)
		m.Tower(kind).Rows += r.Rows
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		m.Tower(kind).Rejected, m.Tower(kind).Schema = f[kind].Rejections.Total, j.terms[kind].Schema
	}
	if err := j.rejected(&f[shard.Apps].Rejections, &f[shard.Users].Rejections); err != nil {
		return err
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if m.Tower(kind).Rows == 0 {
			return refused(noRows(kind, &f[kind].Rejections, m.Forgotten()))
		}
	}
	return nil
}

// noRows says why a tower has no row.
func noRows(kind shard.Kind, r *partition.Rejections, forgotten int64) error {
	text := "the input has none"
	if forgotten > 0 && kind == shard.Users {
		text = fmt.Sprintf("%s of the input are forgotten", wording.Plural(forgotten, "user"))
	}
	if r.Total > 0 {
		text = fmt.Sprintf("%d were rejected, the first as %s: %s", r.Total, r.Kinds[0].Kind, r.Kinds[0].First[0])
	}
	return fmt.Errorf("%s: no row is left to build from: %s", kind, text)
}

// rejections returns those of both towers.
func rejections(f found) map[shard.Kind]*Rejections {
	return map[shard.Kind]*Rejections{shard.Apps: &f[shard.Apps].Rejections, shard.Users: &f[shard.Users].Rejections}
}

// nameRuns records the training runs that towers say they are of.
func (j *job) nameRuns(list []manifest.Input) {
	for i := range list {
		switch list[i].Role {
		case string(shard.Apps):
			list[i].Run = j.plan.Apps.Survey.Run
		case string(shard.Users):
			list[i].Run = j.plan.Users.Survey.Run
		}
	}
}

// graphKeys returns the type of the keys of a tower's graph.
func (j *job) graphKeys(kind shard.Kind) hnswexport.KeyType {
	p := j.plan.Parameters.Apps
	if kind == shard.Users {
		p = j.plan.Parameters.Users
	}
	keys, _ := hnswexport.ParseKeyType(p.GraphKeys) // auto if it says nothing
	return keys
}

// leave returns what says whether a user is forgotten; nil if nobody is.
func (j *job) leave() func(string) bool {
	if f := j.terms[shard.Users].Forgotten; f.Len() > 0 {
		return f.Has
	}
	return nil
}

// finish completes the manifest once all shards are built, and measures them on held-out
// queries.
func (b *build) finish(ctx context.Context, m *manifest.Manifest, f found, records []record, mean *mean) (err error) {
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		tm, t := m.Tower(kind), b.plan.Tower(kind)
		params := b.job.params
		params.Frozen = len(t.Graph) > 0
		tm.Params = params.String()
		apart, scanned := &unjoined{}, &scans{}
		for number := range t.Shards {
			r := &records[b.plan.Index(kind, number)]
			tm.Shards = append(tm.Shards, *r.Shard)
			apart.merge(r.Apart)
			scanned.count(number, r.Shard.Rows, r.Shard.Effort)
		}
		if note := scanned.note(kind, t.Shards); note != "" {
			b.progress.Note(note)
		}
		if apart.Lines > 0 {
			b.progress.Note(fmt.Sprintf("%s: %d attribute lines are for ids that the tower does not have; they were left out, the first is %s (id %.64q)", kind, apart.Lines, t.Lines.Place(apart.First), apart.ID))
		}
		if apart.Rows > 0 {
			b.progress.Note(fmt.Sprintf("%s: %d of %d have no attribute line, and so none of those attributes", kind, apart.Rows, tm.Rows))
		}
	}
	if m.MeanUser, err = mean.vector(); err != nil {
		b.progress.Note(fmt.Sprintf("%s: the mean of their vectors cannot be asked with, so no query can fall back on it: %v", shard.Users, err))
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		queries, err := f.queries(kind, m.Dim)
		if err != nil {
			return err
		}
		tm, measure := m.Tower(kind), queries[manifest.Gate]
		tm.Samples = queries.Counts()
		b.progress.Stage(fmt.Sprintf("measure recall of %s", kind), int64(measure.Rows()))
		if tm.Recall, err = b.recall(ctx, kind, measure); err != nil {
			return fmt.Errorf("measure %s: %w", kind, err)
		}
		if kind == shard.Apps {
			if err := b.measureSegments(ctx, measure); err != nil {
				return fmt.Errorf("measure %s: %w", kind, err)
			}
		}
	}
	m.Version = m.LowestVersion()
	return nil
}
