package server

import (
	"context"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// encoded is an answer that is encoded already. A codec does not know the request's
// context: a large answer in JSON takes it a fifth of a second, whether or not the caller
// still waits.
type encoded struct {
	data    []byte
	buffers *buffers // that data is of
}

// appendTo appends the answer to dst, once.
func (a *encoded) appendTo(dst []byte) []byte {
	dst = append(dst, a.data...)
	a.buffers.give(a.data)
	a.data = nil
	return dst
}

// largeAnswer is how many candidates and attributes, or numbers of embeddings, an answer
// has that takes more than a few milliseconds to encode.
const largeAnswer = 2000

// isLarge reports whether it takes long to encode an answer.
func isLarge(m any) bool {
	n := 0
	switch m := m.(type) {
	case *tandemv1.RetrieveResponse:
		n = partsOf(m)
	case *tandemv1.BatchRetrieveResponse:
		for _, result := range m.Results {
			n += partsOf(result.GetResponse())
		}
	case *tandemv1.GetEmbeddingsResponse:
		for _, e := range m.Embeddings {
			n += len(e.Values)
		}
	}
	return n > largeAnswer
}

func partsOf(r *tandemv1.RetrieveResponse) int {
	if len(r.GetCandidates()) == 0 {
		return 0
	}
	return len(r.Candidates) * (1 + len(r.Candidates[0].Attributes))
}

// encoding encodes answers that are large, in pieces, and stops when the context ends.
func encoding(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		response, err := next(ctx, r)
		if err != nil || !isLarge(response.Any()) {
			return response, err
		}
		kind := r.Header().Get("Content-Type")
		if query := r.Peer().Query; query.Has("encoding") {
			kind = query.Get("encoding")
		}
		e := &encoder{ctx: waiting(ctx, response.Any()), json: isJSON(kind), buffers: buffersFrom(ctx)}
		if err := e.answer(response.Any()); err != nil {
			e.buffers.give(e.data)
			return nil, err
		}
		out := connect.NewResponse(&encoded{e.data, e.buffers})
		for name, values := range response.Header() {
			out.Header()[name] = values
		}
		for name, values := range response.Trailer() {
			out.Trailer()[name] = values
		}
		return out, nil
	}
}

// isJSON reports whether a content type of a request to a method, or an encoding of Connect,
// is JSON: if not, it is protobuf.
func isJSON(kind string) bool { return strings.Contains(kind, "json") }

// waiting returns the context that ends when nobody waits for an answer. What a batch has
// when its deadline comes is of use for as long as the caller is there.
func waiting(ctx context.Context, answer any) context.Context {
	if x := exchangeFrom(ctx); x != nil {
		if _, ok := answer.(*tandemv1.BatchRetrieveResponse); ok {
			return x.request.Context()
		}
	}
	return ctx
}

// encoder encodes an answer in pieces.
type encoder struct {
	ctx     context.Context // nil if it is not looked at
	json    bool
	data    []byte
	seen    int      // bytes of data when it looked at ctx
	buffers *buffers // that data is of, nil if it is another's
}

// grow makes room for an element. What append does where there is none leaves several times
// the answer as garbage.
func (e *encoder) grow() {
	if e.buffers == nil || cap(e.data)-len(e.data) >= elementRoom {
		return
	}
	grown := append(e.buffers.take(2*cap(e.data)+elementRoom), e.data...)
	e.buffers.give(e.data)
	e.data = grown
}

// elementRoom is what nearly all elements fit into.
const elementRoom = 4 << 10

// encodeStep is how many bytes are encoded between two looks at the context.
const encodeStep = 16 << 10

// pause gives way to others now and then, and returns the error of a context that has
// ended.
func (e *encoder) pause() error {
	if e.ctx == nil || len(e.data)-e.seen < encodeStep {
		return nil
	}
	e.seen = len(e.data)
	return giveWay(e.ctx)
}

