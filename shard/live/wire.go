package live

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// What entries and checkpoints consist of: items of CBOR (RFC 8949), in its deterministic
// encoding, one after the other (RFC 8742). ../format.md describes them.

var (
	encoder = mode(cbor.CoreDetEncOptions().EncMode())
	// inOrder writes the fields of a struct in the order in which it has them.
	inOrder = mode(unsorted(cbor.CoreDetEncOptions()).EncMode())
	// decoder refuses what encoder does not write. Each item is checked for its form before
	// anything of it is made.
	decoder = mode(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, UTF8: cbor.UTF8RejectInvalid,
		MaxNestedLevels: 8, MaxArrayElements: 1 << 16, MaxMapPairs: 64,
	}.DecMode())
	// lenient reads the version of an item that may have more than is known.
	lenient = mode(cbor.DecOptions{
		IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 16, MaxArrayElements: 1 << 16, MaxMapPairs: 1 << 10,
	}.DecMode())
)

func unsorted(o cbor.EncOptions) cbor.EncOptions {
	o.Sort = cbor.SortNone
	return o
}

// mode returns a mode of constant options, which are right or wrong for good.
func mode[M any](m M, err error) M {
	if err != nil {
		panic(err)
	}
	return m
}

// unmarshal decodes all of data, and unmarshalFirst its first item.
func unmarshal(data []byte, item any) error { return plain(decoder.Unmarshal(data, item)) }

func unmarshalFirst(data []byte, item any) (rest []byte, err error) {
	rest, err = decoder.UnmarshalFirst(data, item)
	return rest, plain(err)
}

// plain returns an error of a decoder in words of the format, without the types of Go.
func plain(err error) error {
	if wrong := (*cbor.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("a %s is where something else belongs", wrong.CBORType)
	}
	return err
}

// wireEvent is an event of an entry. Change is an encoded wireChange: its bytes tell whether
// two events of one id are the same.
type wireEvent struct {
	_      struct{} `cbor:",toarray"`
	ID     string
	Author string // empty: that of the entry
	Change cbor.RawMessage
}

type wireChange struct {
	Kind         uint8           `cbor:"1,keyasint"`
	Tower        uint8           `cbor:"2,keyasint,omitempty"`
	Entity       string          `cbor:"3,keyasint,omitempty"`
	User         []byte          `cbor:"4,keyasint,omitempty"`
	Reason       string          `cbor:"5,keyasint,omitempty"`
	Model        string          `cbor:"6,keyasint,omitempty"`
	ModelVersion string          `cbor:"7,keyasint,omitempty"`
	Vector       []byte          `cbor:"8,keyasint,omitempty"`
	Attributes   []wireAttribute `cbor:"9,keyasint,omitempty"`
	Window       *wireWindow     `cbor:"10,keyasint,omitempty"`
	Through      uint64          `cbor:"11,keyasint,omitempty"`
	Key          []byte          `cbor:"12,keyasint,omitempty"`
	Original     uint64          `cbor:"13,keyasint,omitempty"`
}

type wireAttribute struct {
	_     struct{} `cbor:",toarray"`
	Name  string
	Type  uint8 // 0: the value is absent
	Value cbor.RawMessage
}

type wireWindow struct {
	_           struct{}  `cbor:",toarray"`
	From, Until *wireTime // nil: no bound
}

// wireTime is seconds since 1970 and nanoseconds of the second.
type wireTime struct {
	_       struct{} `cbor:",toarray"`
	Seconds int64
	Nanos   uint32
}

// towers are the numbers of towers.
var towers = [...]shard.Kind{1: shard.Apps, 2: shard.Users}

func towerNumber(k shard.Kind) uint8 { return uint8(max(slices.Index(towers[:], k), 0)) }

// encode returns what an event changes, encoded.
func (e *Event) encode() ([]byte, error) {
	w := wireChange{
		Kind: uint8(e.Kind), Tower: towerNumber(e.Tower), Entity: e.Entity, Reason: e.Reason,
		Model: e.Model, ModelVersion: e.ModelVersion, Vector: vectorBytes(e.Vector), Through: e.Through, Original: e.Original,
	}
	if e.Kind == Forget {
		w.Entity, w.User = "", e.User[:]
	}
	if e.Key != (UserHash{}) {
		w.Key = e.Key[:]
	}
	if e.Window != nil {
		w.Window = wireWindowOf(*e.Window)
	}
	var err error
	if w.Attributes, err = wireAttributes(e.Attributes, e.Kind == SetAttributes); err != nil {
		return nil, err
	}
	return encoder.Marshal(w)
}

