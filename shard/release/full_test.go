package release_test

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

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// What is released is changed on a disk that has no room for a byte, or for a file.
func TestChangesOnAFullDisk(t *testing.T) {
	for _, inodes := range []bool{false, true} {
		t.Run(fmt.Sprintf("inodes %v", inodes), func(t *testing.T) {
			disk := objectstest.SmallDisk(t, 8<<20, 200)
			dir := filepath.Join(disk, "store")
			require.NoError(t, os.Mkdir(dir, 0o755))
			bucket, err := objects.Open(t.Context(), dir)
			require.NoError(t, err)
			defer bucket.Close()
			r, d := newReleases(t, bucket, "1", "2", "3")
			for _, digest := range d[:2] {
				_, err := r.Start(t.Context(), release.StartOptions{Snapshot: digest})
				require.NoError(t, err)
			}

			f, err := os.Create(filepath.Join(disk, "filling"))
			require.NoError(t, err)
			_, err = io.Copy(f, rand.Reader)
			require.ErrorIs(t, err, unix.ENOSPC)
			require.NoError(t, f.Close())
			for i := 0; inodes; i++ {
				if err := os.WriteFile(filepath.Join(disk, fmt.Sprint("filling-", i)), nil, 0o600); errors.Is(err, unix.ENOSPC) {
					break
				}
			}

			_, err = r.Promote(t.Context(), release.Change{}, "")
			require.NoError(t, err)
			_, err = r.Rollback(t.Context(), release.RollbackOptions{})
			require.NoError(t, err)
			_, err = r.Rollback(t.Context(), release.RollbackOptions{To: 1})
			require.NoError(t, err)
			now, err := r.Current(t.Context())
			require.NoError(t, err)
			assert.EqualValues(t, 5, now.Generation)
			if !inodes {
				for range 20 {
					_, err = r.Split(t.Context(), release.SplitOptions{Pins: map[string][]string{"control": {"u1"}}})
					require.NoError(t, err)
				}
				_, err = r.Rollback(t.Context(), release.RollbackOptions{To: 3})
				require.NoError(t, err, "long ago")
				_, err = r.Start(t.Context(), release.StartOptions{Snapshot: d[2]})
				require.NoError(t, err)
			}
			_, err = r.Store().Collect(t.Context(), snapshots.CollectOptions{Live: r.Live})
			require.NoError(t, err)
		})
	}
}
