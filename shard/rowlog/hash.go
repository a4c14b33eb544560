package rowlog

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
)

// UserHash replaces ids of users by a keyed hash of them, before they are written: who does not have
// the key cannot tell whose rows they are, not even by trying ids. It is safe for concurrent use. A nil
// one leaves ids as they are.
type UserHash struct{ key []byte }

// Bounds of the key of a hash, in bytes.
const (
	LeastHashKey = 16
	MostHashKey  = 4096
)

// NewUserHash returns the hash of a key, which is what a file has but for white space around it.
func NewUserHash(file []byte) (*UserHash, error) {
	key := bytes.TrimSpace(file)
	if len(key) < LeastHashKey || len(key) > MostHashKey {
		return nil, fmt.Errorf("the key has %d bytes; accepted: %d to %d, such as those of openssl rand -hex 32", len(key), LeastHashKey, MostHashKey)
	}
	return &UserHash{bytes.Clone(key)}, nil
}

// hashBytes is how much of a hash is kept: 128 bits, of which no two of all users are alike.
const hashBytes = 16

// Of returns what stands for the id of a user: HMAC-SHA-256, the first 32 digits of it in hexadecimal.
// That of no id is none.
func (h *UserHash) Of(id string) string {
	if h == nil || id == "" {
		return id
	}
	return h.sum("user\x00" + id)[:2*hashBytes]
}

// ID names the key, and does not tell it.
func (h *UserHash) ID() string { return h.sum("key")[:16] }

func (h *UserHash) sum(text string) string {
	mac := hmac.New(sha256.New, h.key)
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// hashesPrefix is what the names of objects begin with that name a key by which ids were hashed.
const hashesPrefix = "queries/hashed-"

// NoteUserHash notes in a store that ids in what is recorded are hashed by a key, from some time on:
// who forgets a user needs it. It is to be called before anything is written.
func NoteUserHash(ctx context.Context, bucket *objects.Bucket, h *UserHash, now time.Time) error {
	data, err := json.Marshal(map[string]string{"key": h.ID(), "since": now.UTC().Format(time.RFC3339)})
	if err != nil {
		return err
	}
	if err := bucket.Create(ctx, hashesPrefix+h.ID()+".json", append(data, '\n')); err != nil && !errors.Is(err, objects.ErrExists) {
		return fmt.Errorf("note by which key ids of users are hashed: %w", err)
	}
	return nil
}

// UserHashes returns the names of the keys by which ids in what a store has recorded are hashed, or
// were, in their order.
func UserHashes(ctx context.Context, bucket *objects.Bucket) (keys []string, err error) {
	for o, err := range bucket.List(ctx, hashesPrefix) {
		if err != nil {
			return nil, fmt.Errorf("look by which keys ids of users are hashed: %w", err)
		}
		if key, is := strings.CutSuffix(strings.TrimPrefix(o.Key, hashesPrefix), ".json"); is {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}