// decodeChange returns the event that has been encoded. It is one that Check accepts.
func decodeChange(data []byte) (*Event, error) {
	var w wireChange
	if err := unmarshal(data, &w); err != nil {
		return nil, err
	}
	if w.Kind < uint8(Takedown) || w.Kind > uint8(Moot) || int(w.Tower) >= len(towers) {
		return nil, fmt.Errorf("kind %d of tower %d is unknown", w.Kind, w.Tower)
	}
	e := &Event{
		Kind: Kind(w.Kind), Tower: towers[w.Tower], Entity: w.Entity, Reason: w.Reason,
		Model: w.Model, ModelVersion: w.ModelVersion, Through: w.Through, Original: w.Original,
	}
	if n := len(w.User); n != 0 && n != len(e.User) || e.Kind == Forget && (n == 0 || e.Entity != "") {
		return nil, fmt.Errorf("the hash of a user has %d bytes, want %d, and no id", n, len(e.User))
	}
	if n := len(w.Key); n != 0 && n != len(e.Key) {
		return nil, fmt.Errorf("the name of a key has %d bytes, want %d", n, len(e.Key))
	}
	copy(e.User[:], w.User)
	copy(e.Key[:], w.Key)
	var err error
	if e.Vector, err = vectorOf(w.Vector); err != nil {
		return nil, err
	}
	if e.Attributes, err = attributesOf(w.Attributes); err != nil {
		return nil, err
	}
	if w.Window != nil {
		window := w.Window.window()
		e.Window = &window
	}
	return e, e.checkFields()
}

func vectorBytes(v []float32) []byte {
	if len(v) == 0 {
		return nil
	}
	data := make([]byte, 0, 4*len(v))
	for _, x := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
	}
	return data
}

func vectorOf(data []byte) ([]float32, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data)%4 != 0 {
		return nil, fmt.Errorf("vector: %d bytes are no numbers of 4", len(data))
	}
	v := make([]float32, len(data)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return v, nil
}

func wireWindowOf(w Window) *wireWindow {
	return &wireWindow{From: wireTimeOf(w.From), Until: wireTimeOf(w.Until)}
}

func (w *wireWindow) window() Window { return Window{w.From.time(), w.Until.time()} }

func wireTimeOf(t time.Time) *wireTime {
	if t.IsZero() {
		return nil
	}
	return exactTime(t)
}

func exactTime(t time.Time) *wireTime {
	return &wireTime{Seconds: t.Unix(), Nanos: uint32(t.Nanosecond())}
}

func (w *wireTime) time() time.Time {
	if w == nil {
		return time.Time{}
	}
	return time.Unix(w.Seconds, int64(w.Nanos)).UTC()
}

// wireAttributes returns attributes in the order of their names. Of an upsert an absent
// value is the same as none.
func wireAttributes(values map[string]attribute.Value, withAbsent bool) ([]wireAttribute, error) {
	var list []wireAttribute
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := values[name]
		if v.Absent() && !withAbsent {
			continue
		}
		data, err := encodeValue(v)
		if err != nil {
			return nil, fmt.Errorf("attribute %.160q: %w", name, err)
		}
		list = append(list, wireAttribute{Name: name, Type: uint8(v.Type()), Value: data})
	}
	return list, nil
}

func attributesOf(list []wireAttribute) (map[string]attribute.Value, error) {
	if len(list) == 0 {
		return nil, nil
	}
	values := make(map[string]attribute.Value, len(list))
	for i, w := range list {
		if i > 0 && list[i-1].Name >= w.Name {
			return nil, fmt.Errorf("attribute %.160q follows %.160q; want ascending names", w.Name, list[i-1].Name)
		}
		v, err := decodeValue(attribute.Type(w.Type), w.Value)
		if err != nil {
			return nil, fmt.Errorf("attribute %.160q: %w", w.Name, err)
		}
		values[w.Name] = v
	}
	return values, nil
}

func encodeValue(v attribute.Value) ([]byte, error) {
	var of any
	switch v.Type() {
	case 0:
	case attribute.Keyword:
		of = v.Keyword()
	case attribute.KeywordList:
		of = v.Keywords()
	case attribute.Bool:
		of = v.Bool()
	case attribute.Int:
		of = v.Int()
	case attribute.Float:
		of = v.Float()
	case attribute.Float32:
		of = v.Float32()
	case attribute.Timestamp:
		of = exactTime(v.Time())
	default:
		return nil, fmt.Errorf("type %s is unknown", v.Type())
	}
	return encoder.Marshal(of)
}

func decodeValue(t attribute.Type, data []byte) (attribute.Value, error) {
	switch t {
	case 0:
		return of(data, func(null *struct{}) attribute.Value { return attribute.Value{} })
	case attribute.Keyword:
		return of(data, attribute.OfKeyword)
	case attribute.KeywordList:
		return of(data, attribute.OfKeywords)
	case attribute.Bool:
		return of(data, attribute.OfBool)
	case attribute.Int:
		return of(data, attribute.OfInt)
	case attribute.Float:
		return of(data, attribute.OfFloat)
	case attribute.Float32:
		return of(data, attribute.OfFloat32)
	case attribute.Timestamp:
		return of(data, func(t wireTime) attribute.Value { return attribute.OfTimestamp(t.time()) })
	}
	return attribute.Value{}, fmt.Errorf("type %d is unknown", t)
}

// of decodes a value of a Go type, all of data, and makes an attribute's of it: one that is
// encoded so.
func of[T any](data []byte, build func(T) attribute.Value) (attribute.Value, error) {
	var x T
	if err := unmarshal(data, &x); err != nil {
		return attribute.Value{}, err
	}
	v := build(x)
	if again, err := encodeValue(v); err != nil || string(again) != string(data) {
		return attribute.Value{}, errors.New("the value is not encoded as one of its type")
	}
	return v, nil
}
