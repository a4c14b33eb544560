package overlay

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/overlay"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// freshPrefix begins the ids of fresh apps, which no app of a snapshot has.
const freshPrefix = "bench-fresh-"

// noise is how far from an app a fresh one is that was drawn by it, as a part of its norm.
const noise = 0.05

// takedownBatch is how many takedowns are written at a time.
const takedownBatch = 1000

// changes writes events to a live log, and lays them over a snapshot.
type changes struct {
	options Options
	apps    *shard.Tower
	model   *manifest.Manifest
	random  *rand.Rand
	replica *live.Replica
	applier *overlay.Applier
	failed  error // of the last event
}

// lay returns the towers of all sides, and what lies over the last one.
func lay(ctx context.Context, s *snapshots.Snapshot, o Options) (t towers, status overlay.TowerStatus, err error) {
	dir, err := os.MkdirTemp("", "tandem-bench-overlay-")
	if err != nil {
		return t, status, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bucket, err := objects.Open(ctx, dir)
	if err != nil {
		return t, status, err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	c := &changes{options: o, apps: s.Tower(shard.Apps), model: s.Manifest(), random: rand.New(rand.NewPCG(o.Seed, 1))}
	c.replica, err = live.Open(ctx, bucket, live.Options{Poll: time.Hour, Apply: func(s *live.State, list []live.Change) {
		c.failed = errors.Join(c.failed, c.applier.Apply(s, list))
	}})
	if err != nil {
		return t, status, err
	}
	snapshot := overlay.Snapshot{Apps: c.apps, Users: s.Tower(shard.Users), Model: c.model.Model, ModelVersion: c.model.ModelVersion}
	c.replica.Read(func(state *live.State) { c.applier, err = overlay.New(ctx, snapshot, state) })
	if err != nil {
		return t, status, err
	}
	defer c.follow(ctx)()
	t[0], t[1] = c.apps, c.applier.Now().Apps
	o.Progress(fmt.Sprintf("take down %d apps", o.Takedowns))
	if err := c.takeDown(ctx); err != nil {
		return t, status, err
	}
	t[2] = c.applier.Now().Apps
	o.Progress(fmt.Sprintf("upsert %d apps", o.Fresh))
	if err := c.upsert(ctx); err != nil {
		return t, status, err
	}
	now := c.applier.Now()
	t[3] = now.Apps
	return t, now.Status.Apps, nil
}

// follow runs the replica until the function that it returns is called.
func (c *changes) follow(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.replica.Run(ctx) // it ends with ctx
	}()
	return func() {
		cancel()
		<-done
	}
}

// draw returns a row of the snapshot.
func (c *changes) draw() (s *shard.Shard, ordinal uint32) {
	row := c.random.IntN(c.apps.Rows())
	for _, s = range c.apps.Local() {
		if row < s.Rows() {
			break
		}
		row -= s.Rows()
	}
	return s, uint32(row)
}

// takeDown takes apps down, each once.
func (c *changes) takeDown(ctx context.Context) error {
	ids := map[string]bool{}
	var events []live.Event
	for len(events) < c.options.Takedowns {
		s, ordinal := c.draw()
		id := s.ID(ordinal)
		if ids[id] {
			continue
		}
		ids[id] = true
		events = append(events, live.Event{Kind: live.Takedown, Tower: shard.Apps, Entity: id, Reason: "a measurement"})
	}
	return c.write(ctx, events, takedownBatch)
}

// upsert writes fresh apps.
func (c *changes) upsert(ctx context.Context) error {
	schema := c.apps.Schema()
	var events []live.Event
	for i := range c.options.Fresh {
		s, ordinal := c.draw()
		attributes := map[string]attribute.Value{}
		for field := range schema.Len() {
			if v := s.Attributes().Value(ordinal, field); !v.Absent() {
				attributes[schema.Field(field).Name] = v
			}
		}
		events = append(events, live.Event{
			Kind: live.Upsert, Tower: shard.Apps, Entity: fmt.Sprintf("%s%08d", freshPrefix, i),
			Model: c.model.Model, ModelVersion: c.model.ModelVersion,
			Vector: c.near(s.Index().Vector(ordinal, nil)), Attributes: attributes,
		})
	}
	return c.write(ctx, events, c.options.Batch)
}

// near adds noise to a vector.
func (c *changes) near(v []float32) []float32 {
	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	deviation := noise * math.Sqrt(square/float64(len(v)))
	for i := range v {
		v[i] += float32(deviation * c.random.NormFloat64())
	}
	return v
}

// write writes events, so many at a time, and lays them over the snapshot.
func (c *changes) write(ctx context.Context, events []live.Event, batch int) error {
	for part := range slices.Chunk(events, batch) {
		if _, err := c.replica.Append(ctx, part); err != nil {
			return err
		}
		if c.failed != nil {
			return c.failed
		}
	}
	return nil
}
