package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/rowlog"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/upkeep"
)

// readUserHash returns the hash whose key is in a file, nil without one.
func readUserHash(path string) (*rowlog.UserHash, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, usageError{fmt.Errorf("--hash-users: %w", err)}
	}
	defer f.Close() // it is only read
	data, err := io.ReadAll(io.LimitReader(f, 2*rowlog.MostHashKey))
	if err != nil {
		return nil, usageError{fmt.Errorf("--hash-users: %w", err)}
	}
	h, err := rowlog.NewUserHash(data)
	if err != nil {
		return nil, usageError{fmt.Errorf("--hash-users: %s: %w", path, err)}
	}
	return h, nil
}

// noteUserHash returns the hash whose key is in a file, which the store knows of from then on, nil
// without one.
func noteUserHash(ctx context.Context, store *snapshots.Store, path string) (*rowlog.UserHash, error) {
	h, err := readUserHash(path)
	if h == nil {
		return nil, err
	}
	return h, rowlog.NoteUserHash(ctx, store.Objects(), h, time.Now())
}

// hashOf checks that ids in a store are hashed by a key, and returns what the user is there, empty
// without a key, and what the store has under keys that were not given.
func hashOf(ctx context.Context, bucket *objects.Bucket, h *rowlog.UserHash, user string) (hashed string, left []upkeep.Left, err error) {
	keys, err := rowlog.UserHashes(ctx, bucket)
	if err != nil {
		return "", nil, err
	}
	if h != nil {
		if !slices.Contains(keys, h.ID()) {
			by := "by no key"
			if len(keys) > 0 {
				by = "by " + strings.Join(keys, ", ")
			}
			return "", nil, usagef("--hash-users has the key %s; in the store ids are hashed %s", h.ID(), by)
		}
		hashed = h.Of(user)
	}
	for _, key := range keys {
		if h == nil || key != h.ID() {
			left = append(left, upkeep.Left{
				Where: "recorded queries, outcomes and joined sets with hashed ids", What: "what is recorded of the user under a hash by the key " + key + ", which was not looked for",
				Until: "the user is forgotten with --hash-users and that key, or they are as old as is kept",
			})
		}
	}
	return hashed, left, nil
}

// errKeyNeedsStore says that a key cannot be checked.
var errKeyNeedsStore = errors.New("--hash-users goes with --store, whose records are hashed")
