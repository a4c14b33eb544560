package objects_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// Whoever is first, a store has one id, and its copies have it too.
func TestIdentity(t *testing.T) {
	store := objectstest.NewFaults()
	id, err := store.Bucket("reader").Identity(t.Context())
	require.NoError(t, err)
	assert.Empty(t, id)

	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() { assert.NoError(t, store.Bucket("writer").Identify(context.Background())) })
	}
	writers.Wait()
	id, err = store.Bucket("reader").Identity(t.Context())
	require.NoError(t, err)
	assert.Regexp(t, "^[0-9a-f]{32}$", id)

	copied := objectstest.NewFaults()
	data, _ := store.Data("store.json")
	copied.Put("store.json", data, time.Now())
	require.NoError(t, copied.Bucket("writer").Identify(t.Context()))
	same, err := copied.Bucket("reader").Identity(t.Context())
	require.NoError(t, err)
	assert.Equal(t, id, same)
}

// What is no id is an error, and not taken for a store that has none.
func TestDamagedIdentity(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2,"id":"00112233445566778899aabbccddeeff"}`, `{"version":1,"id":"00"}`, `{"version":1,"id":"../../etc/passwd"}`} {
		store := objectstest.NewFaults()
		store.Put("store.json", []byte(text), time.Now())
		_, err := store.Bucket("reader").Identity(t.Context())
		assert.ErrorContains(t, err, "store.json, is damaged: put it back from a copy of the store: ", text)
	}
	store := objectstest.NewFaults()
	store.Inject(objectstest.Rule{Key: "store.json", Fault: objectstest.Fail})
	_, err := store.Bucket("reader").Identity(t.Context())
	assert.ErrorContains(t, err, "read the id of the store: ")
}