// answer encodes an answer of the service.
func (e *encoder) answer(m any) error {
	switch m := m.(type) {
	case *tandemv1.RetrieveResponse:
		return e.retrieve(m)
	case *tandemv1.BatchRetrieveResponse:
		return e.list("results", resultsTag, &tandemv1.BatchRetrieveResponse{}, len(m.Results), func(i int) error {
			return e.result(m.Results[i])
		})
	case *tandemv1.GetEmbeddingsResponse:
		all := m.Embeddings
		defer func() { m.Embeddings = all }()
		m.Embeddings = nil
		return e.list("embeddings", embeddingsTag, m, len(all), func(i int) error {
			return e.element(all[i])
		})
	}
	return fmt.Errorf("encode %T: it is no answer", m)
}

// The tags of what lists have in answers, and of what is in that.
const (
	candidatesTag = 1<<3 | byte(protowire.BytesType) // of an answer
	resultsTag    = 1<<3 | byte(protowire.BytesType) // of the answer to a batch
	embeddingsTag = 4<<3 | byte(protowire.BytesType) // of an answer with embeddings
	responseTag   = 1<<3 | byte(protowire.BytesType) // of a result
	idTag         = 1<<3 | byte(protowire.BytesType) // of a candidate
	scoreTag      = 2<<3 | byte(protowire.Fixed32Type)
)

// list encodes a message: a list of n elements, and the rest of it, in which the list is
// empty.
func (e *encoder) list(name string, tag byte, rest proto.Message, n int, element func(i int) error) error {
	if e.json {
		e.data = fmt.Appendf(e.data, `{"%s":[`, name)
	}
	for i := range n {
		e.grow()
		if !e.json {
			e.data = append(e.data, tag)
		} else if i > 0 {
			e.data = append(e.data, ',')
		}
		if err := element(i); err != nil {
			return err
		}
		if err := e.pause(); err != nil {
			return err
		}
	}
	var err error
	if !e.json {
		e.data, err = proto.MarshalOptions{}.MarshalAppend(e.data, rest)
		return err
	}
	e.data = append(e.data, ']')
	at := len(e.data)
	if e.data, err = (protojson.MarshalOptions{}).MarshalAppend(e.data, rest); err != nil {
		return err
	}
	if string(e.data[at:]) == "{}" {
		e.data = append(e.data[:at], '}')
	} else {
		e.data[at] = ',' // the members go on
	}
	return nil
}

// element encodes an element of a list: in protobuf its length is before it.
func (e *encoder) element(m proto.Message) (err error) {
	if e.json {
		e.data, err = protojson.MarshalOptions{}.MarshalAppend(e.data, m)
		return err
	}
	e.data = protowire.AppendVarint(e.data, uint64(proto.Size(m)))
	e.data, err = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(e.data, m)
	return err
}

// retrieve encodes the answer to one query.
func (e *encoder) retrieve(m *tandemv1.RetrieveResponse) error {
	all := m.Candidates
	defer func() { m.Candidates = all }()
	m.Candidates = nil
	return e.list("candidates", candidatesTag, m, len(all), func(i int) error {
		return e.candidate(all[i])
	})
}

// candidate encodes a candidate. In protobuf package proto takes three times as long for
// one without attributes, of which most answers consist; the bytes are the same.
func (e *encoder) candidate(c *tandemv1.Candidate) error {
	if e.json || len(c.Attributes) > 0 || c.Team != "" || c.Propensity != nil || c.Id == "" || c.Score == 0 || !utf8.ValidString(c.Id) {
		return e.element(c)
	}
	e.data = protowire.AppendVarint(e.data, uint64(1+protowire.SizeBytes(len(c.Id))+1+4))
	e.data = protowire.AppendString(append(e.data, idTag), c.Id)
	e.data = protowire.AppendFixed32(append(e.data, scoreTag), math.Float32bits(c.Score))
	return nil
}

// result encodes the outcome of one query of a batch.
func (e *encoder) result(r *tandemv1.BatchRetrieveResult) error {
	response := r.GetResponse()
	if response == nil {
		return e.element(r)
	}
	if e.json {
		e.data = append(e.data, `{"response":`...)
		err := e.retrieve(response)
		e.data = append(e.data, '}')
		return err
	}
	size := proto.Size(response)
	e.data = protowire.AppendVarint(e.data, uint64(1+protowire.SizeBytes(size)))
	e.data = protowire.AppendVarint(append(e.data, responseTag), uint64(size))
	return e.retrieve(response)
}
