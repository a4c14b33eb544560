package live

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Record is all that a state has of one app or user, but for a takedown. It does not change:
// what changes is another Record.
type Record struct {
	// Removed is the sequence of the last removal, 0 if there was none; or of the forgetting
	// of a user who came back since. What there is of Set and Upserts came later.
	Removed uint64
	// Window is when it may be returned.
	Window Window
	// Set are the attributes that were set, each with the sequence of its entry: what an
	// absent value ends is here, too. They lie over what snapshots have whose inputs are
	// older.
	Set map[string]SetValue
	// Upserts are by model and model version: the last of each.
	Upserts []Upserted

	sum  sum   // of its encoding
	size int64 // bytes, about
}

// SetValue is the value that an attribute was set to.
type SetValue struct {
	Value    attribute.Value
	Sequence uint64 // of the entry
}

// Upserted is what was upserted of an app or user for one model version.
type Upserted struct {
	Model, ModelVersion string
	Sequence            uint64 // of the entry
	Vector              []float32
	// Attributes are all that it has: those that it came with, and over them those that were
	// set later. None is absent.
	Attributes map[string]attribute.Value
	Time       time.Time
}

// Upserted returns what was upserted for a model version, nil if nothing was.
func (r *Record) Upserted(model, version string) *Upserted {
	if i, ok := r.search(model, version); ok {
		return &r.Upserts[i]
	}
	return nil
}

func (r *Record) search(model, version string) (int, bool) {
	return slices.BinarySearchFunc(r.Upserts, version, func(u Upserted, version string) int {
		return cmp.Or(cmp.Compare(u.Model, model), cmp.Compare(u.ModelVersion, version))
	})
}

// empty reports whether a record says nothing.
func (r *Record) empty() bool {
	return r.Removed == 0 && r.Window == (Window{}) && len(r.Set) == 0 && len(r.Upserts) == 0
}

// changed returns what a record is after an event of an entry; nil if that is nothing.
// Neither record is changed.
func (r *Record) changed(e *Event, sequence uint64) *Record {
	next := &Record{}
	if r != nil {
		*next = *r
	}
	switch e.Kind {
	case Upsert:
		next.Upserts = slices.Clone(next.Upserts)
		u := Upserted{
			Model: e.Model, ModelVersion: e.ModelVersion, Sequence: sequence, Vector: e.Vector,
			Attributes: maps.Clone(e.Attributes), Time: e.Time,
		}
		maps.DeleteFunc(u.Attributes, func(_ string, v attribute.Value) bool { return v.Absent() })
		if i, ok := next.search(e.Model, e.ModelVersion); ok {
			next.Upserts[i] = u
		} else {
			next.Upserts = slices.Insert(next.Upserts, i, u)
		}
	case SetAttributes:
		next.set(e, sequence)
	case Remove:
		next = &Record{Removed: sequence, Window: next.Window}
	}
	if e.Window != nil {
		next.Window = *e.Window
	}
	if next.empty() {
		return nil
	}
	return next
}

// set lays attributes over a record, and over what was upserted before.
func (r *Record) set(e *Event, sequence uint64) {
	if len(e.Attributes) == 0 {
		return
	}
	r.Set = maps.Clone(r.Set)
	if r.Set == nil {
		r.Set = map[string]SetValue{}
	}
	r.Upserts = slices.Clone(r.Upserts)
	for i := range r.Upserts {
		values := maps.Clone(r.Upserts[i].Attributes)
		if values == nil {
			values = map[string]attribute.Value{}
		}
		r.Upserts[i].Attributes = values
	}
	for name, value := range e.Attributes {
		r.Set[name] = SetValue{value, sequence}
		for _, u := range r.Upserts {
			if value.Absent() {
				delete(u.Attributes, name)
			} else {
				u.Attributes[name] = value
			}
		}
	}
}

// settled returns a record without what Settle ends; nil if that is nothing, and the record
// itself if it ends nothing.
func (r *Record) settled(e *Event) *Record {
	next := *r
	if e.Model != "" {
		i, ok := r.search(e.Model, e.ModelVersion)
		if !ok || r.Upserts[i].Sequence > e.Through {
			return r
		}
		next.Upserts = slices.Delete(slices.Clone(r.Upserts), i, i+1)
	} else {
		next.Set = maps.Clone(r.Set)
		maps.DeleteFunc(next.Set, func(_ string, v SetValue) bool { return v.Sequence <= e.Through })
		if r.Removed <= e.Through {
			next.Removed = 0
		}
		if len(next.Set) == len(r.Set) && next.Removed == r.Removed {
			return r
		}
	}
	if next.empty() {
		return nil
	}
	return &next
}

// sum is a sum of SHA-256s, of 4 numbers each: that of a set of values, in whatever order
// they came.
type sum [4]uint64

func (s *sum) add(o sum) {
	for i := range s {
		s[i] += o[i]
	}
}

func (s *sum) subtract(o sum) {
	for i := range s {
		s[i] -= o[i]
	}
}

func sumOf(data []byte) sum {
	h := sha256.Sum256(data)
	var s sum
	for i := range s {
		s[i] = binary.BigEndian.Uint64(h[8*i:])
	}
	return s
}

