package live

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// A key with any bit flipped, of another store, cut, or none, is an error, with entries and with
// a checkpoint: else who is forgotten would be back.
func TestKeyIsTheStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		r, stop := start(t, store.Bucket(""), Options{})
		appendTo(t, r, forget("u"))
		read := func() error {
			s, err := Read(t.Context(), store.Bucket(""))
			if err == nil {
				assert.True(t, s.Forgotten().Has("u"))
			}
			return err
		}
		good, _ := store.Data(keyName)
		refused := func() {
			t.Helper()
			for bit := range 8 * len(good) {
				bad := bytes.Clone(good)
				bad[bit/8] ^= 1 << (bit % 8)
				store.Put(keyName, bad, noon)
				require.ErrorIs(t, read(), ErrNoKey, "bit %d", bit)
			}
			for _, bad := range [][]byte{encodeKey(testKey), good[:len(good)-1], {}} {
				store.Put(keyName, bad, noon)
				require.ErrorIs(t, read(), ErrNoKey)
			}
			store.Remove(keyName)
			require.ErrorIs(t, read(), ErrNoKey)
			store.Put(keyName, good, noon)
			require.NoError(t, read())
		}
		refused()
		_, err := r.Checkpoint(t.Context())
		require.NoError(t, err)
		stop()
		refused()
	})
}

// What is set and removed of a user who is forgotten changes nothing, and is in the log without
// the id; sent again it is the same event, whatever became of the user since.
func TestForgottenUsersAreNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		r, stop := start(t, store.Bucket(""), Options{})
		defer stop()
		const id = "somebody-in-particular"
		appendTo(t, r, forget(id))
		late := []Event{setTo(shard.Users, id, "x", attribute.OfInt(1)), remove(shard.Users, id)}
		assert.Equal(t, Receipt{position(2), 0}, appendTo(t, r, late...))
		both := []Event{forget("v-" + id), setTo(shard.Users, "v-"+id, "x", attribute.OfInt(1))}
		assert.Equal(t, Receipt{position(3), 0}, appendTo(t, r, both...))
		_, err := r.Checkpoint(t.Context())
		require.NoError(t, err)
		r.Read(func(s *State) {
			assert.Nil(t, s.Record(shard.Users, id))
			assert.True(t, s.Forgotten().Has(id))
		})
		for _, key := range []string{"live/000000000001.log", "live/000000000002.log", "live/000000000003.log"} {
			data, ok := store.Data(key)
			require.True(t, ok, key)
			assert.NotContains(t, string(data), id, key)
		}

		appendTo(t, r, upsert(shard.Users, id, "1", 1, 2))
		assert.Equal(t, Receipt{position(2), 2}, appendTo(t, r, late...))
		r.Read(func(s *State) { assert.Empty(t, s.Record(shard.Users, id).Set) })
		other := late[0]
		other.Attributes = map[string]attribute.Value{"x": attribute.OfInt(2)}
		_, err = r.Append(t.Context(), []Event{other})
		assert.ErrorIs(t, err, ErrEventConflict)
		appendTo(t, r, setTo(shard.Users, id, "x", attribute.OfInt(3)))
		r.Read(func(s *State) { assert.Len(t, s.Record(shard.Users, id).Set, 1) })
	})
}

// What is written of a user in the entry that forgets the user, by this message or another one,
// is in the log without the id and counts as written; what comes behind is of a new user.
func TestForgottenUsersAreNotInTheEntryThatForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		r, stop := start(t, store.Bucket(""), Options{})
		defer stop()
		const id = "somebody-in-particular"
		row := upsert(shard.Users, id, "1", 7.25, 2)
		row.ID = "the row"
		events := []Event{row, setTo(shard.Users, id, "x", attribute.OfInt(1)), remove(shard.Users, id), upsert(shard.Users, "another", "1", 1, 2), forget(id)}
		assert.Equal(t, Receipt{position(1), 0}, appendTo(t, r, events...))
		data, ok := store.Data("live/000000000001.log")
		require.True(t, ok)
		assert.NotContains(t, string(data), id)
		assert.Contains(t, string(data), "another")
		r.Read(func(s *State) {
			assert.Nil(t, s.Record(shard.Users, id))
			assert.NotNil(t, s.Record(shard.Users, "another"))
			assert.True(t, s.Forgotten().Has(id))
		})
		assert.Equal(t, Receipt{position(1), 1}, appendTo(t, r, row), "it is known by its id")
		other := row
		other.Vector = []float32{3, 4}
		_, err := r.Append(t.Context(), []Event{other})
		assert.ErrorIs(t, err, ErrEventConflict)

		appendTo(t, r, forget(id), upsert(shard.Users, id, "1", 5, 6))
		r.Read(func(s *State) {
			assert.NotNil(t, s.Record(shard.Users, id))
			assert.False(t, s.Forgotten().Has(id))
		})
		again, end := start(t, store.Bucket(""), Options{})
		defer end()
		assert.Equal(t, r.View().Digest, again.View().Digest, "who reads the log comes to the same")
	})
}

// What another writer has written of a user who is forgotten is not kept.
func TestForgottenUsersAreNotKept(t *testing.T) {
	w, s := &writer{}, keyed(t)
	apply(t, s, w.entry(t, noon, forget("u")))
	assert.Empty(t, apply(t, s, w.entry(t, noon, setTo(shard.Users, "u", "x", attribute.OfInt(1)), remove(shard.Users, "u"))))
	assert.Nil(t, s.Record(shard.Users, "u"))
	assert.True(t, s.Forgotten().Has("u"))
}
