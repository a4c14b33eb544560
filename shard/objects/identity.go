package objects

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// identityKey names the object that has the id of a store.
const identityKey = "store.json"

type identity struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
}

const (
	identityVersion = 1
	identityBytes   = 16
)

// Identity returns the id of the store that is in the bucket, which every copy of it has too,
// wherever that is; empty if it has none, as one that was made before stores had ids.
func (b *Bucket) Identity(ctx context.Context) (string, error) {
	data, err := b.Read(ctx, identityKey)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the id of the store: %w", err)
	}
	var i identity
	id, err := []byte(nil), json.Unmarshal(data, &i)
	if err == nil {
		id, err = hex.DecodeString(i.ID)
	}
	if err == nil && i.Version != identityVersion {
		err = fmt.Errorf("version %d; accepted: %d", i.Version, identityVersion)
	}
	if err == nil && len(id) != identityBytes {
		err = fmt.Errorf("id %.80q; accepted: %d hexadecimal digits", i.ID, 2*identityBytes)
	}
	if err != nil {
		return "", fmt.Errorf("the id of the store, %s, is damaged: put it back from a copy of the store: %w", b.name(identityKey), err)
	}
	return i.ID, nil
}

// Identify gives the store an id of its own unless it has one.
func (b *Bucket) Identify(ctx context.Context) error {
	_, err := b.Stat(ctx, identityKey)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	var id [identityBytes]byte
	_, _ = rand.Read(id[:]) // it never fails
	data, err := json.Marshal(identity{identityVersion, hex.EncodeToString(id[:])})
	if err != nil {
		return err
	}
	if err := b.Create(ctx, identityKey, append(data, '\n')); err != nil && !errors.Is(err, ErrExists) { // another one may be faster
		return err
	}
	return nil
}
