package builder_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// ballast takes what is free of a disk but for some bytes. It returns what takes it away.
func ballast(t *testing.T, disk string, free int) func() {
	t.Helper()
	path := filepath.Join(disk, ".ballast")
	f, err := os.Create(path)
	require.NoError(t, err)
	const page = 4096 // what tmpfs gives room in
	for err == nil {
		_, err = f.Write(make([]byte, page))
	}
	require.True(t, objects.IsFull(err), "%v", err)
	info, err := f.Stat()
	require.NoError(t, err)
	require.Greater(t, info.Size(), int64(free))
	require.NoError(t, f.Truncate(info.Size()-int64(free)))
	require.NoError(t, f.Close())
	return func() { require.NoError(t, os.Remove(path)) }
}

// A disk that is full at any point of a step is an error that says so and may pass, and nothing
// half is seen in the store. With room again the step is done, and the digest is that of a build
// that has always had room.
func TestStepsOnAFullDisk(t *testing.T) {
	o := options(t, index.Dot, rows("app", 300, 16, 1), rows("user", 200, 16, 2))
	o.Threads = 1
	o.Params.EfConstruction = 20
	_, want := build(t, o)
	ctx := t.Context()
	step := func(store *snapshots.Store, name string, do func(*builder.Steps) error) error {
		s, err := builder.OpenSteps(ctx, store, name, builder.StepOptions{Memory: 1, Tool: o.Tool})
		if err != nil {
			return err
		}
		return do(s)
	}
	type named struct {
		name string
		do   func(store *snapshots.Store, id string) error
	}
	var digest string
	all := []named{{"plan", func(store *snapshots.Store, _ string) error {
		_, _, err := builder.MakePlan(ctx, store, o, 1)
		return err
	}}}
	for i := range 2 {
		all = append(all, named{fmt.Sprint("partition ", i), func(store *snapshots.Store, id string) error {
			return step(store, id, func(s *builder.Steps) error { return s.Partition(ctx, i) })
		}})
	}
	for i := range 5 {
		all = append(all, named{fmt.Sprint("shard ", i), func(store *snapshots.Store, id string) error {
			return step(store, id, func(s *builder.Steps) error { return s.Shard(ctx, i) })
		}})
	}
	all = append(all, named{"commit", func(store *snapshots.Store, id string) error {
		return step(store, id, func(s *builder.Steps) error {
			report, err := s.Commit(ctx, builder.CommitOptions{})
			if err == nil {
				digest = string(report.Digest)
			}
			return err
		})
	}})
	for _, kind := range []string{"store", "cache"} {
		t.Run(kind, func(t *testing.T) {
			disk := objectstest.SmallDisk(t, 16<<20, 2000)
			open := func() *snapshots.Store {
				if kind == "store" {
					store, err := snapshots.CreateStore(ctx, filepath.Join(disk, "store"), snapshots.Options{})
					require.NoError(t, err)
					return store
				}
				store, err := snapshots.NewStore(objectstest.NewFaults().Bucket(""), snapshots.Options{Cache: filepath.Join(disk, "cache")})
				require.NoError(t, err)
				return store
			}
			store := open()
			defer store.Close()
			_, planned, err := builder.MakePlan(ctx, store, o, 1)
			require.NoError(t, err)
			id := string(planned)
			require.NoError(t, store.Objects().Delete(ctx, "builds/"+id+"/plan.json"))
			failed := 0
			for _, s := range all {
				for free := 0; ; free = max(4096, 2*free) {
					store.Objects().KeepReserve() // as whoever writes does while there is room
					takeAway := ballast(t, disk, free)
					err := s.do(store, id)
					takeAway()
					published := wholeOnly(t, store, string(want.Digest))
					if err == nil {
						break
					}
					failed++
					assert.False(t, published, "what makes room is not done once the snapshot is published: %v", err)
					assert.True(t, objects.IsFull(err), "%s, %d bytes: %v", s.name, free, err)
					assert.NotErrorAs(t, err, new(*builder.RefusedError), "%s, %d bytes", s.name, free)
				}
			}
			assert.Greater(t, failed, len(all), "the disk was full at too few points")
			assert.Equal(t, string(want.Digest), digest)
		})
	}
}

// wholeOnly holds that a store has no snapshot but one that is whole, and nothing half of what steps
// write.
func wholeOnly(t *testing.T, store *snapshots.Store, digest string) (published bool) {
	t.Helper()
	for o, err := range store.Objects().List(t.Context(), "snapshots/") {
		require.NoError(t, err)
		require.Equal(t, "snapshots/"+digest+".json", o.Key)
		m, err := store.Manifest(t.Context(), manifest.Digest(digest))
		require.NoError(t, err)
		require.NoError(t, store.CheckShards(t.Context(), m))
		published = true
	}
	dir := store.Objects().Dir()
	if dir == "" {
		return published
	}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		assert.False(t, strings.HasSuffix(path, ".tmp") || strings.Contains(path, "/staging/build-"), "%s is left", path)
		return err
	}))
	return published
}
