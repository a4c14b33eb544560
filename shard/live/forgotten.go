package live

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
)

// String returns the hash as hexadecimal digits.
func (h UserHash) String() string { return hex.EncodeToString(h[:]) }

// Forgotten are the users who are forgotten at one position. It does not change, and any
// number of goroutines may use it. The zero Forgotten has none.
type Forgotten struct{ *forgotten }

type forgotten struct {
	set set // of hashes
	key *hashKeys
}

// Gone is when a user was forgotten.
type Gone struct {
	Sequence uint64 // of the entry that it is in
	Time     time.Time
}

func (g Gone) encode() string {
	data := binary.AppendUvarint(nil, g.Sequence)
	return string(binary.AppendVarint(data, g.Time.UnixMilli()))
}

// Has reports whether a user is forgotten, if that is [Forgotten.Known]. It allocates nothing.
func (f Forgotten) Has(userID string) bool {
	_, ok := f.Lookup(userID)
	return ok
}

// HasAny reports whether any of some users is forgotten. It allocates nothing.
func (f Forgotten) HasAny(userIDs []string) bool { return slices.ContainsFunc(userIDs, f.Has) }

// Known reports whether a user can be looked up among them: not in what was read without the
// key, as [ReadWithoutKey] does, if somebody is forgotten there.
func (f Forgotten) Known() bool { return f.Len() == 0 || f.key != nil }

// Lookup returns the hash under which a user is forgotten, and whether the user is.
func (f Forgotten) Lookup(userID string) (UserHash, bool) {
	if f.Len() == 0 {
		return UserHash{}, false
	}
	h := f.key.hash(userID)
	return h, f.HasHash(h)
}

// HasHash reports whether the user with that hash is forgotten.
func (f Forgotten) HasHash(h UserHash) bool {
	if f.forgotten == nil {
		return false
	}
	_, ok := f.set.find(string(h[:]))
	return ok
}

// Get returns when the user with that hash was forgotten, and whether that is so.
func (f Forgotten) Get(h UserHash) (Gone, bool) {
	if f.forgotten == nil {
		return Gone{}, false
	}
	value, ok := f.set.find(string(h[:]))
	if !ok {
		return Gone{}, false
	}
	data := []byte(value)
	sequence, n := binary.Uvarint(data)
	milliseconds, _ := binary.Varint(data[n:])
	return Gone{sequence, time.UnixMilli(milliseconds).UTC()}, true
}

// Len returns how many users are forgotten.
func (f Forgotten) Len() int {
	if f.forgotten == nil {
		return 0
	}
	return f.set.count
}

// All returns the hashes of all who are forgotten, ascending. It sorts them first.
func (f Forgotten) All() iter.Seq[UserHash] {
	return func(yield func(UserHash) bool) {
		if f.forgotten == nil {
			return
		}
		list := make([]UserHash, 0, f.set.count)
		for i := range f.set.all() {
			list = append(list, UserHash([]byte(i.key)))
		}
		slices.SortFunc(list, func(a, b UserHash) int { return bytes.Compare(a[:], b[:]) })
		for _, h := range list {
			if !yield(h) {
				return
			}
		}
	}
}

