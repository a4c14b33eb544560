package live

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// Want of room keeps back what needs it, and nothing else.
func TestWhatNeedsNoRoom(t *testing.T) {
	r, _ := start(t, folder(t, t.TempDir()), Options{Room: Room{Rows: 1}})
	appendTo(t, r, upsert(shard.Apps, "a", "1", 1))
	up, down := upsert(shard.Apps, "b", "1", 1), takedown("x")
	events := []Event{
		up, down, setTo(shard.Apps, "b", "n", attribute.OfInt(1)), setTo(shard.Apps, "c", "n", attribute.OfInt(1)),
		upsert(shard.Apps, "d", "1", 1), remove(shard.Apps, "d"), up,
	}
	for range 2 { // written again it is the same
		_, err := r.Append(t.Context(), events)
		var partial *PartialError
		require.ErrorAs(t, err, &partial)
		require.ErrorIs(t, err, ErrFull)
		assert.Equal(t, []int{0, 2, 6}, partial.Missing)
		assert.Equal(t, position(2), partial.Receipt.Position)
		assert.ErrorContains(t, err, "not written of the 7 events: 0, 2, 6, counted from 0; all others are in the log, up to entry 2")
	}
	assert.True(t, r.View().Down.Has("x"))
	assert.NotNil(t, r.state.Record(shard.Apps, "c"))
	assert.Nil(t, r.state.Record(shard.Apps, "b"))
	appendTo(t, r, remove(shard.Apps, "a"))
	assert.Equal(t, 5, appendTo(t, r, events...).Repeated)
	assert.NotNil(t, r.state.Record(shard.Apps, "b"))
	assert.Equal(t, "0, 2 to 4, 7", ranges([]int{0, 2, 3, 4, 7}))
	assert.Equal(t, "0, 2, 4, 6, 8, 10, 12, 14, and 2 more", ranges([]int{0, 2, 4, 6, 8, 10, 12, 14, 16, 18}))
}

// What is kept back for want of room, and appended again with all else once there is room,
// amounts to the same as if there had been room at first; what needs none counts at once.
func TestKeptBackAndAppendedAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, most int) []Event {
			list := rapid.SliceOfN(rapid.Custom(drawEvent), 1, most).Draw(t, name)
			list = slices.DeleteFunc(list, func(e Event) bool { return e.Kind == Settle })
			for i := range list {
				list[i].ID = newEventID()
			}
			return append(list, takedown("last"))
		}
		before, events := draw("before", 6), draw("events", 8)
		small := Room{Rows: rapid.IntRange(1, 3).Draw(t, "rows"), Bytes: int64(rapid.SampledFrom([]int{700, 1500, 1 << 20}).Draw(t, "bytes"))}
		full, whole := memoryOf(t), memoryOf(t)
		for _, in := range []*objects.Bucket{full, whole} {
			require.NoError(t, appended(in, Options{}, before))
		}
		err := appended(full, Options{Room: small}, events)
		state, readErr := Read(context.Background(), full)
		require.NoError(t, readErr)
		require.True(t, state.TakenDown().Has("last"))
		if err != nil {
			var partial *PartialError
			require.ErrorAs(t, err, &partial)
			require.ErrorIs(t, err, ErrFull)
			for _, i := range partial.Missing {
				require.Contains(t, []Kind{Upsert, SetAttributes}, events[i].Kind)
			}
		}
		require.NoError(t, appended(full, Options{}, events))
		require.NoError(t, appended(whole, Options{}, events))
		state, readErr = Read(context.Background(), full)
		require.NoError(t, readErr)
		want, readErr := Read(context.Background(), whole)
		require.NoError(t, readErr)
		require.Equal(t, unplaced(want), unplaced(state))
	})
}

func memoryOf(t *rapid.T) *objects.Bucket {
	return objectstest.NewFaults().Bucket("")
}

// appended appends events as a process of its own.
func appended(in *objects.Bucket, o Options, events []Event) error {
	r, err := Open(context.Background(), in, o)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx)
	}()
	defer func() { stop(); <-done }()
	_, err = r.Append(ctx, events)
	return err
}

// unplaced is what a state says of all ids, wherever in the log it has that from.
func unplaced(s *State) []string {
	var list []string
	for id := range s.TakenDown().All() {
		list = append(list, "down "+id)
	}
	for _, tower := range []shard.Kind{shard.Apps, shard.Users} {
		for id, r := range s.Records(tower) {
			text := fmt.Sprint(tower, " ", id, " ", r.Removed > 0, " ", r.Window)
			for _, name := range slices.Sorted(maps.Keys(r.Set)) {
				text += fmt.Sprint(" ", name, "=", r.Set[name].Value)
			}
			for _, u := range r.Upserts {
				text += fmt.Sprint(" ", u.ModelVersion, u.Vector, u.Attributes)
			}
			list = append(list, text)
		}
	}
	slices.Sort(list)
	return append(list, fmt.Sprint(s.Forgotten().Len()))
}

// On a full disk the reserve is there for takedowns, and goes step by step; upserts and
// checkpoints do not take it. It is made again as soon as there is room.
func TestFullDisk(t *testing.T) {
	disk := objectstest.SmallDisk(t, 8<<20, 400)
	dir := filepath.Join(disk, "store")
	require.NoError(t, os.Mkdir(dir, 0o755))
	bucket := folder(t, dir)
	r, _ := start(t, bucket, Options{})
	reserve := func() (bytes int64) {
		r.committing.Lock() // it is kept once an append has ended
		defer r.committing.Unlock()
		files, err := filepath.Glob(filepath.Join(dir, ".reserve", "*"))
		require.NoError(t, err)
		for _, path := range files {
			info, err := os.Stat(path)
			require.NoError(t, err)
			bytes += info.Size()
		}
		return bytes
	}
	filling := filepath.Join(disk, "filling")
	fill := func() {
		f, err := os.OpenFile(filling, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		require.NoError(t, err)
		_, err = io.Copy(f, rand.Reader)
		require.ErrorIs(t, err, unix.ENOSPC)
		require.NoError(t, f.Close())
	}
	appendTo(t, r, upsert(shard.Apps, "first", "1", 1))
	assert.EqualValues(t, 1<<20, reserve(), "who writes makes it")
	fill()
	_, err := r.Append(t.Context(), []Event{upsert(shard.Apps, "a", "1", 1)})
	require.True(t, errors.Is(err, ErrUnconfirmed) && objects.IsFull(err), "%v", err)
	_, err = r.Checkpoint(t.Context())
	require.True(t, objects.IsFull(err), "%v", err)
	assert.EqualValues(t, 1<<20, reserve())
	for i := range 40 {
		appendTo(t, r, takedown(fmt.Sprint(i)))
		if i%10 == 0 {
			fill()
		}
	}
	// What is filled up again takes what is left of a step, five times at most.
	assert.Greater(t, reserve(), int64(256<<10), "in small steps")
	appendTo(t, r, restore("1"), forget("somebody"))
	up := upsert(shard.Apps, "b", "1", 1)
	fill()
	_, err = r.Append(t.Context(), []Event{up, takedown("x")})
	var partial *PartialError
	require.ErrorAs(t, err, &partial)
	require.ErrorIs(t, err, ErrUnconfirmed)
	assert.Equal(t, []int{0}, partial.Missing)
	assert.True(t, r.View().Down.Has("x"))

	require.NoError(t, os.Remove(filling))
	appendTo(t, r, up)
	assert.EqualValues(t, 1<<20, reserve(), "it is kept again")
}
