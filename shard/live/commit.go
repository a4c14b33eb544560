package live

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/tandem-ann/tandem/shard/appendlog"
)

// Bounds of an entry. What is appended together is in one entry, whatever its size;
// appends share an entry up to maxEntry.
const (
	MaxEvents = 1000    // of what is appended together, and of an entry
	MaxAppend = 8 << 20 // bytes of what is appended together, encoded

	maxEntry     = 1 << 20
	maxEntryRead = MaxAppend + 64<<10 // with its header
	maxLogID     = 64
	nonceSize    = 16
)

// EntryVersion is the version of entries that is written and read.
const EntryVersion = 1

// ErrVersion is the class of every error that says that a newer build has written an entry,
// or a checkpoint, that this one cannot read.
var ErrVersion = errors.New("it was written by a newer version")

// Commit is what an entry of the log holds.
type Commit struct {
	// Previous is the hash of the entry before.
	Previous appendlog.Hash
	// Log is the id of the log from this entry on.
	Log string
	// Time is when the events were accepted, to the millisecond, and Author who appended
	// those that have no other.
	Time   time.Time
	Author string
	// Writer is random, of the process that appended it.
	Writer [8]byte
	// Accepted is set of an entry with which a person has accepted a restored log.
	Accepted *Accepted
	Events   []Event

	changes [][]byte // of each event: what tells it from another of its id
	nonce   [4]byte
}

// Accepted is a person's acceptance of a log that is another one than was followed.
type Accepted struct {
	Reason string
	// Common is the last entry that both logs have.
	Common uint64
}

// wireHeader comes first in an entry, and of it the nonce, so that the entry's checksum is in
// one place, whatever follows.
type wireHeader struct {
	Nonce    []byte        `cbor:"7,keyasint"` // Writer, 4 random bytes, the checksum
	Version  uint64        `cbor:"1,keyasint"`
	Previous []byte        `cbor:"2,keyasint,omitempty"`
	Log      string        `cbor:"3,keyasint,omitempty"`
	Time     int64         `cbor:"4,keyasint"` // milliseconds since 1970
	Author   string        `cbor:"5,keyasint,omitempty"`
	Events   uint64        `cbor:"6,keyasint"`
	Accepted *wireAccepted `cbor:"8,keyasint,omitempty"`
}

type wireAccepted struct {
	_      struct{} `cbor:",toarray"`
	Reason string
	Common uint64
}

// encode returns the entry. Its events have been encoded.
func (c *Commit) encode() ([]byte, error) {
	h := wireHeader{
		Version: EntryVersion, Log: c.Log, Time: c.Time.UnixMilli(), Author: c.Author,
		Events: uint64(len(c.Events)), Nonce: slices.Concat(c.Writer[:], c.nonce[:], make([]byte, sumSize)),
	}
	if !c.Previous.IsZero() {
		h.Previous = c.Previous[:]
	}
	if a := c.Accepted; a != nil {
		h.Accepted = &wireAccepted{Reason: a.Reason, Common: a.Common}
	}
	data, err := inOrder.Marshal(h)
	for i := range c.Events {
		if err != nil {
			break
		}
		e := &c.Events[i]
		w := wireEvent{ID: e.ID, Author: e.Author, Change: c.changes[i]}
		if w.Author == c.Author {
			w.Author = ""
		}
		var item []byte
		item, err = encoder.Marshal(w)
		data = append(data, item...)
	}
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(data[sumAt:], entrySum(data))
	return data, nil
}

// Decode reads an entry of the log. The error is of class [ErrVersion] if it takes a newer
// build, and else of class [ErrDamaged].
func Decode(data []byte) (*Commit, error) {
	c, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("entry of the live log: %w", damaged(err))
	}
	return c, nil
}

func decode(data []byte) (*Commit, error) {
	if len(data) > maxEntryRead {
		return nil, fmt.Errorf("it has %d bytes; accepted: up to %d", len(data), maxEntryRead)
	}
	c, events, data, err := decodeHeader(data)
	if err != nil {
		return nil, err
	}
	if events > MaxEvents || events > uint64(len(data)) {
		return nil, fmt.Errorf("it has %d events in %d bytes; accepted: up to %d", events, len(data), MaxEvents)
	}
	c.Events, c.changes = make([]Event, events), make([][]byte, events)
	for i := range c.Events {
		var w wireEvent
		if data, err = unmarshalFirst(data, &w); err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
		e, err := decodeChange(w.Change)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
		e.ID, e.Author, e.Time = w.ID, w.Author, c.Time
		if e.Author == "" {
			e.Author = c.Author
		}
		if err := e.checkNames(); err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
		if e.ID == "" {
			return nil, fmt.Errorf("event %d has no id", i)
		}
		c.Events[i], c.changes[i] = *e, w.Change
	}
	if len(data) > 0 {
		return nil, fmt.Errorf("%d bytes follow the events", len(data))
	}
	return c, nil
}

