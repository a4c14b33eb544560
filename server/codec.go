package server

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

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
		return m.appendTo(dst), nil
	case proto.Message:
		return protojson.MarshalOptions{}.MarshalAppend(dst, m)
	}
	return nil, fmt.Errorf("%T is no protobuf message", m)
}

// Unmarshal implements [connect.Codec]. The message is decoded later.
func (jsonCodec) Unmarshal(data []byte, m any) error { return keep(m, keptJSON, data) }

// What protojson says is wrong, after where.
var (
	jsonInvalid    = regexp.MustCompile(`^invalid value for (\w+) field \w+: `)
	jsonNumber     = regexp.MustCompile(`^invalid google\.protobuf\.Value: `)
	jsonField      = regexp.MustCompile(`^(?:unknown|duplicate) field "([^"]+)"`)
	jsonUnexpected = regexp.MustCompile(`^unexpected token `)
	jsonSet        = regexp.MustCompile(`^error parsing ("[^"]*"), oneof \S+ is already set`)
	jsonPlace      = regexp.MustCompile(`^(syntax error )?\(line (\d+):(\d+)\): `)
)

// undecodable returns the error of a message in JSON, for the error of protojson. It names
// no type, but the field, as JSON has it.
func undecodable(ctx context.Context, data []byte, m protoreflect.MessageDescriptor, err error) error {
	// The prefix is unstable by design, and what follows may be a value of any length.
	text := shortened(strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0"), maxDescription)
	place := jsonPlace.FindStringSubmatch(text)
	if place == nil {
		if text == "unexpected EOF" {
			text = "the JSON object ends too early"
		}
		return invalidf(reasonMalformed, "", "unmarshal message: %s", text)
	}
	text = strings.TrimPrefix(text, place[0])
	line, _ := strconv.Atoi(place[2]) // digits
	column, _ := strconv.Atoi(place[3])
	at, ended := pathOf(ctx, data, m, offset(data, line, column))
	if ended != nil {
		return ended
	}
	field, name := at.text(false), at.text(true)
	switch {
	case jsonInvalid.MatchString(text):
		found := jsonInvalid.FindStringSubmatch(text)
		text = name + " is " + strings.TrimPrefix(text, found[0]) + accepted(at.field(), found[1])
	case jsonNumber.MatchString(text):
		text = name + " is " + jsonNumber.ReplaceAllLiteralString(text, "") + "; accepted: a string, a number of up to 1.8e308, a bool, or a list of them"
	case jsonField.MatchString(text):
		unknown := jsonField.FindStringSubmatch(text)[1]
		if name != "" {
			field, text = field+".", text+" of "+name
		}
		field += unknown
	case jsonSet.MatchString(text):
		text = jsonSet.ReplaceAllString(text, "field $1 is set beside another; accepted: one of them")
	case jsonUnexpected.MatchString(text) && name != "":
		text += " of " + name
	}
	return invalidf(reasonMalformed, field, "unmarshal message: %sline %d, column %d: %s", place[1], line, column, text)
}

// offset returns which byte of a text is in a line and a column, both from 1 on.
func offset(data []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		at += bytes.IndexByte(data[at:], '\n') + 1
	}
	for ; column > 1 && at < len(data); column-- {
		n := 1
		if data[at] >= utf8.RuneSelf {
			_, n = utf8.DecodeRune(data[at:])
		}
		at += n
	}
	return at
}

// field returns the last field of a path, nil if there is none.
func (p valuePath) field() protoreflect.FieldDescriptor {
	for _, s := range slices.Backward(p) {
		if s.field != nil {
			return s.field
		}
	}
	return nil
}

// accepted says what a field of a kind accepts.
func accepted(field protoreflect.FieldDescriptor, kind string) string {
	switch kind {
	case "enum":
		if field == nil || field.Enum() == nil {
			return "" // JSON that breaks off before it
		}
		var names []string
		for i := range field.Enum().Values().Len() {
			names = append(names, string(field.Enum().Values().Get(i).Name()))
		}
		return "; accepted: " + strings.Join(names, ", ")
	case "uint32":
		return "; accepted: a whole number from 0 to 4294967295"
	case "uint64":
		return "; accepted: a whole number from 0 to 18446744073709551615"
	case "int64":
		return "; accepted: a whole number from -9223372036854775808 to 9223372036854775807"
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
