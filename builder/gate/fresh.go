package gate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// NoLiveLog is why the gate fresh did not run where nobody upserts.
const NoLiveLog = "the store has no live log"

// mostMissing is how many of the apps that are missing a text names.
const mostMissing = 10

// CheckFresh runs the gate fresh. The apps that were upserted before the inputs of a snapshot
// were extracted are laid over what serves now, and over the candidate they will not be, as
// its inputs are said to have them; so one that the inputs lack would vanish when it is
// released. previous is what serves now, nil if nothing does: what was in the live log before
// its inputs were extracted is not laid over it either. What was taken down or removed since,
// or has a window that has ended, is not missed.
//
// What it finds depends on what the live log has by now, so it is no part of a manifest. The
// state is read and not changed.
func CheckFresh(candidate *snapshots.Snapshot, previous *manifest.Manifest, t gates.Thresholds, log *live.State, now time.Time) (f gates.Findings, err error) {
	defer sections.Guard(&err)()
	m := candidate.Manifest()
	switch {
	case t.Off[gates.Fresh]:
		return f, nil
	case log == nil || log.Position().Shard() == shard.Position{}:
		f.NotRun(gates.Fresh, "", NoLiveLog)
		return f, nil
	case m.Live == nil || m.Live.Sequence == 0:
		f.NotRun(gates.Fresh, "", "the build was not told which position of the live log its inputs reflect, so all of it is laid over the snapshot")
		return f, nil
	}
	r := freshness{log: log, manifest: m, down: log.TakenDown(), now: now}
	if previous != nil && previous.Model == m.Model && previous.Live != nil {
		r.before = *previous.Live
	}
	has := probe.Has(candidate.Tower(shard.Apps))
	fresh := 0
	var missing []string
	for id, record := range log.Records(shard.Apps) {
		if !r.expected(id, record) {
			continue
		}
		if fresh++; !has(id) {
			missing = append(missing, id)
		}
	}
	if fresh == 0 {
		f.NotRun(gates.Fresh, "", "no app was upserted for model %.80s up to the live position %s, behind the one of the previous snapshot", m.Model, m.Live)
		return f, nil
	}
	share, limit := float64(len(missing))/float64(fresh), t.Fresh.Missing
	text := fmt.Sprintf("all %s that were upserted up to the live position %s are in the snapshot", wording.Plural(fresh, "app"), m.Live)
	if len(missing) > 0 {
		slices.Sort(missing)
		text = fmt.Sprintf("%s of %s that were upserted up to the live position %s (%s) are not in the snapshot, and would be gone once it serves; at most %s are accepted: %s",
			wording.Count(len(missing)), wording.Plural(fresh, "app"), m.Live, gates.Percent(share), gates.Percent(limit), named(missing))
	}
	f.AtMost(gates.Fresh, "apps missing", share, limit, "%s", text)
	return f, nil
}

// named lists the first of some ids.
func named(ids []string) string {
	list := make([]string, min(len(ids), mostMissing))
	for i := range list {
		list[i] = fmt.Sprintf("%.80s", ids[i])
	}
	text := strings.Join(list, ", ")
	if more := len(ids) - len(list); more > 0 {
		text += fmt.Sprintf(" and %s more", wording.Count(more))
	}
	return text
}

// freshness says which apps a snapshot must have since they were upserted.
type freshness struct {
	log      *live.State
	manifest *manifest.Manifest // of the candidate, with a position
	before   shard.Position     // that the inputs of what serves now reflect
	down     live.TakenDown
	now      time.Time
}

// expected reports whether an app was upserted before the candidate's inputs and behind
// those of what serves, is to be returned by now, and is not laid over the candidate anyway.
func (r *freshness) expected(id string, record *live.Record) bool {
	if r.down.Has(id) || !record.Window.Until.IsZero() && !r.now.Before(record.Window.Until) {
		return false
	}
	expected := false
	for _, u := range record.Upserts {
		switch in := r.log.Covers(*r.manifest.Live, u.Sequence); {
		case u.Model != r.manifest.Model || u.Sequence < record.Removed:
		case !in && u.ModelVersion == r.manifest.ModelVersion:
			return false
		case in && !r.log.Covers(r.before, u.Sequence):
			expected = true
		}
	}
	return expected
}
