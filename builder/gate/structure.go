package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/wording"
)

// structure proves what can be proved of each shard. That its checksums are right was
// proved when the snapshot was opened.
func (r *run) structure(ctx context.Context) error {
	if r.off(gates.Structure) {
		return nil
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		t := r.Candidate.Tower(kind)
		faults := make([]error, len(t.Local()))
		err := probe.Each(ctx, len(faults), func(i int) error {
			faults[i] = r.shard(kind, i)
			return nil
		})
		if err != nil {
			return err
		}
		all := errors.Join(faults...)
		text := fmt.Sprintf("%s: %s rows in %d shards: graphs, codes, vectors, ids and segments are as they must be", kind, wording.Count(t.Rows()), len(faults))
		n := 0
		if all != nil {
			lines := strings.Split(all.Error(), "\n") // errors.Join puts one on a line
			n = len(lines)
			text = fmt.Sprintf("%s: %s", kind, strings.Join(lines[:min(n, 5)], "; "))
			if n > 5 {
				text += fmt.Sprintf("; and %d more faults", n-5)
			}
		}
		r.AtMost(gates.Structure, fmt.Sprintf("faults of %s", kind), float64(n), 0, "%s", text)
	}
	return nil
}

// shard returns what is wrong with a shard. The text does not say where its file is,
// because a report must not depend on that.
func (r *run) shard(kind shard.Kind, number int) error {
	t, m := r.Candidate.Tower(kind), r.Candidate.Manifest()
	s := t.Local()[number]
	var all []error
	fault := func(format string, args ...any) {
		all = append(all, fmt.Errorf("shard %s: "+format, append([]any{s.Name()}, args...)...))
	}
	if err := s.Check(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fault("%s", strings.TrimPrefix(line, "check shard "+s.File().Path()+": "))
		}
	}
	x := s.Index()
	if x.Dim() != m.Dim || x.Metric() != m.Metric {
		fault("dim %d and metric %s, the manifest says %d and %s", x.Dim(), x.Metric(), m.Dim, m.Metric)
	}
	var vector []float32
	strangers, bad := 0, 0
	for ordinal := range uint32(s.Rows()) {
		// Ids ascend within a shard, so one that is where its hash says is nowhere else.
		id := s.ID(ordinal)
		if shard.Partition(id, len(t.Local())) != number {
			if strangers++; strangers == 1 {
				fault("%s belongs to another shard, and may be there too", r.name(kind, id))
			}
		}
		vector = x.Vector(ordinal, vector[:0])
		if err := x.Metric().CheckVector(vector); err != nil {
			if bad++; bad == 1 {
				fault("%s: %v", r.name(kind, id), err)
			}
		}
	}
	if strangers > 1 {
		fault("%s more ids belong to other shards", wording.Count(strangers-1))
	}
	if bad > 1 {
		fault("%s more vectors like that", wording.Count(bad-1))
	}
	return errors.Join(all...)
}

// name names a row of a tower by its id, if that may be in what is found.
func (r *run) name(kind shard.Kind, id string) string {
	if !r.names(kind) {
		return "a row"
	}
	return fmt.Sprintf("id %.80q", id)
}
