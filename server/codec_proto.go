package server

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// protoCodec is protobuf's binary form. Unlike Connect's own it counts the elements of
// lists before it makes them, drops unknown fields instead of keeping their bytes, and
// encodes answers faster.
type protoCodec struct{}

// Name implements [connect.Codec].
func (protoCodec) Name() string { return "proto" }

// Marshal implements [connect.Codec].
func (c protoCodec) Marshal(m any) ([]byte, error) { return c.MarshalAppend(nil, m) }

// MarshalAppend saves Connect a copy.
func (protoCodec) MarshalAppend(dst []byte, m any) ([]byte, error) {
	switch m := m.(type) {
	case *encoded:
		return m.appendTo(dst), nil
	case *tandemv1.RetrieveResponse:
		e := encoder{data: dst}
		err := e.retrieve(m)
		return e.data, err
	case proto.Message:
		return proto.MarshalOptions{}.MarshalAppend(dst, m)
	}
	return nil, fmt.Errorf("%T is no protobuf message", m)
}

// Unmarshal implements [connect.Codec]. The message is decoded later.
func (protoCodec) Unmarshal(data []byte, m any) error { return keep(m, keptWire, data) }
