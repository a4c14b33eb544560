package upkeep_test

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/upkeep"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

// world is a store in memory with a clock of its own.
type world struct {
	faults *objectstest.Faults
	store  *snapshots.Store
	now    time.Time
	names  int
}

func newWorld(t require.TestingT, cache string) *world {
	w := &world{faults: objectstest.NewFaults(), now: time.Now().UTC().Truncate(time.Millisecond)}
	w.faults.SetClock(func() time.Time { return w.now })
	var err error
	w.store, err = snapshots.NewStore(w.faults.Bucket(""), snapshots.Options{Cache: cache})
	require.NoError(t, err)
	return w
}

func (w *world) bucket() *objects.Bucket { return w.store.Objects() }

// add appends events, each in an entry of its own.
func (w *world) add(t require.TestingT, ctx context.Context, events ...live.Event) {
	r, err := live.Open(ctx, w.bucket(), live.Options{})
	require.NoError(t, err)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- r.Run(running) }()
	for i := range events {
		_, err := r.Append(ctx, events[i:i+1])
		require.NoError(t, err)
	}
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// publish publishes a snapshot without a shard worth the name.
func (w *world) publish(t require.TestingT, ctx context.Context, version string, live *shard.Position) manifest.Digest {
	w.names++
	empty := manifest.Tower{Shards: []manifest.Shard{{Digest: manifest.Sum([]byte{1}), Size: 1}}}
	m := &manifest.Manifest{Builder: fmt.Sprint("test ", w.names), Model: "feed", ModelVersion: version, Metric: index.Dot, Dim: 1, Apps: empty, Users: empty, Live: live}
	m.Version = m.LowestVersion()
	data, err := m.Encode()
	require.NoError(t, err)
	d := manifest.Sum(data)
	require.NoError(t, w.bucket().Write(ctx, "snapshots/"+string(d)+".json", data))
	return d
}

func (w *world) state(t require.TestingT, ctx context.Context) *live.State {
	s, err := live.Read(ctx, w.bucket())
	require.NoError(t, err)
	return s
}

func (w *world) options() upkeep.LogOptions {
	return upkeep.LogOptions{Keep: time.Hour, PendingKeep: 30 * 24 * time.Hour, ForgetWithin: 7 * 24 * time.Hour, Now: w.now}
}

// seen is what of a state lies over a snapshot: of each app and user the vector that was
// upserted for its model version, the attributes that were set, and whether it was removed,
// if its inputs do not have that.
func seen(s *live.State, version string, inputs shard.Position) map[string]string {
	out := map[string]string{}
	for _, tower := range []shard.Kind{shard.Apps, shard.Users} {
		for id, r := range s.Records(tower) {
			name := fmt.Sprintf("%s %s ", tower, id)
			if r.Removed > 0 && !s.Covers(inputs, r.Removed) {
				out[name+"removed"] = fmt.Sprint(r.Removed)
			}
			if u := r.Upserted("feed", version); u != nil && !s.Covers(inputs, u.Sequence) {
				out[name+"upserted"] = fmt.Sprint(u.Sequence, u.Vector, u.Attributes)
			}
			for attribute, v := range r.Set {
				if !s.Covers(inputs, v.Sequence) {
					out[name+attribute] = fmt.Sprint(v)
				}
			}
		}
	}
	return out
}

