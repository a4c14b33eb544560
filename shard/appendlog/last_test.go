package appendlog

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// Last finds what Head finds, with the entry's bytes where they are there.
func TestLast(t *testing.T) {
	onEach(t, func(t *testing.T, bucket *objects.Bucket) {
		l := New(bucket, Options{Prefix: "r", Keep: 2})
		e, err := l.Last(t.Context())
		require.NoError(t, err)
		assert.Equal(t, Entry{}, e)
		for i := range uint64(40) {
			n := i + 1
			require.NoError(t, l.Append(t.Context(), n, fmt.Append(nil, "entry ", n)))
			if n%9 == 0 {
				require.NoError(t, l.Compact(t.Context(), n-n%2, []byte("state")))
			}
			e, err := l.Last(t.Context())
			require.NoError(t, err)
			require.Equal(t, Entry{n, fmt.Append(nil, "entry ", n)}, e)
		}
		require.NoError(t, l.Compact(t.Context(), 40, []byte("state")))
		for i := range uint64(40) {
			require.NoError(t, l.delete(t.Context(), l.entryKey(i+1)))
		}
		e, err = l.Last(t.Context())
		require.NoError(t, err)
		assert.Equal(t, Entry{Sequence: 40}, e, "the checkpoint has all there is")
	})
}

// Last asks for few objects, however many entries there are, and says what failed.
func TestLastCosts(t *testing.T) {
	store := objectstest.NewFaults()
	l := New(store.Bucket(""), Options{Prefix: "r"})
	for i := range uint64(2000) {
		store.Put(l.entryKey(i+1), fmt.Append(nil, i), time.Now())
	}
	e, err := l.Last(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 2000, e.Sequence)
	assert.Less(t, store.Requests("", "", ""), 30)

	for _, op := range []objectstest.Op{objectstest.List, objectstest.Stat, objectstest.Read} {
		store.Inject(objectstest.Rule{Op: op, Err: objectstest.ErrDenied})
		_, err = l.Last(t.Context())
		require.ErrorContains(t, err, "find the last entry of log r", op)
		store.Heal()
	}
}
