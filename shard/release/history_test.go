package release_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
)

func entryKey(generation uint64) string { return fmt.Sprintf("releases/%012d.json", generation) }

func entryOf(t *testing.T, bucket *objects.Bucket, generation uint64) []byte {
	t.Helper()
	data, err := bucket.Read(t.Context(), entryKey(generation))
	require.NoError(t, err)
	return data
}

// begin starts one snapshot, and releases it again and again.
func begin(t *testing.T, r *release.Releases, d manifest.Digest, generations int) *release.Release {
	t.Helper()
	last, err := r.Start(t.Context(), release.StartOptions{Snapshot: d})
	require.NoError(t, err)
	for range generations - 1 {
		last, err = r.Rollback(t.Context(), release.RollbackOptions{To: 1})
		require.NoError(t, err)
	}
	return last
}

// Each release carries the hash of the entry before, byte for byte, and the id of the log.
func TestReleasesAreChained(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		r, d := newReleases(t, bucket, "1")
		first, err := r.Start(ctx, release.StartOptions{Snapshot: d[0]})
		require.NoError(t, err)
		assert.True(t, first.Previous.IsZero())
		assert.NotContains(t, string(entryOf(t, bucket, 1)), "previous")
		assert.NotContains(t, string(entryOf(t, bucket, 1)), `"log"`)
		assert.Equal(t, appendlog.HashOf(entryOf(t, bucket, 1)), first.Hash)

		// What another tool has written differently is followed as it is, readable or not.
		other := bytes.Replace(entryOf(t, bucket, 1), []byte(`"generation": 1,`), []byte(`  "generation": 2, "later": {"field": [1]},`), 1)
		require.NoError(t, bucket.Create(ctx, entryKey(2), other))
		third, err := r.Rollback(ctx, release.RollbackOptions{To: 1})
		require.NoError(t, err)
		assert.Equal(t, appendlog.HashOf(other), third.Previous)
		garbage := []byte("\x00garbage")
		require.NoError(t, bucket.Create(ctx, entryKey(4), garbage))
		fifth, err := r.Rollback(ctx, release.RollbackOptions{Change: release.Change{Restored: true}, To: 1})
		require.NoError(t, err)
		assert.Equal(t, appendlog.HashOf(garbage), fifth.Previous)
		assert.NotEmpty(t, fifth.Log)
		require.NoError(t, bucket.Create(ctx, entryKey(6), garbage))
		seventh, err := r.Rollback(ctx, release.RollbackOptions{To: 1})
		require.NoError(t, err)
		assert.Equal(t, fifth.Log, seventh.Log, "of the last that can be read")
		newer := []byte(`{"version": 2, "log": "9999", "previous": "` + seventh.Hash.String() + `"}`)
		require.NoError(t, bucket.Create(ctx, entryKey(8), newer))
		ninth, err := r.Rollback(ctx, release.RollbackOptions{To: 1})
		require.NoError(t, err)
		assert.Equal(t, "9999", ninth.Log, "of an entry of a later version")
		_, err = r.Rollback(ctx, release.RollbackOptions{Change: release.Change{Restored: true}, To: 1})
		require.ErrorContains(t, err, `before log "9999" began: cannot be done`)

		unreadable := (*release.UnreadableError)(nil)
		for one, err := range r.History(ctx) {
			if err != nil {
				require.ErrorAs(t, err, &unreadable)
				assert.Equal(t, appendlog.HashOf(entryOf(t, bucket, unreadable.Generation)), unreadable.Hash)
				continue
			}
			assert.Equal(t, appendlog.HashOf(entryOf(t, bucket, one.Generation)), one.Hash)
		}
	})
}

func TestAcceptanceBeginsALaterLog(t *testing.T) {
	r, d := newReleases(t, folder(t), "1")
	begin(t, r, d[0], 1)
	last := ""
	for range 3 {
		accepted, err := r.Split(t.Context(), release.SplitOptions{Change: release.Change{Restored: true}, Weights: map[string]int{"control": 1000}})
		require.NoError(t, err)
		assert.Greater(t, accepted.Log, last)
		inherits, err := r.Rollback(t.Context(), release.RollbackOptions{To: 1})
		require.NoError(t, err)
		assert.Equal(t, accepted.Log, inherits.Log)
		last = inherits.Log
	}
}

