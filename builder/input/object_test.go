package input

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// Objects that are read where they are are those that are copied.
func TestInPlace(t *testing.T) {
	f := objectstest.NewFaults()
	put(f, "t/b.parquet", "t/a.parquet", "t/README.md text")
	copied, _, err := inBucket(t, f, "t", Options{})
	require.NoError(t, err)
	read, notes, err := inBucket(t, f, "t", Options{InPlace: true, Folder: func() (string, error) {
		t.Error("something was copied")
		return t.TempDir(), nil
	}})
	require.NoError(t, err)
	require.Equal(t, copied, read)
	require.Equal(t, []string{"s3://b/t: left out 1 file of another sort: README.md"}, notes)
}

// Any range of an object is read, over connections that break, and one that is written
// meanwhile is found out.
func TestObjectRanges(t *testing.T) {
	f := objectstest.NewFaults()
	r := rand.New(rand.NewPCG(1, 1))
	data := make([]byte, 10_000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	f.Put("key", data, time.Unix(1, 0))
	b := f.Bucket("")
	stat, err := b.Stat(t.Context(), "key")
	require.NoError(t, err)
	f.Inject(objectstest.Rule{Op: objectstest.Read, Fault: objectstest.Cut, Bytes: 700})
	o := &object{ctx: t.Context(), bucket: b, Object: stat}
	for range 200 {
		from := r.IntN(len(data) + 10)
		got := make([]byte, r.IntN(2000))
		n, err := o.ReadAt(got, int64(from))
		want := data[min(from, len(data)):min(from+len(got), len(data))]
		require.True(t, bytes.Equal(want, got[:n]))
		if n < len(got) {
			require.ErrorIs(t, err, io.EOF)
		} else if len(got) > 0 {
			require.NoError(t, err)
		}
	}
	require.NoError(t, o.unchanged("key"))
	f.Put("key", data, time.Unix(2, 0))
	require.EqualError(t, o.unchanged("key"), "key has changed while it was read")
	require.NoError(t, o.Close())
	require.NotErrorIs(t, err, objects.ErrNotFound)
}

// A fingerprint tells files of other sizes, and with another byte at the beginning, in the
// middle of what it reads or at the end, from one another.
func TestFingerprint(t *testing.T) {
	dir := t.TempDir()
	of := func(data []byte) string {
		path := filepath.Join(dir, "file")
		require.NoError(t, os.WriteFile(path, data, 0o644))
		set, err := Open(t.Context(), []string{path}, nil, Options{})
		require.NoError(t, err)
		defer set.Close()
		print, err := Fingerprint(set.Files()[0])
		require.NoError(t, err)
		return print
	}
	data := make([]byte, 3<<20)
	whole := of(data)
	require.Equal(t, whole, of(data))
	for _, at := range []int{0, 1 << 20 / 5, len(data) - 1} {
		data[at] = 1
		require.NotEqual(t, whole, of(data))
		data[at] = 0
	}
	require.NotEqual(t, whole, of(data[1:]))
	require.NotEqual(t, of(nil), of([]byte{0}))
	_, err := Open(t.Context(), []string{"/dev/null"}, nil, Options{InPlace: true})
	require.ErrorContains(t, err, "several processes read")
}
