package snapshots_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// fill fills a disk to the last byte, and with it its inodes if it is asked to.
func fill(t *testing.T, dir string, inodes bool) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filling"))
	require.NoError(t, err)
	_, err = io.Copy(f, rand.Reader)
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, f.Close())
	for i := 0; inodes; i++ {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint("filling-", i)))
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

// reserve returns the bytes that a store keeps to be given up.
func reserve(t *testing.T, store string) (bytes int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(store, ".reserve", "*"))
	require.NoError(t, err)
	for _, path := range files {
		info, err := os.Stat(path)
		require.NoError(t, err)
		bytes += info.Size()
	}
	return bytes
}

// A Collect makes room on a disk that has none, neither for a byte nor for a file.
func TestCollectOnAFullDisk(t *testing.T) {
	for _, inodes := range []bool{false, true} {
		for _, reserved := range []bool{true, false} {
			t.Run(fmt.Sprintf("inodes %v, reserved %v", inodes, reserved), func(t *testing.T) {
				disk := objectstest.SmallDisk(t, 8<<20, 400)
				dir := filepath.Join(disk, "store")
				store, err := snapshots.CreateStore(t.Context(), dir, snapshots.Options{})
				require.NoError(t, err)
				defer store.Close()
				var digests []manifest.Digest
				for _, rows := range []int{20, 30, 40} {
					from, m := staged(t, rows, 2)
					d, err := store.Import(t.Context(), from, m)
					require.NoError(t, err)
					digests = append(digests, d)
				}
				assert.EqualValues(t, 1<<20, reserve(t, dir))
				if !reserved {
					require.NoError(t, os.RemoveAll(filepath.Join(dir, ".reserve")))
				}
				fill(t, disk, inodes)
				require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "x"), []byte("x"), 0o600), unix.ENOSPC)
				done, err := store.Collect(t.Context(), everything(digests[2]))
				if inodes && !reserved {
					require.ErrorIs(t, err, unix.ENOSPC, "there is nothing that it could do")
					assert.Empty(t, done.Snapshots)
					stage := filepath.Join(dir, "staging", "build-dead")
					require.NoError(t, os.Remove(filepath.Join(disk, "filling-0")))
					require.NoError(t, os.Mkdir(stage, 0o755))
					done, err = store.Collect(t.Context(), everything(digests[2]))
				}
				require.NoError(t, err)
				assert.Len(t, done.Snapshots, 2)
				assert.Len(t, done.Shards, 4)
				require.NoError(t, snapshots.Verify(t.Context(), store, digests[2], func(string) {}))
				assert.Empty(t, keysOf(t, store, "doomed/"))
				assert.Positive(t, reserve(t, dir), "it is kept again")
			})
		}
	}
}