func TestDecodeIgnoresLaterFields(t *testing.T) {
	r, d := newReleases(t, folder(t), "1")
	data, err := begin(t, r, d[0], 2).Encode()
	require.NoError(t, err)
	text := string(data)
	for name, c := range map[string]struct{ from, to, fails string }{
		"a field":       {`"version": 1,`, `"version": 1, "soon": {"a": [1]},`, ""},
		"an arm's":      {`"name": "control",`, `"name": "control", "soon": 1,`, ""},
		"another value": {`"version": 1,`, `"version": 9,`, "version is 9, this build reads versions 1 to 3"},
		"a long log":    {`"version": 1,`, `"version": 1, "log": "` + strings.Repeat("x", 65) + `",`, "log has 65 bytes; accepted: up to 64"},
		"no hash":       {`"previous": "`, `"previous": "x`, "want 64 hexadecimal digits"},
		"bytes behind":  {"\n}\n", "\n}\n{}", "after top-level value"},
	} {
		changed := strings.Replace(text, c.from, c.to, 1)
		require.NotEqual(t, text, changed, name)
		_, err := release.Decode([]byte(changed))
		if c.fails == "" {
			assert.NoError(t, err, name)
		} else {
			assert.ErrorContains(t, err, c.fails, name)
		}
	}
}

// history lists what the history shows: generations, and where the log does not hang
// together; those of an accepted log in brackets.
func history(t *testing.T, r *release.Releases) (list []string) {
	t.Helper()
	for one, err := range r.History(t.Context()) {
		b, u := (*release.BrokenError)(nil), (*release.UnreadableError)(nil)
		switch {
		case errors.As(err, &b):
			require.True(t, appendlog.IsBroken(b))
			text := strings.TrimPrefix(b.Error(), "log of releases: ")
			if b.Accepted {
				text = "(" + text + ")"
			}
			list = append(list, text)
		case errors.As(err, &u):
			list = append(list, fmt.Sprint("unreadable ", u.Generation))
		default:
			require.NoError(t, err)
			list = append(list, fmt.Sprint(one.Generation))
		}
	}
	return list
}

func TestHistoryShowsBreaks(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		r, d := newReleases(t, bucket, "1")
		begin(t, r, d[0], 8)
		assert.Equal(t, []string{"8", "7", "6", "5", "4", "3", "2", "1"}, history(t, r))

		// An entry of another log in the place of one, and some that are lost.
		third := bytes.Replace(entryOf(t, bucket, 3), []byte(`"author": ""`), []byte(`"author": "eve"`), 1)
		require.NoError(t, bucket.Write(ctx, entryKey(3), third))
		for _, n := range []uint64{5, 6} {
			require.NoError(t, bucket.Delete(ctx, entryKey(n)))
		}
		broken := history(t, r)
		assert.Equal(t, []string{"8", "7", "the log has a gap: generations 5 to 6 are missing", "4"}, broken[:4])
		assert.Regexp(t, `^the log has forked: generation 4 was appended to another generation 3 \([0-9a-f]{12}\) than is there \([0-9a-f]{12}\)$`, broken[4])
		assert.Equal(t, []string{"3", "2", "1"}, broken[5:])

		require.NoError(t, bucket.Delete(ctx, entryKey(1)))
		assert.Equal(t, "the log has a gap: generation 1 is missing", history(t, r)[7])
		now, unreadable, err := r.Newest(ctx)
		require.NoError(t, err)
		assert.Nil(t, unreadable)
		assert.EqualValues(t, 8, now.Generation)

		_, err = r.Rollback(ctx, release.RollbackOptions{Change: release.Change{Restored: true}, To: 8})
		require.NoError(t, err)
		for _, line := range history(t, r)[2:] {
			if strings.Contains(line, "the log has") {
				assert.Regexp(t, `^\(.*\)$`, line)
			}
		}
		// What breaks after it was accepted is not.
		_, err = r.Rollback(ctx, release.RollbackOptions{To: 8})
		require.NoError(t, err)
		require.NoError(t, bucket.Write(ctx, entryKey(9), bytes.Replace(entryOf(t, bucket, 9), []byte(`"author": ""`), []byte(`"author": "eve"`), 1)))
		assert.Regexp(t, `^the log has forked: generation 10 was appended to another generation 9 `, history(t, r)[1])
	})
}

