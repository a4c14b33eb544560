package server

import (
	"bytes"
	"context"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// checkJSON does what checkWire does, for a message in JSON.
func checkJSON(ctx context.Context, data []byte, m protoreflect.MessageDescriptor) (short []byte, elements int, err error) {
	if len(data) <= smallMessage {
		return data, 0, nil
	}
	s := newJSONScanner(ctx, data, m, len(data))
	s.value(m, 0)
	return s.data, s.counter.total, s.counter.broken()
}

// pathOf returns the path of what is at a place of a message in JSON: of the value there,
// or of the message that has the name of a field there. The error is the context's.
func pathOf(ctx context.Context, data []byte, m protoreflect.MessageDescriptor, place int) (valuePath, error) {
	s := newJSONScanner(ctx, data, m, place)
	s.value(m, 0)
	return s.found, s.counter.pace.err
}

// scanStep is how many bytes of a text, or of spaces, are scanned between two looks.
const scanStep = 64 << 10

// jsonScanner counts the elements of a message in JSON, up to a place. It takes each
// list, and each entry of an object that is no message, for an element.
type jsonScanner struct {
	data    []byte
	rest    []byte // of data, not scanned yet
	counter *counter
	place   int
	found   valuePath // of the place
	within  bool      // it is in a list of a binding
	refused bool      // which has an object or a list
}

func newJSONScanner(ctx context.Context, data []byte, m protoreflect.MessageDescriptor, place int) *jsonScanner {
	return &jsonScanner{data: data, rest: data, counter: newCounter(ctx, m), place: place}
}

// at returns how many bytes are scanned.
func (s *jsonScanner) at() int { return len(s.data) - len(s.rest) }

// ended reports whether the place is reached.
func (s *jsonScanner) ended() bool {
	s.space()
	if s.at() < s.place {
		return false
	}
	if s.found == nil {
		s.found = append(valuePath{}, s.counter.path...)
	}
	return true
}

// value reads a value, a message if m is not nil. It reports whether to go on.
func (s *jsonScanner) value(m protoreflect.MessageDescriptor, depth int) bool {
	if s.counter.deep = depth > maxDepth; s.counter.deep || !s.counter.pace.step(countingSteps) || s.ended() || len(s.rest) == 0 {
		return false
	}
	switch s.rest[0] {
	case '{', '[':
		if isBinding(m) {
			return s.binding(depth)
		}
		return s.nested(m, depth)
	case '"':
		_, ok := s.text()
		return ok
	}
	for i, c := range s.rest[:min(len(s.rest), maxNumber+1)] {
		switch c {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			s.rest = s.rest[i:]
			return i > 0
		}
	}
	if len(s.rest) > maxNumber && bytes.IndexByte([]byte("-0123456789"), s.rest[0]) >= 0 {
		s.counter.long = append(valuePath{}, s.counter.path...)
	}
	s.rest = nil
	return s.counter.long == nil
}

// nested reads an object, a message if m is not nil, or a list.
func (s *jsonScanner) nested(m protoreflect.MessageDescriptor, depth int) bool {
	if s.rest[0] == '{' {
		n := 0
		return s.list('}', func() bool { return s.member(m, &n, depth) })
	}
	return s.elements(nil, nil, depth)
}

// elements reads a list, of values, which are messages if m is not nil.
func (s *jsonScanner) elements(field protoreflect.FieldDescriptor, m protoreflect.MessageDescriptor, depth int) bool {
	c, n := s.counter, 0
	ok := s.list(']', func() bool {
		c.push(step{index: n})
		ok := c.add(field, &n, depth) && s.value(m, depth+1)
		c.pop()
		return ok
	})
	c.counted(n)
	return ok
}

// binding reads a list or an object that is the value of a binding, or in a list of one.
func (s *jsonScanner) binding(depth int) bool {
	from := s.at() + 1
	if s.rest[0] == '{' || s.within {
		ok := s.nested(nil, depth)
		s.refused = s.within
		s.empty(from, ok)
		return ok
	}
	s.within = true
	c, n, last := s.counter, 0, 0
	ok := s.list(']', func() bool {
		c.push(step{index: n})
		ok := c.add(nil, &n, depth+1) && s.value(valueType, depth+1)
		c.pop()
		if s.refused && last == 0 {
			last = s.at()
		}
		return ok
	})
	c.counted(n)
	if last > 0 {
		s.empty(last, ok)
	}
	s.within, s.refused = false, false
	return ok
}

// empty makes what is from a place on to here spaces, but for the bracket if that is
// there.
func (s *jsonScanner) empty(from int, closed bool) {
	to := s.at()
	if closed {
		to--
	}
	if from >= to {
		return
	}
	for i, c := range s.data[from:to] {
		if c != '\n' { // the places of errors are told by lines
			s.data[from+i] = ' '
		}
	}
}

// member reads a member of an object, which has n so far.
func (s *jsonScanner) member(m protoreflect.MessageDescriptor, n *int, depth int) bool {
	if s.ended() {
		return false
	}
	name, ok := s.text()
	if !ok || !s.skip(':') {
		return false
	}
	c := s.counter
	if m == nil {
		return c.add(nil, n, depth+1) && s.value(nil, depth+1)
	}
	field := m.Fields().ByJSONName(string(name))
	if field == nil {
		field = m.Fields().ByTextName(string(name))
	}
	if field == nil {
		return s.value(nil, depth+1)
	}
	c.push(step{field: field})
	defer c.pop()
	s.space()
	switch {
	case field.IsMap() && len(s.rest) > 0 && s.rest[0] == '{' && !s.ended():
		entries := 0
		ok := s.list('}', func() bool { return s.entry(field, &entries, depth) })
		c.counted(entries)
		return ok
	case field.IsList() && len(s.rest) > 0 && s.rest[0] == '[' && !s.ended():
		return s.elements(field, field.Message(), depth)
	case field.IsMap() || field.IsList():
		return s.value(nil, depth+1)
	}
	return s.value(field.Message(), depth+1)
}

// entry reads an entry of a map, which has n so far.
func (s *jsonScanner) entry(field protoreflect.FieldDescriptor, n *int, depth int) bool {
	if s.ended() {
		return false
	}
	key, ok := s.text()
	if !ok || !s.skip(':') {
		return false
	}
	c := s.counter
	c.push(step{key: key})
	defer c.pop()
	return c.add(field, n, depth) && s.value(field.MapValue().Message(), depth+2)
}

// list reads what stands between brackets, with commas between.
func (s *jsonScanner) list(end byte, element func() bool) bool {
	s.rest = s.rest[1:]
	if s.skip(end) {
		return true
	}
	for element() {
		if s.skip(end) {
			return true
		}
		if !s.skip(',') {
			return false
		}
	}
	return false
}

// text reads a string and returns it as it is written.
func (s *jsonScanner) text() ([]byte, bool) {
	if len(s.rest) == 0 || s.rest[0] != '"' {
		return nil, false
	}
	look := scanStep
	for i := 1; i < len(s.rest); i++ {
		if i >= look {
			if look = i + scanStep; !s.counter.pace.look() {
				return nil, false
			}
		}
		switch s.rest[i] {
		case '\\':
			i++
		case '"':
			text := s.rest[1:i]
			s.rest = s.rest[i+1:]
			return text, true
		}
	}
	return nil, false
}

func (s *jsonScanner) space() {
	for n := 1; len(s.rest) > 0; n++ {
		switch s.rest[0] {
		case ' ', '\t', '\r', '\n':
			s.rest = s.rest[1:]
		default:
			return
		}
		if n%scanStep == 0 && !s.counter.pace.look() {
			s.rest = nil
		}
	}
}

// skip reads a byte, if it is next.
func (s *jsonScanner) skip(c byte) bool {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}