// decodeHeader reads what comes before the events, and returns how many these are.
func decodeHeader(data []byte) (c *Commit, events uint64, rest []byte, err error) {
	if err := checkSum(data); err != nil {
		return nil, 0, nil, err
	}
	if err := checkVersion(data, EntryVersion); err != nil {
		return nil, 0, nil, err
	}
	var h wireHeader
	if rest, err = unmarshalFirst(data, &h); err != nil {
		return nil, 0, nil, fmt.Errorf("header: %w", err)
	}
	c = &Commit{Log: h.Log, Author: h.Author}
	if c.Time, err = timeOf(h.Time); err != nil {
		return nil, 0, nil, fmt.Errorf("header: %w", err)
	}
	switch {
	case len(h.Previous) != 0 && len(h.Previous) != len(c.Previous):
		err = fmt.Errorf("the hash of the entry before has %d bytes, want %d", len(h.Previous), len(c.Previous))
	case len(h.Log) > maxLogID || len(h.Author) > MaxAuthor:
		err = fmt.Errorf("log and author have %d and %d bytes; accepted: up to %d and %d", len(h.Log), len(h.Author), maxLogID, MaxAuthor)
	case len(h.Nonce) != nonceSize:
		err = fmt.Errorf("the nonce has %d bytes, want %d", len(h.Nonce), nonceSize)
	case h.Accepted != nil && len(h.Accepted.Reason) > MaxReason:
		err = fmt.Errorf("the reason of the acceptance has %d bytes; accepted: up to %d", len(h.Accepted.Reason), MaxReason)
	}
	if err != nil {
		return nil, 0, nil, fmt.Errorf("header: %w", err)
	}
	copy(c.Previous[:], h.Previous)
	copy(c.Writer[:], h.Nonce)
	copy(c.nonce[:], h.Nonce[len(c.Writer):]) // an entry without a checksum has more
	if a := h.Accepted; a != nil {
		c.Accepted = &Accepted{a.Reason, a.Common}
	}
	return c, h.Events, rest, nil
}

// checkVersion returns an error of class [ErrVersion] if the first item, a map with the
// version under 1, has another version, so that no reader takes part of what it does not
// know for all.
func checkVersion(data []byte, want uint64) error {
	var v struct {
		Version uint64 `cbor:"1,keyasint"`
	}
	if _, err := lenient.UnmarshalFirst(data, &v); err != nil {
		return fmt.Errorf("header: %w", plain(err))
	}
	if v.Version > want {
		return fmt.Errorf("its version is %d, this build reads %d: %w", v.Version, want, ErrVersion)
	}
	if v.Version < want {
		return fmt.Errorf("its version is %d, this build reads %d", v.Version, want)
	}
	return nil
}

// timeOf returns the time of so many milliseconds since 1970, of the years that an entry
// may be of.
func timeOf(milliseconds int64) (time.Time, error) {
	const last = 253402300799999 // the end of the year 9999
	if milliseconds < 0 || milliseconds > last {
		return time.Time{}, fmt.Errorf("time %d; accepted: 0 to %d", milliseconds, last)
	}
	return time.UnixMilli(milliseconds).UTC(), nil
}

// links returns what an entry carries of the log that it is in, though it takes a newer
// build to read the rest; nothing, if it is no entry or is damaged.
func links(data []byte) appendlog.Links {
	var h struct {
		Previous []byte `cbor:"2,keyasint"`
		Log      string `cbor:"3,keyasint"`
	}
	if _, err := lenient.UnmarshalFirst(data, &h); err != nil || len(h.Log) > maxLogID || checkSum(data) != nil {
		return appendlog.Links{}
	}
	l := appendlog.Links{Log: h.Log}
	if copy(l.Previous[:], h.Previous) != len(l.Previous) {
		l.Previous = appendlog.Hash{}
	}
	return l
}

// eventHash stands for an event's id.
type eventHash [16]byte

func hashEventID(id string) eventHash {
	sum := sha256.Sum256([]byte(id))
	return eventHash(sum[:16])
}

// contentHash tells what an event of an id changes from what another would.
func contentHash(change []byte) uint64 {
	sum := sha256.Sum256(change)
	return binary.BigEndian.Uint64(sum[:8])
}

// checkText returns an error unless a text is UTF-8 of at most so many bytes.
func checkText(name, text string, most int) error {
	if len(text) > most || !utf8.ValidString(text) {
		return fmt.Errorf("%s has %d bytes; accepted: up to %d of UTF-8", name, len(text), most)
	}
	return nil
}