// A gap, or an entry that cannot be read, is not the end of what must be kept.
func TestGapKeepsWhatIsBeforeIt(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		r, d := newReleases(t, bucket, "1", "2", "3")
		for _, one := range d {
			_, err := r.Start(ctx, release.StartOptions{Snapshot: one, Arm: "arm" + one.Short()})
			require.NoError(t, err)
			_, err = r.Promote(ctx, release.Change{}, "arm"+one.Short())
			require.NoError(t, err)
		}
		require.NoError(t, bucket.Delete(ctx, entryKey(4)))
		require.NoError(t, bucket.Write(ctx, entryKey(5), []byte("garbage")))
		_, err := r.Live(ctx)
		require.ErrorContains(t, err, "what generation 6 needs is not known, and matters until generation 16, or until a change accepts the log as it is")
		back, err := r.Rollback(ctx, release.RollbackOptions{To: 2})
		require.NoError(t, err)
		assert.EqualValues(t, 7, back.Generation)
		_, err = r.Live(ctx)
		require.Error(t, err)
		_, err = r.Rollback(ctx, release.RollbackOptions{Change: release.Change{Restored: true}, To: 2})
		require.NoError(t, err)
		live, err := r.Live(ctx)
		require.NoError(t, err)
		assert.ElementsMatch(t, d, live)
		_, err = r.Rollback(ctx, release.RollbackOptions{To: 4})
		require.ErrorContains(t, err, "there is no generation 4")
	})
}

// A store where something was released, and whose log is empty, is not one where nothing
// was: the log's folder may not be mounted. A start that accepts it begins it anew.
func TestLostLog(t *testing.T) {
	bucket, err := objects.Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, bucket.Close()) }()
	ctx := t.Context()
	r, d := newReleases(t, bucket, "1")
	begin(t, r, d[0], 3)
	log := filepath.Join(bucket.Dir(), "releases")
	require.NoError(t, os.Rename(log, log+".unmounted"))
	for _, empty := range []bool{false, true} {
		if empty {
			require.NoError(t, os.Mkdir(log, 0o755))
		}
		_, err = r.Current(ctx)
		require.ErrorIs(t, err, release.ErrLost)
		require.NotErrorIs(t, err, release.ErrNone)
		_, err = r.Live(ctx)
		require.ErrorIs(t, err, release.ErrLost)
		_, _, err = r.Newest(ctx)
		require.ErrorIs(t, err, release.ErrLost)
		_, err = r.Start(ctx, release.StartOptions{Snapshot: d[0]})
		require.ErrorIs(t, err, release.ErrLost)
		_, err = r.Rollback(ctx, release.RollbackOptions{Change: release.Change{Restored: true}, To: 1})
		require.Error(t, err)
	}
	anew, err := r.Start(ctx, release.StartOptions{Change: release.Change{Restored: true}, Snapshot: d[0]})
	require.NoError(t, err)
	assert.EqualValues(t, 1, anew.Generation)
	assert.NotEmpty(t, anew.Log)
}

func TestIncludes(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, bucket *objects.Bucket) {
		ctx := t.Context()
		r, d := newReleases(t, bucket, "1")
		third := begin(t, r, d[0], 3)
		require.NoError(t, r.Includes(ctx, third, 3, third.Hash))
		_, err := r.Rollback(ctx, release.RollbackOptions{To: 1})
		require.NoError(t, err)
		fifth, err := r.Rollback(ctx, release.RollbackOptions{To: 1})
		require.NoError(t, err)
		require.NoError(t, r.Includes(ctx, third, 5, fifth.Hash))
		require.ErrorIs(t, r.Includes(ctx, fifth, 3, third.Hash), appendlog.ErrBehind)
		require.ErrorIs(t, r.Includes(ctx, third, 5, third.Hash), appendlog.ErrForked, "another one is served")
		require.ErrorIs(t, r.Includes(ctx, third, 6, fifth.Hash), objects.ErrNotFound)

		other := *third
		other.Hash = first(t, r).Hash
		require.ErrorIs(t, r.Includes(ctx, &other, 5, fifth.Hash), appendlog.ErrForked, "another one was released")
		require.NoError(t, bucket.Write(ctx, entryKey(4), bytes.Replace(entryOf(t, bucket, 4), []byte(`"author": ""`), []byte(`"author": "eve"`), 1)))
		require.ErrorIs(t, r.Includes(ctx, third, 5, fifth.Hash), appendlog.ErrForked)
		require.NoError(t, bucket.Delete(ctx, entryKey(4)))
		require.ErrorIs(t, r.Includes(ctx, third, 5, fifth.Hash), appendlog.ErrGap)
	})
}

func first(t *testing.T, r *release.Releases) *release.Release {
	t.Helper()
	one, err := r.Get(t.Context(), 1)
	require.NoError(t, err)
	return one
}