// Whatever happens and whatever is settled, over each snapshot lies what lay over it before.
// What no snapshot needs is gone.
func TestSettles(t *testing.T) {
	cache := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		w := newWorld(rt, cache)
		defer w.store.Close()
		type snapshot struct {
			version string
			inputs  shard.Position
		}
		var published []snapshot
		versions := rapid.SampledFrom([]string{"1", "2", "3"})
		event := rapid.Custom(func(t *rapid.T) live.Event {
			e := live.Event{Tower: rapid.SampledFrom([]shard.Kind{shard.Apps, shard.Users}).Draw(t, "tower"), Entity: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")}
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0, 1:
				e.Kind, e.Model, e.ModelVersion = live.Upsert, "feed", versions.Draw(t, "version")
				e.Vector = []float32{float32(rapid.IntRange(1, 9).Draw(t, "vector"))}
			case 2:
				e.Kind, e.Attributes = live.SetAttributes, map[string]attribute.Value{"age": attribute.OfInt(int64(rapid.IntRange(0, 9).Draw(t, "age")))}
			case 3:
				e.Kind = live.Remove
			default:
				e.Kind, e.Tower, e.Reason = live.Takedown, shard.Apps, "a test"
			}
			return e
		})
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			w.add(rt, ctx, rapid.SliceOfN(event, 1, 6).Draw(rt, "events")...)
			head := w.state(rt, ctx).Position()
			for range rapid.IntRange(0, 2).Draw(rt, "snapshots") {
				s := snapshot{version: versions.Draw(rt, "version"), inputs: shard.Position{Log: head.Log, Sequence: rapid.Uint64Range(0, head.Sequence).Draw(rt, "inputs")}}
				// What was settled is in no snapshot that a build would still take.
				if upkeep.CheckInputs(ctx, w.bucket(), s.inputs, "feed", s.version) != nil {
					continue
				}
				published = append(published, s)
				w.publish(rt, ctx, s.version, &s.inputs)
			}
			before := w.state(rt, ctx)
			kept, err := upkeep.Log(ctx, w.store, before, w.options())
			require.NoError(rt, err)
			after := w.state(rt, ctx)
			for _, s := range published {
				require.Equal(rt, seen(before, s.version, s.inputs), seen(after, s.version, s.inputs), "%v", kept.Settled)
			}
			require.Equal(rt, maps.Collect(before.TakenDown().All()), maps.Collect(after.TakenDown().All()))
			again, err := upkeep.Log(ctx, w.store, after, w.options())
			require.NoError(rt, err)
			require.Empty(rt, again.Settled, "nothing is settled twice")
		}
	})
}

func upsert(tower shard.Kind, id, version string) live.Event {
	return live.Event{Kind: live.Upsert, Tower: tower, Entity: id, Model: "feed", ModelVersion: version, Vector: []float32{1}}
}

// What is settled is told, and inputs that would need it are refused from then on; a snapshot
// that says nothing of its inputs needs all.
func TestSettlesWhatAllReflect(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, t.TempDir())
	defer w.store.Close()
	w.add(t, ctx, upsert(shard.Apps, "a", "1"), upsert(shard.Apps, "b", "1"), upsert(shard.Apps, "c", "1"), upsert(shard.Apps, "a", "9"),
		live.Event{Kind: live.SetAttributes, Tower: shard.Apps, Entity: "a", Attributes: map[string]attribute.Value{"free": attribute.OfBool(true)}})
	silent := w.publish(t, ctx, "1", nil)
	w.publish(t, ctx, "1", &shard.Position{Sequence: 3})
	w.publish(t, ctx, "1", &shard.Position{Sequence: 2})
	w.publish(t, ctx, "2", &shard.Position{Sequence: 5})
	settled := func() []upkeep.Settled {
		o := w.options()
		o.DryRun = true
		would, err := upkeep.Log(ctx, w.store, w.state(t, ctx), o)
		require.NoError(t, err)
		kept, err := upkeep.Log(ctx, w.store, w.state(t, ctx), w.options())
		require.NoError(t, err)
		require.Equal(t, would.Settled, kept.Settled)
		return kept.Settled
	}
	require.Empty(t, settled())
	require.NoError(t, w.bucket().Delete(ctx, "snapshots/"+string(silent)+".json"))
	require.Equal(t, []upkeep.Settled{{Model: "feed", ModelVersion: "1", Through: 2, Records: 2}}, settled())
	require.NoError(t, upkeep.CheckInputs(ctx, w.bucket(), shard.Position{Sequence: 2}, "feed", "1"))
	require.NoError(t, upkeep.CheckInputs(ctx, w.bucket(), shard.Position{}, "feed", "2"))
	err := upkeep.CheckInputs(ctx, w.bucket(), shard.Position{Sequence: 1}, "feed", "1")
	require.ErrorAs(t, err, new(*upkeep.SettledError))
	require.EqualError(t, err, "the inputs reflect the live log up to 1, and upserts for model feed at 1 are no longer kept up to 2, which a collection has settled: what came between would be lost; accepted: inputs that reflect 2 or later")

	// No snapshot of version 9 has come.
	w.now = w.now.Add(31 * 24 * time.Hour)
	list := settled()
	require.Equal(t, []upkeep.Settled{{Model: "feed", ModelVersion: "9", Through: 4, Records: 1, Waited: true}}, list)
	require.Error(t, upkeep.CheckInputs(ctx, w.bucket(), shard.Position{}, "feed", "9"))

	// One that cannot be read may need anything.
	require.NoError(t, w.bucket().Write(ctx, "snapshots/"+string(manifest.Sum(nil))+".json", []byte("{}")))
	_, err = upkeep.Log(ctx, w.store, w.state(t, ctx), w.options())
	require.ErrorContains(t, err, "which events snapshots need is not known")
}

