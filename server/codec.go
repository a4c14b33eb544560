package server

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// jsonCodec is protobuf's JSON, strict: a field that the contract does not have is
// an error. Connect's own codec drops it, and a misspelt filter or model_version
// would silently not apply. In binary messages unknown fields are dropped, as
// protobuf does everywhere.
type jsonCodec struct {
	name string // as in the content type
}

// Name implements [connect.Codec].
func (c jsonCodec) Name() string { return c.name }

// Marshal implements [connect.Codec].
func (c jsonCodec) Marshal(m any) ([]byte, error) { return c.MarshalAppend(nil, m) }

// MarshalAppend saves Connect a copy.
func (jsonCodec) MarshalAppend(dst []byte, m any) ([]byte, error) {
	p, ok := m.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no protobuf message", m)
	}
	return protojson.MarshalOptions{}.MarshalAppend(dst, p)
}

// Unmarshal implements [connect.Codec].
func (jsonCodec) Unmarshal(data []byte, m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protobuf message", m)
	}
	if len(data) == 0 {
		return errors.New("the body is empty; accepted: a JSON object")
	}
	if err := protojson.Unmarshal(data, p); err != nil {
		text := jsonError(err.Error())
		return errors.New(text + accepted(p.ProtoReflect().Descriptor(), text))
	}
	return nil
}

var jsonInvalid = regexp.MustCompile(`invalid value for \w+ field (\w+)`)

// accepted says what a field accepts, when text is protojson's complaint about the
// value of a scalar or an enum of m.
func accepted(m protoreflect.MessageDescriptor, text string) string {
	found := jsonInvalid.FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	field := m.Fields().ByJSONName(found[1])
	if field == nil {
		if field = m.Fields().ByTextName(found[1]); field == nil {
			return "" // of a message within m
		}
	}
	switch field.Kind() {
	case protoreflect.EnumKind:
		var names []string
		for i := range field.Enum().Values().Len() {
			names = append(names, string(field.Enum().Values().Get(i).Name()))
		}
		return "; accepted: " + strings.Join(names, ", ")
	case protoreflect.Uint32Kind:
		return "; accepted: a whole number from 0 to 4294967295"
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		return "; accepted: a number"
	case protoreflect.StringKind:
		return "; accepted: a string"
	case protoreflect.BoolKind:
		return "; accepted: true, false"
	}
	return ""
}

var jsonPlace = regexp.MustCompile(`^(syntax error )?\(line (\d+):(\d+)\): `)

// jsonError rewords protojson's errors, whose prefix is unstable by design.
func jsonError(text string) string {
	text = strings.TrimLeft(strings.TrimPrefix(text, "proto:"), " \u00a0")
	if text == "unexpected EOF" {
		return "the JSON object ends too early"
	}
	return jsonPlace.ReplaceAllString(text, "${1}line $2, column $3: ")
}
