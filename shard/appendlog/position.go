package appendlog

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Hash is the SHA-256 of an entry's bytes: its identity. A sequence number is used again
// when a store is restored from a copy and goes on; a hash is not. The zero Hash is that
// of no entry.
type Hash [sha256.Size]byte

// HashOf returns the hash of an entry's bytes.
func HashOf(data []byte) Hash { return sha256.Sum256(data) }

// IsZero reports whether it is that of no entry.
func (h Hash) IsZero() bool { return h == Hash{} }

// String returns 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short returns the first 12 digits, for people.
func (h Hash) Short() string { return h.String()[:12] }

// MarshalText implements [encoding.TextMarshaler].
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *Hash) UnmarshalText(text []byte) error {
	if n, err := hex.Decode(h[:], text[:min(len(text), 2*len(h))]); err != nil || n < len(h) || len(text) > 2*len(h) {
		*h = Hash{}
		return fmt.Errorf("hash %.80q: want %d hexadecimal digits", text, 2*len(h))
	}
	return nil
}

// Links is what an entry carries of the log that it is in.
type Links struct {
	// Previous is the hash of the entry before; zero in the first, and in one that does
	// not say.
	Previous Hash
	// Log is the id of the log, empty for the first. A person who accepts a restored store
	// as the log that counts begins a new id, and later entries inherit it. Later ids sort
	// after earlier ones, as texts, so that a copy from before an acceptance is not taken
	// for one.
	Log string
}

// Position is where a reader of a log stands: behind the entry that it has read last. The
// zero Position is before the first entry. Nothing of it changes.
type Position struct {
	Log      string // the id of the log, see [Links]
	Sequence uint64
	Hash     Hash // of the entry of that sequence number
}

// Position returns the position of a reader who begins behind an entry.
func (l *Log) Position(e Entry) Position {
	return Position{l.o.Links(e.Data).Log, e.Sequence, HashOf(e.Data)}
}

// after returns the position of a reader at a position who has read the next entry. One
// that does not say which log it is in, as a writer who knows none leaves it, takes
// nothing back.
func (l *Log) after(at Position, e Entry) Position {
	next := l.Position(e)
	next.Log = max(next.Log, at.Log)
	return next
}