// A user who is forgotten is out of the log once a checkpoint that is later is old enough, and
// if that does not come about in time it is said.
func TestForgets(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, t.TempDir())
	defer w.store.Close()
	log := func() (*upkeep.LogKept, error) { return upkeep.Log(ctx, w.store, w.state(t, ctx), w.options()) }
	w.add(t, ctx, upsert(shard.Users, "u1", "1"), upsert(shard.Users, "u2", "1"))
	kept, err := log()
	require.NoError(t, err)
	require.Equal(t, &upkeep.LogKept{Settled: []upkeep.Settled{}, Checkpoint: 2}, kept)
	w.add(t, ctx, upsert(shard.Users, "u3", "1"))
	kept, err = log()
	require.NoError(t, err)
	require.Zero(t, kept.Checkpoint, "the last is young")

	w.add(t, ctx, live.Event{Kind: live.Forget, Tower: shard.Users, Entity: "u1"})
	forgotten := w.state(t, ctx).Time()
	kept, err = log()
	require.NoError(t, err)
	require.Equal(t, upkeep.Forgetting{Users: 1, Pending: 1, Since: forgotten, Entries: 3, Checkpoints: 1}, kept.Forgetting)
	require.EqualValues(t, 4, kept.Checkpoint, "it has nothing of the user")

	// Nothing is deleted before the checkpoint is old.
	w.now = w.now.Add(59 * time.Minute)
	kept, err = log()
	require.NoError(t, err)
	require.Zero(t, kept.Entries)
	w.now = w.now.Add(2 * time.Minute)
	left, err := upkeep.ReadForgetting(ctx, w.bucket(), w.state(t, ctx))
	require.NoError(t, err)
	require.Equal(t, 1, left.Pending)
	kept, err = log()
	require.NoError(t, err)
	require.Equal(t, &upkeep.LogKept{Settled: []upkeep.Settled{}, Entries: 3, Checkpoints: 1, Forgetting: upkeep.Forgetting{Users: 1}}, kept)

	// Late: nobody has collected for a week.
	w.add(t, ctx, upsert(shard.Users, "u4", "1"), live.Event{Kind: live.Forget, Tower: shard.Users, Entity: "u4"})
	o := w.options()
	o.Now = w.state(t, ctx).Time().Add(8 * 24 * time.Hour)
	kept, err = upkeep.Log(ctx, w.store, w.state(t, ctx), o)
	late := (*upkeep.LateError)(nil)
	require.ErrorAs(t, err, &late)
	require.Equal(t, 1, late.Pending)
	require.ErrorContains(t, err, "forgetting is late: 2 entries and 1 checkpoints of the live log may have something of 1 users who were forgotten")
	require.EqualValues(t, 6, kept.Checkpoint, "and it is done about")
}

