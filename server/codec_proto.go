package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

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
		return m.data, nil
	case *tandemv1.RetrieveResponse:
		e := encoder{data: dst}
		err := e.retrieve(m)
		return e.data, err
	case proto.Message:
		return proto.MarshalOptions{}.MarshalAppend(dst, m)
	}
	return nil, fmt.Errorf("%T is no protobuf message", m)
}

// Unmarshal implements [connect.Codec]. The error of a message that cannot be decoded is
// in the message.
func (protoCodec) Unmarshal(data []byte, m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protobuf message", m)
	}
	data, err := checkWire(data, p.ProtoReflect().Descriptor())
	if err != nil {
		refuse(p, err)
		return nil
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxDepth}).Unmarshal(data, p); err != nil {
		refuse(p, unparsable(data, p.ProtoReflect().Descriptor(), err))
	}
	return nil
}

// unparsable returns the error of a message in protobuf, for the error of its package,
// which may name types, and no field.
func unparsable(data []byte, m protoreflect.MessageDescriptor, err error) error {
	text := strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
	if !strings.Contains(text, "UTF-8") {
		return errors.New(text)
	}
	field := invalidText(data, m).text(false)
	return invalidf(reasonMalformed, field, "unmarshal message: %s is not UTF-8; accepted: UTF-8", cmp.Or(field, "a text"))
}

// refusedField is the number of a field that no message of the contract has.
const refusedField = protowire.MaxValidNumber

// refuse makes m a message that could not be decoded because of err. A codec cannot name
// and log a request, nor add details to its error; so the error goes to the interceptors
// in an unknown field, of which decoded messages have no other.
func refuse(m proto.Message, err error) {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		coded = invalidf(reasonMalformed, "", "unmarshal message: %w", err)
	}
	s := &status.Status{Code: int32(coded.Code()), Message: coded.Message()}
	for _, d := range coded.Details() {
		s.Details = append(s.Details, &anypb.Any{TypeUrl: "type.googleapis.com/" + d.Type(), Value: d.Bytes()})
	}
	proto.Reset(m)
	data, marshalErr := proto.Marshal(s)
	if marshalErr != nil {
		data = nil // it says no more than that it is refused
	}
	m.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, refusedField, protowire.BytesType), data))
}

// refusal returns the error of a message that could not be decoded, nil if it was.
func refusal(m proto.Message) error {
	number, _, n := protowire.ConsumeTag(m.ProtoReflect().GetUnknown())
	if n < 0 || number != refusedField {
		return nil
	}
	data, _ := protowire.ConsumeBytes(m.ProtoReflect().GetUnknown()[n:])
	var s status.Status
	if err := proto.Unmarshal(data, &s); err != nil || s.Code == 0 {
		return invalidf(reasonMalformed, "", "unmarshal message: it cannot be decoded")
	}
	coded := connect.NewError(connect.Code(s.Code), errors.New(s.Message))
	for _, d := range s.Details {
		if detail, err := connect.NewErrorDetail(d); err == nil {
			coded.AddDetail(detail)
		}
	}
	return coded
}

// decoding rejects requests that have not arrived or could not be decoded.
func decoding(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		if c := callFrom(ctx); c != nil && c.err != nil {
			return nil, c.err
		}
		if err := ctx.Err(); err != nil {
			return nil, err // nobody waits for what may be wrong
		}
		if m, ok := r.Any().(proto.Message); ok {
			if err := refusal(m); err != nil {
				return nil, err
			}
		}
		return next(ctx, r)
	}
}
