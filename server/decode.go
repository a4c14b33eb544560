package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tandem-ann/tandem/index"
)

// A codec knows no context, and to decode 8 MiB may take a second. So codecs keep the bytes
// of a message in it, and the interceptors decode it: in pieces, between which they give
// way to others and look whether the request has ended.

// The numbers of the field that has the bytes of a message that is not decoded yet: no
// message of the contract has them, and decoded messages have no unknown fields.
const (
	keptWire = protowire.MaxValidNumber
	keptJSON = protowire.MaxValidNumber - 1
)

// keep makes m a message that is not decoded yet.
func keep(m any, form protowire.Number, data []byte) error {
	p, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protobuf message", m)
	}
	proto.Reset(p)
	kept := make([]byte, 0, protowire.SizeTag(form)+protowire.SizeBytes(len(data)))
	p.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(kept, form, protowire.BytesType), data))
	return nil
}

// decode decodes what a codec has kept of a message, if it is one. The error is the
// caller's fault, or that of the context, or of a call that has no turn to do long work. The
// message is empty then.
func decode(ctx context.Context, m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return nil
	}
	kept := p.ProtoReflect().GetUnknown()
	form, _, n := protowire.ConsumeTag(kept)
	if n < 0 || form != keptWire && form != keptJSON {
		return nil
	}
	data, _ := protowire.ConsumeBytes(kept[n:])
	p.ProtoReflect().SetUnknown(nil)
	return decodeFrom(ctx, form, data, p)
}

// decodeFrom decodes data, which is in a form, into an empty message, which keeps nothing of
// it. It may change data. The error is as that of decode.
func decodeFrom(ctx context.Context, form protowire.Number, data []byte, p proto.Message) error {
	unmarshal := decodeWire
	if form == keptJSON {
		unmarshal = decodeJSON
	}
	err := unmarshal(ctx, data, p)
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		err = ended
	} else if err != nil && !errors.As(err, new(*connect.Error)) {
		err = invalidf(reasonMalformed, "", "unmarshal message: %w", err)
	}
	if err != nil {
		proto.Reset(p)
	}
	return err
}

// received decodes the message of a request, unless the request is refused already. It
// returns an error if it is to be refused.
func received(ctx context.Context, m any) error {
	c := callFrom(ctx)
	p, ok := m.(proto.Message)
	var err error
	switch {
	case ok && c != nil && (c.err != nil || c.taken || c.body != nil && !c.get):
		proto.Reset(p) // Connect knows nothing of it
		if c.err != nil {
			return c.err
		}
		err = c.decode(ctx, p)
	default: // it came with the URL, or without a body
		err = decode(ctx, m)
	}
	if ended := ctx.Err(); ended != nil {
		return ended // nobody waits for what may be wrong
	}
	return err
}

// decoding rejects requests that have not arrived or could not be decoded.
func decoding(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		if err := received(ctx, r.Any()); err != nil {
			return nil, err
		}
		return next(ctx, r)
	}
}

// largeElements is how many elements the lists of a message may have for one to be decoded
// at any time: that takes less than about a millisecond.
const largeElements = 1024

// takeDecodingTurn waits for a turn if it takes long to decode so many elements.
func takeDecodingTurn(ctx context.Context, elements int) error {
	if c := callFrom(ctx); c != nil && elements > largeElements {
		return c.takeTurn(ctx)
	}
	return nil
}

// pace has long work give way to others, and end with its context.
type pace struct {
	ctx   context.Context
	steps int   // since the last look
	err   error // the context's
}

// What elements cost, in steps of about 50 ns.
const (
	countingSteps = 1
	settingSteps  = 8
)

// step counts some steps, and reports whether to go on.
func (p *pace) step(n int) bool {
	const most = 4096
	if p.steps += n; p.steps < most {
		return true
	}
	p.steps = 0
	return p.look()
}

// look gives way to others, and reports whether to go on.
func (p *pace) look() bool {
	index.GiveWay()
	p.err = cmp.Or(p.err, p.ctx.Err())
	return p.err == nil
}

// pieceBytes is how many bytes of a message in protobuf are decoded at once, unless a text
// or a list of numbers has more.
const pieceBytes = 4 << 10