// Digest is a digest of what a state amounts to: of takedowns, users who are forgotten and
// records, and where in the log each came to be. States at one position that have another
// are not the same; the same state has the same, however it came about.
type Digest [32]byte

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// overhead is what a record, and what was upserted of it, takes beside its bytes, about.
const overhead = 200

type wireRecord struct {
	Entity  string       `cbor:"1,keyasint"`
	Removed uint64       `cbor:"2,keyasint,omitempty"`
	Window  *wireWindow  `cbor:"3,keyasint,omitempty"`
	Set     []wireSet    `cbor:"4,keyasint,omitempty"`
	Upserts []wireUpsert `cbor:"5,keyasint,omitempty"`
}

type wireSet struct {
	_         struct{} `cbor:",toarray"`
	Attribute wireAttribute
	Sequence  uint64
}

type wireUpsert struct {
	Model        string          `cbor:"1,keyasint"`
	ModelVersion string          `cbor:"2,keyasint"`
	Sequence     uint64          `cbor:"3,keyasint"`
	Time         int64           `cbor:"4,keyasint"` // milliseconds since 1970
	Vector       []byte          `cbor:"5,keyasint"`
	Attributes   []wireAttribute `cbor:"6,keyasint,omitempty"`
}

func (r *Record) encode(entity string) ([]byte, error) {
	w := wireRecord{Entity: entity, Removed: r.Removed}
	if r.Window != (Window{}) {
		w.Window = wireWindowOf(r.Window)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Set)) {
		v := r.Set[name]
		data, err := encodeValue(v.Value)
		if err != nil {
			return nil, fmt.Errorf("attribute %.160q: %w", name, err)
		}
		w.Set = append(w.Set, wireSet{Attribute: wireAttribute{Name: name, Type: uint8(v.Value.Type()), Value: data}, Sequence: v.Sequence})
	}
	for _, u := range r.Upserts {
		attributes, err := wireAttributes(u.Attributes, false)
		if err != nil {
			return nil, err
		}
		w.Upserts = append(w.Upserts, wireUpsert{u.Model, u.ModelVersion, u.Sequence, u.Time.UnixMilli(), vectorBytes(u.Vector), attributes})
	}
	return encoder.Marshal(w)
}

// seal works out what a state needs of a record that it takes.
func (r *Record) seal(tower shard.Kind, entity string) {
	data, err := r.encode(entity)
	if err != nil {
		panic(err) // it holds what was decoded, or has been encoded
	}
	r.size = int64(len(data)) + overhead*int64(1+len(r.Upserts))
	r.sum = sumOf(append(data, "record of "+string(tower)...))
}

// record returns what was encoded of a tower, up to an entry.
func (w *wireRecord) record(tower shard.Kind, last uint64) (*Record, error) {
	if err := shard.CheckID(w.Entity); err != nil {
		return nil, err
	}
	r := &Record{Removed: w.Removed}
	highest := w.Removed
	event := Event{ID: "-", Tower: tower, Entity: w.Entity} // what it holds obeys the rules of events
	if w.Window != nil {
		r.Window = w.Window.window()
		event.Window = &r.Window
	}
	if len(w.Set) > 0 {
		r.Set = make(map[string]SetValue, len(w.Set))
		event.Attributes = make(map[string]attribute.Value, len(w.Set))
	}
	for i, s := range w.Set {
		if i > 0 && w.Set[i-1].Attribute.Name >= s.Attribute.Name {
			return nil, errors.New("the names of attributes do not ascend")
		}
		v, err := decodeValue(attribute.Type(s.Attribute.Type), s.Attribute.Value)
		if err != nil {
			return nil, err
		}
		r.Set[s.Attribute.Name] = SetValue{v, s.Sequence}
		event.Attributes[s.Attribute.Name] = v
		highest = max(highest, s.Sequence)
	}
	if err := errors.Join(event.checkAttributesOf(1<<16), event.checkWindow()); err != nil {
		return nil, err
	}
	for i, u := range w.Upserts {
		if i > 0 && cmp.Or(cmp.Compare(w.Upserts[i-1].Model, u.Model), cmp.Compare(w.Upserts[i-1].ModelVersion, u.ModelVersion)) >= 0 {
			return nil, errors.New("the model versions do not ascend")
		}
		at, err := timeOf(u.Time)
		if err != nil {
			return nil, err
		}
		of := Upserted{Model: u.Model, ModelVersion: u.ModelVersion, Sequence: u.Sequence, Time: at}
		if of.Vector, err = vectorOf(u.Vector); err != nil {
			return nil, err
		}
		if of.Attributes, err = attributesOf(u.Attributes); err != nil {
			return nil, err
		}
		event := Event{Model: of.Model, ModelVersion: of.ModelVersion, Vector: of.Vector, Attributes: of.Attributes}
		if err := errors.Join(event.checkUpsert(), event.checkAttributesOf(1<<16)); err != nil {
			return nil, err
		}
		r.Upserts = append(r.Upserts, of)
		highest = max(highest, u.Sequence)
	}
	if highest > last {
		return nil, fmt.Errorf("it is of entry %d, behind the last", highest)
	}
	if r.empty() {
		return nil, errors.New("it says nothing")
	}
	return r, nil
}

// equal reports whether two records say the same; nil says nothing.
func (r *Record) equal(o *Record) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r.sum == o.sum
}
