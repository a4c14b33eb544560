package server

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
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
		return errors.New(jsonError(err.Error()))
	}
	return nil
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
