package live

import (
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Kind is what an event does.
type Kind uint8

// The kinds. Their numbers are in logs and do not change.
const (
	Takedown      Kind = iota + 1 // an app must not be returned
	Restore                       // it may be again
	Upsert                        // an app or user is new, or another, in one model version
	SetAttributes                 // attributes of an app or user change, or its window
	Remove                        // an app or user is no more
	Forget                        // of a user nothing may stay
	Settle                        // what was upserted or set is in every snapshot that is kept
	Moot                          // nothing: it was about a user who was forgotten
)

// Bounds of an event.
const (
	MaxEventID = 128       // bytes
	MaxReason  = 1024      // bytes
	MaxAuthor  = 256       // bytes
	MaxModel   = 256       // bytes, of a model, and of a model version
	MaxDim     = 1 << 14   // numbers of a vector
	MaxEvent   = 256 << 10 // bytes, encoded
	MaxValues  = 256       // attributes
)

// UserHash stands for a user's id where the id itself must not be: it is the first half of
// the HMAC-SHA256 of the id by the store's [Key].
type UserHash [16]byte

// Event is one change. Which fields an event has depends on its kind; the others are zero.
type Event struct {
	// ID names the event: one that is appended again under the same id counts once. 1 to
	// [MaxEventID] bytes of printable UTF-8. [Replica.Append] gives a random one to an event
	// without.
	ID    string
	Kind  Kind
	Tower shard.Kind // [shard.Apps], the only one of a takedown and its restoration, or [shard.Users], the only one of Forget
	// Entity is the app's or user's id, 1 to 256 bytes of UTF-8. A log has none of Forget: who
	// appends it needs the id, and who reads it gets User.
	Entity string
	// User is the hash of the id that Forget has. [Replica.Append] sets it.
	User UserHash
	// Reason is why, for people: of a takedown, which must have one, a restoration or a
	// removal.
	Reason string
	// Model and ModelVersion are of the towers that the vector of an upsert belongs to.
	Model, ModelVersion string
	// Vector is the embedding of an upsert. It is not normalised.
	Vector []float32
	// Attributes are, of an upsert, all that the app or user has; of SetAttributes those that
	// change, of which an absent value ends what there was.
	Attributes map[string]attribute.Value
	// Window, of an upsert or SetAttributes of an app, is when it may be returned; nil
	// leaves that as it is.
	Window *Window
	// Through is, of Settle, the last entry that all snapshots reflect which there are, or
	// will be, of the model version: of what was upserted for it up to there nothing is kept.
	// Without a model it is that of all snapshots whatever their version, and what was set
	// and removed up to there is not kept. Settle has neither tower nor entity.
	Through uint64

	// Key tells, of Forget, by which key User is the hash; zero in old logs. [Replica.Append]
	// sets it.
	Key UserHash
	// Original tells, of Moot, the event that it stands for from others of its id, by the key.
	Original uint64

	// Time is when it was accepted, by the clock of who appended it, and never earlier than
	// what was appended before. Author is who that was. [Replica.Append] sets both.
	Time   time.Time
	Author string
}

// Window is a time in which an app may be returned: from From on, until before Until. A
// zero time is no bound.
type Window struct{ From, Until time.Time }

// Contains reports whether a time is in the window.
func (w Window) Contains(t time.Time) bool {
	return (w.From.IsZero() || !t.Before(w.From)) && (w.Until.IsZero() || t.Before(w.Until))
}
