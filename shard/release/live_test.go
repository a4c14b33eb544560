package release_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
)

// takeDown appends takedowns to the live log of a bucket, each in an entry of its own.
func takeDown(t *testing.T, bucket *objects.Bucket, apps ...string) shard.Position {
	t.Helper()
	r, err := live.Open(t.Context(), bucket, live.Options{})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	var receipt live.Receipt
	for _, app := range apps {
		receipt, err = r.Append(ctx, []live.Event{{Kind: live.Takedown, Tower: shard.Apps, Entity: app, Reason: "a test"}})
		require.NoError(t, err)
	}
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
	return receipt.Position
}

// publishAt publishes a snapshot whose inputs reflect a position.
func publishAt(t *testing.T, bucket *objects.Bucket, at shard.Position) manifest.Digest {
	empty := manifest.Tower{Shards: []manifest.Shard{{Digest: manifest.Sum([]byte("1")), Size: 1}}}
	m := &manifest.Manifest{
		Version: manifest.LiveVersion, Builder: "test", Model: "feed", ModelVersion: at.String(), Metric: index.Dot, Dim: 1, Apps: empty, Users: empty, Live: &at,
	}
	data, err := m.Encode()
	require.NoError(t, err)
	d := manifest.Sum(data)
	require.NoError(t, bucket.Write(t.Context(), "snapshots/"+string(d)+".json", data))
	return d
}

// A release says where the live log was, and no later one takes that back: not if the log is
// gone, nor if it cannot be read.
func TestReleasesKnowTheLiveLog(t *testing.T) {
	store := objectstest.NewFaults()
	bucket := store.Bucket("")
	defer func() { require.NoError(t, bucket.Close()) }()
	ctx := t.Context()
	r, d := newReleases(t, bucket, "1", "2")
	first, err := r.Start(ctx, release.StartOptions{Snapshot: d[0]})
	require.NoError(t, err)
	require.Nil(t, first.Live, "there is none")
	bound, err := r.LiveBound(ctx)
	require.NoError(t, err)
	require.Equal(t, release.LiveBound{}, bound)

	// A snapshot of another store says nothing of this one.
	publishAt(t, bucket, shard.Position{Sequence: 900})
	bound, err = r.LiveBound(ctx)
	require.NoError(t, err)
	require.Equal(t, release.LiveBound{}, bound)
	for _, key := range store.Keys("snapshots/") {
		if key != "snapshots/"+string(d[0])+".json" && key != "snapshots/"+string(d[1])+".json" {
			store.Remove(key)
		}
	}

	head := takeDown(t, bucket, "a", "b", "c")
	require.EqualValues(t, 3, head.Sequence)
	second, err := r.Start(ctx, release.StartOptions{Snapshot: d[1], Weight: 10})
	require.NoError(t, err)
	require.Equal(t, &head, second.Live)
	back, err := r.Current(ctx)
	require.NoError(t, err)
	require.Equal(t, second, back)
	bound, err = r.LiveBound(ctx)
	require.NoError(t, err)
	require.Equal(t, release.LiveBound{Position: head, By: "generation 2 of the releases"}, bound)

	// The log is not there any more, or an older copy, or cannot be read.
	entries := map[string][]byte{}
	for _, key := range store.Keys("live/") {
		entries[key], _ = store.Data(key)
		store.Remove(key)
	}
	third, err := r.Split(ctx, release.SplitOptions{Weights: map[string]int{"candidate": 20}})
	require.NoError(t, err)
	require.Equal(t, &head, third.Live)
	require.NoError(t, bucket.Write(ctx, "live/000000000001.log", entries["live/000000000001.log"]))
	fourth, err := r.Split(ctx, release.SplitOptions{Weights: map[string]int{"candidate": 30}})
	require.NoError(t, err)
	require.Equal(t, &head, fourth.Live)
	store.Inject(objectstest.Rule{Key: "live/", Err: objectstest.ErrDenied})
	fifth, err := r.Rollback(ctx, release.RollbackOptions{To: 3})
	require.NoError(t, err, "it does not wait for what it does not need")
	require.Equal(t, &head, fifth.Live)
	store.Heal()

	// What is damaged is passed over.
	newer := publishAt(t, bucket, shard.Position{Sequence: 7})
	require.NoError(t, bucket.Write(ctx, "snapshots/"+string(d[0])+".json", []byte("{")))
	bound, err = r.LiveBound(ctx)
	require.NoError(t, err)
	require.Equal(t, release.LiveBound{Position: shard.Position{Sequence: 7}, By: "the inputs of snapshot " + newer.Short()}, bound)
	store.Inject(objectstest.Rule{Key: "snapshots/", Op: objectstest.List, Err: objectstest.ErrDenied})
	_, err = r.LiveBound(ctx)
	require.ErrorContains(t, err, "positions of the live log")
}

// A reader of before the field ignores it, and one of now takes what is no position for
// damage.
func TestLiveOfReleases(t *testing.T) {
	bucket := folder(t)
	r, d := newReleases(t, bucket, "1")
	takeDown(t, bucket, "a")
	now, err := r.Start(t.Context(), release.StartOptions{Snapshot: d[0]})
	require.NoError(t, err)
	data, err := now.Encode()
	require.NoError(t, err)
	var entry map[string]any
	require.NoError(t, json.Unmarshal(data, &entry))
	assert.Equal(t, map[string]any{"sequence": 1.0}, entry["live"])
	entry["later"] = "what no reader knows yet"
	data, err = json.Marshal(entry)
	require.NoError(t, err)
	back, err := release.Decode(data)
	require.NoError(t, err)
	assert.Equal(t, now.Live, back.Live)
	entry["live"] = map[string]any{"log": string(make([]byte, 65)), "sequence": 1}
	data, err = json.Marshal(entry)
	require.NoError(t, err)
	_, err = release.Decode(data)
	require.ErrorContains(t, err, "live: live log")
}