// Digest returns the SHA-256 of all hashes, ascending, in hexadecimal digits.
func (f Forgotten) Digest() string {
	sum := sha256.New()
	for h := range f.All() {
		sum.Write(h[:]) // it never fails
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// KeySize is the size of the key of a store, in bytes.
const KeySize = 32

const keyName = "live/key"

// Key returns the key by which the users of a store are hashed who are forgotten, and makes
// one if there is none: it is made by who forgets first.
func Key(ctx context.Context, bucket *objects.Bucket) ([]byte, error) {
	key, err := existingKey(ctx, bucket)
	if !errors.Is(err, objects.ErrNotFound) {
		return key, err
	}
	key = make([]byte, KeySize)
	_, _ = rand.Read(key) // it never fails
	there, err := bucket.Contend(ctx, keyName, encodeKey(key))
	if errors.Is(err, objects.ErrExists) {
		return decodeKey(there)
	}
	if err != nil {
		return nil, fmt.Errorf("make the key of users who are forgotten: %w", err)
	}
	return key, nil
}

// existingKey returns the key of a store. The error is of class [ErrNoKey] if it has none, or
// one that is damaged, and of class [objects.ErrNotFound] too if it has none.
func existingKey(ctx context.Context, bucket *objects.Bucket) ([]byte, error) {
	data, err := bucket.Read(ctx, keyName)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, noKey("%w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key of users who are forgotten: %w", err)
	}
	return decodeKey(data)
}

// ErrNoKey is the class of every error that says that the key of a store, [Key], is missing, is
// damaged, or is that of another store, so that nobody can tell who is forgotten.
var ErrNoKey = errors.New("it cannot be told who is forgotten")

// errWithoutKey says what a replica without the key does not do.
var errWithoutKey = noKey("without it nothing is written about users, and no checkpoint")

// noKey returns an error of class [ErrNoKey].
func noKey(format string, arguments ...any) error {
	return fmt.Errorf("%s: %w: %w; bring that object back from any copy of the store, it never changes", keyName, fmt.Errorf(format, arguments...), ErrNoKey)
}

// encodeKey returns the object of a key: the key, and its SHA-256.
func encodeKey(key []byte) []byte {
	hash := sha256.Sum256(key)
	return slices.Concat(key, hash[:])
}

func decodeKey(data []byte) ([]byte, error) {
	if n := KeySize + sha256.Size; len(data) != n {
		return nil, noKey("it is damaged: it has %d bytes, want %d", len(data), n)
	}
	key := data[:KeySize]
	if !bytes.Equal(encodeKey(key), data) {
		return nil, noKey("it is damaged: its bytes do not have the SHA-256 that it says")
	}
	return key, nil
}

// name returns what tells a key from others without giving it away: the hash of the id that no
// user has. It is what entries and checkpoints say of the key that they take.
func (k *hashKeys) name() UserHash { return k.hash("") }

// checkName returns an error of class [ErrNoKey] if a log takes another key than one.
// Where nothing says which key it takes, any will do.
func (k *hashKeys) checkName(want UserHash) error {
	if is := k.name(); want != (UserHash{}) && is != want {
		return noKey("it is the key %s, and users of this log were forgotten by the key %s", is, want)
	}
	return nil
}

// HashUser returns the hash of a user's id by a key.
func HashUser(key []byte, userID string) UserHash { return newHashKeys(key).hash(userID) }

// hashKeys are the blocks that an HMAC-SHA256 (RFC 2104) begins its two hashes with.
type hashKeys struct {
	key          []byte
	inner, outer [sha256.BlockSize]byte
}

func newHashKeys(key []byte) *hashKeys {
	k := &hashKeys{key: key}
	if len(key) > sha256.BlockSize {
		sum := sha256.Sum256(key)
		key = sum[:]
	}
	copy(k.inner[:], key)
	copy(k.outer[:], key)
	for i := range k.inner {
		k.inner[i] ^= 0x36
		k.outer[i] ^= 0x5c
	}
	return k
}

// hash is crypto/hmac without memory of its own, of an id that is short.
func (k *hashKeys) hash(id string) UserHash {
	var buffer [sha256.BlockSize + 256]byte
	n := copy(buffer[:], k.inner[:])
	inner := sha256.Sum256(append(buffer[:n], id...))
	n = copy(buffer[:], k.outer[:])
	outer := sha256.Sum256(append(buffer[:n], inner[:]...))
	return UserHash(outer[:16])
}

// ReadForgotten returns those who are forgotten by hashes that were taken of the log of a
// store before, with the key of that store.
func ReadForgotten(ctx context.Context, bucket *objects.Bucket, hashes []UserHash) (Forgotten, error) {
	if len(hashes) == 0 {
		return Forgotten{}, nil
	}
	key, err := existingKey(ctx, bucket)
	if err != nil {
		return Forgotten{}, err
	}
	items := make([]item, len(hashes))
	for i, h := range hashes {
		items[i] = item{hash: hashKey(string(h[:])), key: string(h[:]), value: Gone{}.encode()}
	}
	return Forgotten{&forgotten{set: set{}.with(items), key: newHashKeys(key)}}, nil
}
