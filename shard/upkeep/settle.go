package upkeep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Settled is what nothing needs any more of a live log.
type Settled struct {
	// Model and ModelVersion are those of which upserts were settled; empty where attributes
	// that were set and removals were.
	Model        string `json:"model,omitempty"`
	ModelVersion string `json:"model_version,omitempty"`
	// Through is the last entry of which they are.
	Through uint64 `json:"through"`
	// Records is of how many apps and users.
	Records int `json:"records"`
	// Waited says that no snapshot of the model version has come.
	Waited bool `json:"waited,omitempty"`
}

// event returns the event that settles it.
func (s *Settled) event() live.Event {
	return live.Event{Kind: live.Settle, Model: s.Model, ModelVersion: s.ModelVersion, Through: s.Through}
}

// modelVersion names the towers that an upsert is for.
type modelVersion struct{ model, version string }

// reflected is up to which entry of a log the inputs of all snapshots reflect it, by model
// version; every is that of all of them.
type reflected struct {
	versions map[modelVersion]uint64
	every    uint64
	none     bool // there is no snapshot
}

// readReflected reads the manifests of all snapshots of a store.
func readReflected(ctx context.Context, store *snapshots.Store, log *live.State) (*reflected, error) {
	list, err := store.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	r := &reflected{versions: map[modelVersion]uint64{}, none: true}
	for _, p := range list {
		m, err := store.Manifest(ctx, p.Digest)
		if errors.Is(err, snapshots.ErrNoSnapshot) {
			continue // collected meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("which events snapshots need is not known: %w", err)
		}
		r.add(m, log)
	}
	return r, nil
}

// add takes a snapshot into account.
func (r *reflected) add(m *manifest.Manifest, log *live.State) {
	through := uint64(0) // of inputs of which nobody has said anything
	if m.Live != nil {
		common, _ := log.Lineage().Common(m.Live.Log)
		through = min(m.Live.Sequence, common, log.Position().Sequence)
	}
	v := modelVersion{m.Model, m.ModelVersion}
	if before, known := r.versions[v]; known {
		r.versions[v] = min(through, before)
	} else {
		r.versions[v] = through
	}
	if r.none {
		r.every = through
	}
	r.every, r.none = min(r.every, through), false
}

// need reports whether there is a snapshot that needs some of what would be settled.
func (r *reflected) need(s *Settled) bool {
	if s.Model == "" {
		return r.none || r.every < s.Through
	}
	through, known := r.versions[modelVersion{s.Model, s.ModelVersion}]
	return known && through < s.Through
}

// settle returns what nothing needs of a log: what the inputs of all snapshots reflect, and
// what was upserted before a time for model versions of which there is none.
func settle(log *live.State, r *reflected, before time.Time) []Settled {
	type found struct {
		records int
		newest  uint64
		last    time.Time
	}
	upserts := map[modelVersion]*found{}
	rest := Settled{Through: r.every}
	for _, tower := range []shard.Kind{shard.Apps, shard.Users} {
		for _, record := range log.Records(tower) {
			for _, u := range record.Upserts {
				v := modelVersion{u.Model, u.ModelVersion}
				f := upserts[v]
				if f == nil {
					f = &found{}
					upserts[v] = f
				}
				if through, known := r.versions[v]; !known || u.Sequence <= through {
					f.records++
				}
				f.newest = max(f.newest, u.Sequence)
				if u.Time.After(f.last) {
					f.last = u.Time
				}
			}
			if settles(record, r.every) {
				rest.Records++
			}
		}
	}
	var list []Settled
	for v, f := range upserts {
		s := Settled{Model: v.model, ModelVersion: v.version, Records: f.records}
		through, known := r.versions[v]
		if s.Through = through; !known {
			if !f.last.Before(before) {
				continue // its snapshot may yet come
			}
			s.Through, s.Waited = f.newest, true
		}
		if s.Records > 0 {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b Settled) int {
		return cmp.Or(cmp.Compare(a.Model, b.Model), cmp.Compare(a.ModelVersion, b.ModelVersion))
	})
	if rest.Records > 0 {
		list = append(list, rest)
	}
	return list
}

// settles reports whether something was set or removed in a record up to an entry.
func settles(r *live.Record, through uint64) bool {
	if r.Removed > 0 && r.Removed <= through {
		return true
	}
	for _, v := range r.Set {
		if v.Sequence <= through {
			return true
		}
	}
	return false
}
