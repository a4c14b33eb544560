package server

import (
	"context"
	"errors"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// decodeJSON decodes a message in JSON.
func decodeJSON(ctx context.Context, data []byte, m proto.Message) error {
	if len(data) == 0 {
		return errors.New("the body is empty; accepted: a JSON object")
	}
	data, elements, err := checkJSON(ctx, data, m.ProtoReflect().Descriptor())
	if err == nil {
		err = takeDecodingTurn(ctx, elements)
	}
	if err != nil {
		return err
	}
	if len(data) <= smallMessage {
		err = unmarshalJSON(data, m)
	} else {
		p := &pace{ctx: ctx}
		err = p.unmarshalJSON(data, pacedMessage{m.ProtoReflect(), p})
		if p.err != nil {
			return p.err
		}
	}
	if err != nil {
		return undecodable(ctx, data, m.ProtoReflect().Descriptor(), err)
	}
	return nil
}

func unmarshalJSON(data []byte, m proto.Message) error {
	return protojson.UnmarshalOptions{AllowPartial: true, RecursionLimit: maxDepth}.Unmarshal(data, m)
}

// unmarshalJSON decodes a message that is paced.
func (p *pace) unmarshalJSON(data []byte, m proto.Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != any(p) {
				panic(r)
			}
			err = p.err
		}
	}()
	return unmarshalJSON(data, m)
}

// mustStep is a step of what cannot be told to stop, protojson: it panics.
func (p *pace) mustStep() {
	if !p.step(settingSteps) {
		panic(p)
	}
}

// pacedMessage is a message that is filled at a pace.
type pacedMessage struct {
	protoreflect.Message
	pace *pace
}

// ProtoReflect implements [proto.Message].
func (m pacedMessage) ProtoReflect() protoreflect.Message { return m }

// Interface implements [protoreflect.Message].
func (m pacedMessage) Interface() protoreflect.ProtoMessage { return m }

// Mutable implements [protoreflect.Message].
func (m pacedMessage) Mutable(field protoreflect.FieldDescriptor) protoreflect.Value {
	return m.pace.paced(field, m.Message.Mutable(field))
}

// NewField implements [protoreflect.Message].
func (m pacedMessage) NewField(field protoreflect.FieldDescriptor) protoreflect.Value {
	return m.pace.paced(field, m.Message.NewField(field))
}

// Set implements [protoreflect.Message].
func (m pacedMessage) Set(field protoreflect.FieldDescriptor, v protoreflect.Value) {
	m.Message.Set(field, unpaced(field, v))
}

// pacedList is a list of a paced message.
type pacedList struct {
	protoreflect.List
	field protoreflect.FieldDescriptor
	pace  *pace
}

// NewElement implements [protoreflect.List].
func (l pacedList) NewElement() protoreflect.Value {
	return l.pace.pacedMessage(l.field.Message(), l.List.NewElement())
}

// Append implements [protoreflect.List].
func (l pacedList) Append(v protoreflect.Value) {
	l.pace.mustStep()
	l.List.Append(unpaced(l.field, v))
}

// pacedMap is a map of a paced message.
type pacedMap struct {
	protoreflect.Map
	field protoreflect.FieldDescriptor
	pace  *pace
}

// NewValue implements [protoreflect.Map].
func (m pacedMap) NewValue() protoreflect.Value {
	return m.pace.pacedMessage(m.field.MapValue().Message(), m.Map.NewValue())
}

// Set implements [protoreflect.Map].
func (m pacedMap) Set(k protoreflect.MapKey, v protoreflect.Value) {
	m.pace.mustStep()
	m.Map.Set(k, unpaced(m.field.MapValue(), v))
}

// paced returns the value of a field that may have many elements.
func (p *pace) paced(field protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch {
	case field.IsList():
		return protoreflect.ValueOfList(pacedList{v.List(), field, p})
	case field.IsMap():
		return protoreflect.ValueOfMap(pacedMap{v.Map(), field, p})
	}
	return p.pacedMessage(field.Message(), v)
}

// pacedMessage returns a value that may be a message.
func (p *pace) pacedMessage(m protoreflect.MessageDescriptor, v protoreflect.Value) protoreflect.Value {
	if m == nil {
		return v
	}
	return protoreflect.ValueOfMessage(pacedMessage{v.Message(), p})
}

// unpaced returns a value of a field as the message has it.
func unpaced(field protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	if field.Message() == nil {
		return v
	}
	switch of := v.Interface().(type) {
	case pacedMessage:
		return protoreflect.ValueOfMessage(of.Message)
	case pacedList:
		return protoreflect.ValueOfList(of.List)
	case pacedMap:
		return protoreflect.ValueOfMap(of.Map)
	}
	return v
}