// Requests that fail, wherever they do, leave a log that the next collection goes on with.
func TestLogFails(t *testing.T) {
	ctx := t.Context()
	cache := t.TempDir()
	for fails := 1; ; fails++ {
		w := newWorld(t, cache)
		w.add(t, ctx, upsert(shard.Apps, "a", "1"), upsert(shard.Users, "u", "1"), live.Event{Kind: live.Forget, Tower: shard.Users, Entity: "u"})
		w.publish(t, ctx, "1", &shard.Position{Sequence: 2})
		before := w.state(t, ctx)
		w.faults.Inject(objectstest.Rule{Skip: fails - 1, Err: objectstest.ErrDenied})
		_, err := upkeep.Log(ctx, w.store, before, w.options())
		w.faults.Heal()
		now := w.state(t, ctx)
		require.Equal(t, seen(before, "1", shard.Position{Sequence: 2}), seen(now, "1", shard.Position{Sequence: 2}))
		_, again := upkeep.Log(ctx, w.store, now, w.options())
		require.NoError(t, again)
		require.Nil(t, w.state(t, ctx).Record(shard.Apps, "a"), "it is settled")
		require.NoError(t, w.store.Close())
		if err == nil {
			require.Greater(t, fails, 10)
			return
		}
	}
}

func TestBrokenMark(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, t.TempDir())
	defer w.store.Close()
	w.add(t, ctx, upsert(shard.Apps, "a", "1"))
	w.publish(t, ctx, "1", &shard.Position{Sequence: 1})
	_, err := upkeep.Log(ctx, w.store, w.state(t, ctx), w.options())
	require.NoError(t, err)
	marks := w.faults.Keys("live/settled/")
	require.Len(t, marks, 1)
	require.NoError(t, w.bucket().Write(ctx, marks[0], []byte("{")))
	err = upkeep.CheckInputs(ctx, w.bucket(), shard.Position{}, "feed", "1")
	require.ErrorContains(t, err, "read what was settled of the live log, "+marks[0])
	assert.Greater(t, time.Hour, appendlog.LeastAge)
}

// A snapshot that is published while a collection is about to settle what it needs keeps that.
func TestSettlesNothingOfWhatIsPublishedMeanwhile(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, t.TempDir())
	defer w.store.Close()
	upsert := func(version string) live.Event {
		return live.Event{Kind: live.Upsert, Tower: shard.Apps, Entity: "a", Model: "feed", ModelVersion: version, Vector: []float32{1}}
	}
	set := live.Event{Kind: live.SetAttributes, Tower: shard.Apps, Entity: "b", Attributes: map[string]attribute.Value{"age": attribute.OfInt(3)}}
	w.add(t, ctx, upsert("1"), upsert("2"), set)
	head := w.state(t, ctx).Position().Shard()
	for _, version := range []string{"1", "2"} {
		w.publish(t, ctx, version, &head)
	}
	once := false
	w.faults.Inject(objectstest.Rule{Op: objectstest.Write, Key: "live/settled/", Do: func(objectstest.Request) {
		if !once {
			once = true
			w.publish(t, ctx, "1", &shard.Position{})
		}
	}})
	before := seen(w.state(t, ctx), "1", shard.Position{})
	done, err := upkeep.Log(ctx, w.store, w.state(t, ctx), w.options())
	require.NoError(t, err)
	require.True(t, once)
	assert.Equal(t, []upkeep.Settled{{Model: "feed", ModelVersion: "2", Through: 3, Records: 1}}, done.Settled)
	assert.Equal(t, before, seen(w.state(t, ctx), "1", shard.Position{}))

	err = upkeep.CheckInputs(ctx, w.bucket(), shard.Position{}, "feed", "1")
	require.ErrorAs(t, err, new(*upkeep.SettledError), "a build that looks again notices it")
}
