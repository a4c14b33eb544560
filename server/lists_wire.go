package server

import (
	"context"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// checkWire returns an error if the lists of a message in protobuf are too long. Else it
// returns the message without what no binding may have and what takes long to decode: its
// objects are empty, and so are lists within a list, which end that. So who looks at
// the binding finds it wrong, and no other of a batch. It changes data where it leaves
// something out. It says nothing of a message that is malformed, and it counts no elements of one that is small. The error may be the
// context's.
func checkWire(ctx context.Context, data []byte, m protoreflect.MessageDescriptor) (short []byte, elements int, err error) {
	if len(data) <= smallMessage {
		return data, 0, nil
	}
	w := wireScanner{data: data, counter: newCounter(ctx, m)}
	w.fields(0, len(data), m, 0)
	return w.data, w.counter.total, w.counter.broken()
}

// wireScanner counts the elements of a message in protobuf.
type wireScanner struct {
	data    []byte
	counter *counter
	within  bool // it is in a list of a binding
	refused bool // which has an object or a list
	texts   bool // it looks for a text that is not UTF-8, and changes nothing
	found   valuePath
}

// invalidText returns the path of the first text of a message in protobuf that is not
// UTF-8, nil if there is none. The error is the context's.
func invalidText(ctx context.Context, data []byte, m protoreflect.MessageDescriptor) (valuePath, error) {
	w := wireScanner{data: data, counter: newCounter(ctx, m), texts: true}
	w.fields(0, len(data), m, 0)
	return w.found, w.counter.pace.err
}

// The numbers of the fields of a value.
const (
	structNumber = 5
	listNumber   = 6
)

// fields counts in a message that is between two places, and reports whether to go on.
func (w *wireScanner) fields(from, to int, m protoreflect.MessageDescriptor, depth int) bool {
	c := w.counter
	if c.deep = depth > maxDepth; c.deep {
		return false
	}
	var field protoreflect.FieldDescriptor
	elements := 0 // of the field, from where it was another
	named := m.ParentFile().Package() != valueName.Parent() && !m.IsMapEntry()
	end := func() {
		if elements > c.most {
			if named {
				c.push(step{field: field})
				defer c.pop()
			}
			c.counted(elements)
		}
	}
	defer func() { end() }()
	for from < to {
		if !c.pace.step(countingSteps) {
			return false
		}
		number, typ, n := protowire.ConsumeTag(w.data[from:to])
		if n < 0 {
			return false
		}
		from += n
		start := from
		if n = protowire.ConsumeFieldValue(number, typ, w.data[from:to]); n < 0 {
			return false
		}
		from += n
		if field == nil || field.Number() != number {
			end()
			field, elements = m.Fields().ByNumber(number), 0
		}
		if field == nil || typ != protowire.BytesType {
			continue // numbers take no more memory than in the message
		}
		_, n = protowire.ConsumeVarint(w.data[start:from])
		start += n
		depthOfPath := len(c.path)
		if named {
			c.push(step{field: field})
		}
		isMessage := field.Message() != nil
		if field.IsMap() || field.IsList() && (isMessage || !field.IsPacked()) {
			c.push(step{index: elements})
			if !c.add(field, &elements, depth) {
				c.path = c.path[:depthOfPath]
				return false
			}
		} else if m.IsMapEntry() && number == 1 {
			c.path[len(c.path)-1].key = w.data[start:from]
		}
		if w.texts && field.Kind() == protoreflect.StringKind && !utf8.Valid(w.data[start:from]) {
			w.found = slices.Clone(c.path)
			return false
		}
		ok := !isMessage || w.value(start, from, m, field, depth)
		c.path = c.path[:depthOfPath]
		if !ok {
			return false
		}
		if w.refused && m.FullName() == listValueName {
			w.empty(from, to)
			return true
		}
	}
	return true
}

// value counts in the message of a field, and reports whether to go on.
func (w *wireScanner) value(from, to int, m protoreflect.MessageDescriptor, field protoreflect.FieldDescriptor, depth int) bool {
	if !isBinding(m) || field.Number() == listNumber && !w.within || w.texts {
		w.within = isBinding(m) || m.FullName() == listValueName
		ok := w.fields(from, to, field.Message(), depth+1)
		if isBinding(m) {
			w.within, w.refused = false, false
		}
		return ok
	}
	w.refused = w.within
	w.empty(from, to)
	return true
}

// emptyBytes is how many bytes a field of what is not decoded takes beside that.
const emptyBytes = 2 + 5

// empty makes what is between two places, fields of a message, one that there is not. A
// few bytes stay.
func (w *wireScanner) empty(from, to int) {
	if to-from < emptyBytes {
		return
	}
	out := w.data[from:to]
	protowire.AppendTag(out[:0], emptyField, protowire.BytesType)
	rest := uint32(to - from - emptyBytes)
	for i := range 5 {
		out[2+i] = byte(rest>>(7*i))&0x7f | 0x80 // a length may have more bytes than it needs
	}
	out[emptyBytes-1] &^= 0x80
}

// emptyField is the number of a field that no message has, whose tag has two bytes.
const emptyField = 2000