// decodeWire decodes a message in protobuf.
func decodeWire(ctx context.Context, data []byte, m proto.Message) error {
	data, elements, err := checkWire(ctx, data, m.ProtoReflect().Descriptor())
	if err == nil {
		err = takeDecodingTurn(ctx, elements)
	}
	if err != nil {
		return err
	}
	d := wireDecoder{pace{ctx: ctx}}
	if err := d.message(data, m.ProtoReflect()); err != nil {
		if d.err != nil {
			return d.err
		}
		return unparsable(ctx, data, m.ProtoReflect().Descriptor(), err)
	}
	return nil
}

// wireDecoder decodes a message in protobuf piece by piece: fields of a message may be
// decoded one after another into the same.
type wireDecoder struct{ pace }

// message adds what is in data to a message.
func (d *wireDecoder) message(data []byte, m protoreflect.Message) error {
	from, at := 0, 0
	add := func(to int) error {
		piece := data[from:to]
		if from = to; len(piece) == 0 {
			return nil
		}
		if len(piece) >= pieceBytes && !d.look() {
			return d.err
		}
		return proto.UnmarshalOptions{Merge: true, AllowPartial: true, DiscardUnknown: true, RecursionLimit: maxDepth}.Unmarshal(piece, m.Interface())
	}
	for at < len(data) && len(data) >= pieceBytes {
		start := at
		number, typ, n := protowire.ConsumeTag(data[at:])
		if n < 0 {
			break // and the rest is what is wrong
		}
		size := protowire.ConsumeFieldValue(number, typ, data[at+n:])
		if size < 0 {
			break
		}
		at += n + size
		if at-from < pieceBytes {
			continue
		}
		field := m.Descriptor().Fields().ByNumber(number)
		if at-start < pieceBytes || field == nil || field.Message() == nil || typ != protowire.BytesType {
			if err := add(at); err != nil {
				return err
			}
			continue
		}
		if err := add(start); err != nil {
			return err
		}
		inner, _ := protowire.ConsumeBytes(data[start+n : at])
		if err := d.field(inner, m, field); err != nil {
			return err
		}
		from = at
	}
	return add(len(data))
}

// field adds what is in data to a field that has messages.
func (d *wireDecoder) field(data []byte, m protoreflect.Message, field protoreflect.FieldDescriptor) error {
	switch {
	case field.IsMap():
		return d.entry(data, m.Mutable(field).Map())
	case field.IsList():
		return d.message(data, m.Mutable(field).List().AppendMutable().Message())
	}
	return d.message(data, m.Mutable(field).Message())
}

// entry adds an entry, whose key is a text and whose value is a message, to a map.
func (d *wireDecoder) entry(data []byte, m protoreflect.Map) error {
	var key []byte
	value := m.NewValue()
	for len(data) > 0 {
		number, typ, n := protowire.ConsumeField(data)
		if n < 0 {
			return errors.New("cannot parse invalid wire-format data")
		}
		if typ == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(data)
			inner, _ := protowire.ConsumeBytes(data[tag:n])
			switch number {
			case 1:
				key = inner
			case 2:
				if err := d.message(inner, value.Message()); err != nil {
					return err
				}
			}
		}
		data = data[n:]
	}
	if !utf8.Valid(key) {
		return errors.New("the key is not UTF-8")
	}
	m.Set(protoreflect.ValueOfString(string(key)).MapKey(), value)
	return nil
}

// unparsable returns the error of a message in protobuf, for the error of its package,
// which may name types, and no field.
func unparsable(ctx context.Context, data []byte, m protoreflect.MessageDescriptor, err error) error {
	text := strings.TrimLeft(strings.TrimPrefix(err.Error(), "proto:"), " \u00a0")
	if !strings.Contains(text, "UTF-8") {
		return errors.New(text)
	}
	path, ended := invalidText(ctx, data, m)
	if ended != nil {
		return ended
	}
	field := path.text(false)
	return invalidf(reasonMalformed, field, "unmarshal message: %s is not UTF-8; accepted: UTF-8", cmp.Or(field, "a text"))
}
