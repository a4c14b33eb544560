package overlay

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
)

// ErrNoAttribute is the class of errors that say that a snapshot has no attribute of a name.
// Another snapshot may have it; in one that has not it does not count, and does no harm.
var ErrNoAttribute = errors.New("the snapshot has no such attribute")

// Shape is what must be known of a snapshot to tell whether events fit it: its manifest says
// all of it.
type Shape struct {
	Model, ModelVersion string
	Dim                 int
	Metric              index.Metric
	Apps, Users         attribute.Schema
}

// Fits returns an error if an event, which [live.Event.Check] accepts, would not count in
// the snapshot as it is, though it is of its model version or of all: because of a vector's
// dimension or norm, or an attribute's type. It is a [*live.EventError], and of class
// [ErrNoAttribute] if there is nothing else than attributes that the snapshot does not have.
func (s *Shape) Fits(e *live.Event) error {
	switch e.Kind {
	case live.Upsert:
		if e.Model != s.Model || e.ModelVersion != s.ModelVersion {
			return nil
		}
		if err := s.fitsVector(e.Vector); err != nil {
			return &live.EventError{Field: "vector", Err: err}
		}
	case live.SetAttributes:
	default:
		return nil
	}
	schema := s.Apps
	if e.Tower == shard.Users {
		schema = s.Users
	}
	var unknown error
	for _, name := range sortedNames(e.Attributes) {
		_, _, err := fitsAttribute(schema, name, e.Attributes[name])
		if err == nil {
			continue
		}
		err = &live.EventError{Field: fmt.Sprintf("attributes[%q]", name), Err: err}
		if !errors.Is(err, ErrNoAttribute) {
			return err
		}
		if unknown == nil {
			unknown = err
		}
	}
	return unknown
}

// Shape returns that of the snapshot. Nothing of it changes.
func (a *Applier) Shape() *Shape { return &a.shape }

// Served is a snapshot that serves, and how errors name it, such as "arm control".
type Served struct {
	Name string
	*Shape
}

// FitsServed returns an error if an event would not count, in one of the snapshots that it is
// for, as it is (see [Shape.Fits]), and names that. An attribute that only some of them have
// counts in those, as where a split adds it.
func FitsServed(served []Served, e *live.Event) error {
	for _, s := range served {
		if err := s.Fits(e); err != nil && !errors.Is(err, ErrNoAttribute) {
			return of(s.Name, err)
		}
	}
	for _, name := range sortedNames(e.Attributes) {
		one := *e
		one.Attributes = map[string]attribute.Value{name: e.Attributes[name]}
		var unknown error
		for _, s := range served {
			if e.Kind == live.Upsert && (e.Model != s.Model || e.ModelVersion != s.ModelVersion) {
				continue // it is not for this one
			}
			err := s.Fits(&one)
			if err == nil {
				unknown = nil
				break
			}
			if unknown == nil {
				unknown = of(s.Name, err)
			}
		}
		if unknown != nil {
			return unknown
		}
	}
	return nil
}

func of(name string, err error) error {
	if wrong, ok := errors.AsType[*live.EventError](err); ok {
		return &live.EventError{Field: wrong.Field, Err: fmt.Errorf("%w (%s)", wrong.Err, name)}
	}
	return fmt.Errorf("%w (%s)", err, name)
}

func sortedNames[V any](values map[string]V) []string {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fitsVector returns an error that says why a vector cannot be a row of a tower, as a
// build says it.
func (s *Shape) fitsVector(v []float32) error {
	if len(v) != s.Dim {
		return fmt.Errorf("it has %d numbers; accepted: %d, the dimension of model %s %s", len(v), s.Dim, s.Model, s.ModelVersion)
	}
	return s.Metric.CheckVector(v)
}

// fitsAttribute returns the schema position of an attribute, and a value as the snapshot
// stores it. An error says why it cannot be one.
func fitsAttribute(schema attribute.Schema, name string, v attribute.Value) (field int, stored attribute.Value, err error) {
	field, ok := schema.Lookup(name)
	if !ok {
		return 0, v, fmt.Errorf("%w; accepted: %s", ErrNoAttribute, namesOf(schema))
	}
	f := schema.Field(field)
	stored, ok = convert(v, f.Type)
	if !ok {
		return 0, v, fmt.Errorf("value %.64q is of type %s; accepted: %s", v.String(), v.Type(), accepted(f.Type))
	}
	return field, stored, f.Check(stored)
}

// namesOf lists what attributes there are, as far as an error has room.
func namesOf(schema attribute.Schema) string {
	const most = 50
	names := schema.Names()
	switch n := len(names); {
	case n == 0:
		return "none"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return strings.Join(names, ", ")
}

// accepted says what can be stored as a type.
func accepted(t attribute.Type) string {
	switch t {
	case attribute.Int:
		return "int, or a float that is a whole number below 2^53"
	case attribute.Float, attribute.Float32:
		return fmt.Sprintf("a finite %s, or an int that it holds exactly", t)
	case attribute.Timestamp:
		return "timestamp, or a keyword that is one in RFC 3339"
	}
	return t.String()
}

// convert returns a value as one of a type, and whether it can be: as a build converts what
// its inputs have, in which numbers have no types, and times are texts. An absent value is
// one of every type.
func convert(v attribute.Value, t attribute.Type) (attribute.Value, bool) {
	if v.Absent() || v.Type() == t {
		return v, true
	}
	switch v.Type() {
	case attribute.Int:
		return ofInt(v.Int(), t)
	case attribute.Float, attribute.Float32:
		return ofFloat(v.Float(), t)
	case attribute.Keyword:
		if t != attribute.Timestamp {
			return v, false
		}
		at, err := time.Parse(time.RFC3339Nano, v.Keyword())
		return attribute.OfTimestamp(at), err == nil
	}
	return v, false
}

func ofInt(i int64, t attribute.Type) (attribute.Value, bool) {
	switch t {
	case attribute.Float:
		// 2^63 is a float64, and no int64.
		f := float64(i)
		return attribute.OfFloat(f), f < 1<<63 && int64(f) == i
	case attribute.Float32:
		f := float32(i)
		return attribute.OfFloat32(f), float64(f) < 1<<63 && int64(f) == i
	}
	return attribute.Value{}, false
}

// wholeLimit is the least whole number from which on not every one is a float64.
const wholeLimit = 1 << 53

func ofFloat(f float64, t attribute.Type) (attribute.Value, bool) {
	whole := f == math.Trunc(f)
	switch t {
	case attribute.Int:
		return attribute.OfInt(int64(f)), whole && math.Abs(f) < wholeLimit
	case attribute.Float:
		return attribute.OfFloat(f), true
	case attribute.Float32:
		single := float32(f)
		return attribute.OfFloat32(single), !math.IsInf(float64(single), 0) && (!whole || float64(single) == f)
	}
	return attribute.Value{}, false
}
