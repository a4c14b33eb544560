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
	switch m := m.(type) {
	case *encoded:
		return m.data, nil
	case proto.Message:
		return protojson.MarshalOptions{}.MarshalAppend(dst, m)
	}
	return nil, fmt.Errorf("%T is no protobuf message", m)
}

// Unmarshal implements [connect.Codec]. The error of a message that cannot be decoded is
// in the message.
func (jsonCodec) Unmarshal(data []byte, m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protobuf message", m)
	}
	if len(data) == 0 {
		refuse(p, errors.New("the body is empty; accepted: a JSON object"))
		return nil
	}
	if err := checkJSON(data, p.ProtoReflect().Descriptor()); err != nil {
		refuse(p, err)
		return nil
	}
	if err := (protojson.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(data, p); err != nil {
		refuse(p, undecodable(p.ProtoReflect().Descriptor(), err))
	}
	return nil
}

var (
	jsonInvalid = regexp.MustCompile(`invalid value for (\w+) field (\w+): `)
	jsonField   = regexp.MustCompile(`(?:unknown|duplicate) field "([^"]+)"`)
)

// undecodable returns the error of a message in JSON, for the error of protojson.
func undecodable(m protoreflect.MessageDescriptor, err error) error {
	text, field := jsonError(err.Error()), ""
	if found := jsonInvalid.FindStringSubmatch(text); found != nil {
		field = found[2]
		text = strings.Replace(text, found[0], field+" is ", 1) + accepted(m, found[1], field)
		if known := m.Fields().ByJSONName(field); known != nil {
			field = string(known.Name())
		}
	} else if found := jsonField.FindStringSubmatch(text); found != nil {
		field = found[1]
	}
	return invalidf(reasonMalformed, field, "unmarshal message: %s", text)
}

// accepted says what a field of a kind accepts.
func accepted(m protoreflect.MessageDescriptor, kind, name string) string {
	switch kind {
	case "enum":
		field := m.Fields().ByJSONName(name)
		if field == nil {
			field = m.Fields().ByTextName(name)
		}
		if field == nil || field.Enum() == nil {
			return "; accepted: a name of the enum" // of a message within m
		}
		var names []string
		for i := range field.Enum().Values().Len() {
			names = append(names, string(field.Enum().Values().Get(i).Name()))
		}
		return "; accepted: " + strings.Join(names, ", ")
	case "uint32":
		return "; accepted: a whole number from 0 to 4294967295"
	case "double":
		return "; accepted: a number"
	case "float":
		return "; accepted: a number of up to 3.4e38"
	case "string":
		return "; accepted: a string"
	case "bool":
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
