package remote

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/api/tandem/shard/v1/shardv1connect"
)

// Without lines, unary calls are those of the Connect protocol in protobuf, which is a plain POST
// of a message. Both sides do that by themselves: the library takes a pipe and a goroutine for
// each call on the side that asks, and about half of all that a call costs. What else the protocol
// allows, such as JSON, a node leaves to the library.

// headers of a unary call.
const (
	protoType     = "application/proto"
	versionHeader = "Connect-Protocol-Version"
	timeoutHeader = "Connect-Timeout-Ms"
)

// maxErrorBytes is how large the body of an error may be.
const maxErrorBytes = 64 << 10

// keptBuffer is how large the memory of a message may be to be used again.
const keptBuffer = 256 << 10

// buffers are the memory of messages on the wire.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= keptBuffer {
		b.Reset()
		buffers.Put(b)
	}
}

// marshal appends a message to a buffer.
func marshal(b *bytes.Buffer, m proto.Message) error {
	data, err := proto.MarshalOptions{}.MarshalAppend(b.AvailableBuffer(), m)
	if err != nil {
		return err
	}
	_, err = b.Write(data)
	return err
}

// read reads what has so many bytes, -1 if that is not known, and no more than most.
func read(b *bytes.Buffer, from io.Reader, length int64, most int) error {
	if length > int64(most) {
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("the message has %d bytes; accepted: up to %d", length, most))
	}
	if length > 0 {
		b.Grow(int(min(length, keptBuffer)) + bytes.MinRead) // what comes decides about more
	}
	n, err := b.ReadFrom(io.LimitReader(from, int64(most)+1))
	if err == nil && n > int64(most) {
		err = connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("the message has more than %d bytes", most))
	}
	return err
}

// call makes a unary call. The error is a [*connect.Error] that the node has sent, or says why
// there is no answer.
func (n *Node) call(ctx context.Context, procedure string, m, reply proto.Message) error {
	err := n.lines.call(ctx, procedure, m, reply)
	if errors.Is(err, errPlain) {
		return n.post(ctx, procedure, m, reply)
	}
	return err
}

// post makes a unary call by Connect. The error is as that of call.
func (n *Node) post(ctx context.Context, procedure string, m, reply proto.Message) error {
	out := buffers.Get().(*bytes.Buffer)
	if err := marshal(out, m); err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.base+procedure, bytes.NewReader(out.Bytes()))
	if err != nil {
		return err
	}
	r.Header["Content-Type"] = []string{protoType}
	r.Header[versionHeader] = []string{"1"}
	if deadline, ok := ctx.Deadline(); ok {
		r.Header[timeoutHeader] = []string{strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10)}
	}
	n.authorize(r.Header)
	answer, err := n.transport.RoundTrip(r)
	if err != nil {
		return err // the transport may still read the request: its memory is left to the collector
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, answer.Body, 1) // its end, so that nothing is cancelled
		_ = answer.Body.Close()
	}()
	in := buffers.Get().(*bytes.Buffer)
	defer putBuffer(in)
	if answer.StatusCode != http.StatusOK {
		if err := read(in, answer.Body, -1, maxErrorBytes); err != nil {
			return err
		}
		return readWireError(answer, in.Bytes())
	}
	if kind := answer.Header.Get("Content-Type"); kind != protoType {
		return fmt.Errorf("the answer is %.80q, want %s", kind, protoType)
	}
	if err := read(in, answer.Body, answer.ContentLength, n.o.MaxReplyBytes); err != nil {
		return err
	}
	putBuffer(out) // all of it has arrived, for it was answered
	return proto.Unmarshal(in.Bytes(), reply)
}

// wireDetail is a detail of an error in JSON, as Connect has it.
type wireDetail struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// httpCodes are what statuses of HTTP stand for that have no error of the contract: something
// before the node has answered.
var httpCodes = map[int]connect.Code{
	http.StatusUnauthorized: connect.CodeUnauthenticated, http.StatusForbidden: connect.CodePermissionDenied,
	http.StatusNotFound: connect.CodeUnimplemented, http.StatusTooManyRequests: connect.CodeUnavailable,
	http.StatusBadGateway: connect.CodeUnavailable, http.StatusServiceUnavailable: connect.CodeUnavailable, http.StatusGatewayTimeout: connect.CodeUnavailable,
}

// readWireError returns the error that an answer is.
func readWireError(answer *http.Response, body []byte) error {
	var told struct {
		Code    connect.Code `json:"code"`
		Message string       `json:"message"`
		Details []wireDetail `json:"details"`
	}
	if err := json.Unmarshal(body, &told); err != nil || told.Code == 0 {
		code, ok := httpCodes[answer.StatusCode]
		if !ok {
			code = connect.CodeUnknown
		}
		return connect.NewWireError(code, fmt.Errorf("HTTP status %s: %.200q", answer.Status, body))
	}
	var details []*anypb.Any
	for _, d := range told.Details {
		if value, err := base64.RawStdEncoding.DecodeString(d.Value); err == nil { // else it says no more than the code
			details = append(details, &anypb.Any{TypeUrl: detailPrefix + d.Type, Value: value})
		}
	}
	return newWireError(told.Code, told.Message, details)
}

// detailPrefix is that of the types of details.
const detailPrefix = "type.googleapis.com/"

// newWireError returns an error that a node has sent.
func newWireError(code connect.Code, text string, details []*anypb.Any) error {
	out := connect.NewWireError(code, errors.New(text))
	for _, d := range details {
		if detail, err := connect.NewErrorDetail(d); err == nil {
			out.AddDetail(detail)
		}
	}
	return out
}

// method answers a message with another one.
type method func(ctx context.Context, body []byte) (proto.Message, error)

// message is a message of the contract, as a pointer.
type message[M any] interface {
	asked[M]
	proto.Message
}

// methodOf returns the method that do is.
func methodOf[M any, P message[M], R any, Q interface {
	*R
	proto.Message
}](h *Handler, do func(context.Context, *held, *M) (*R, error)) method {
	return func(ctx context.Context, body []byte) (proto.Message, error) {
		m := P(new(M))
		if err := proto.Unmarshal(body, m); err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("the message is no protobuf of its type"))
		}
		reply, err := serve[M, R, P](ctx, h, connect.NewRequest((*M)(m)), do)
		if err != nil {
			return nil, err
		}
		return Q(reply.Msg), nil
	}
}

// unaryMethods returns the methods of unary calls by their procedures.
func (h *Handler) unaryMethods() map[string]method {
	return map[string]method{
		shardv1connect.ShardServiceSearchProcedure:     methodOf[shardv1.SearchRequest](h, h.search),
		shardv1connect.ShardServiceExplainProcedure:    methodOf[shardv1.ExplainRequest](h, h.explain),
		shardv1connect.ShardServiceVectorsProcedure:    methodOf[shardv1.VectorsRequest](h, h.vectors),
		shardv1connect.ShardServiceAttributesProcedure: methodOf[shardv1.AttributesRequest](h, h.attributes),
		shardv1connect.ShardServiceGetShardProcedure:   methodOf[shardv1.GetShardRequest](h, h.getShard),
	}
}

// direct answers unary calls in protobuf, and leaves all else to next.
func (h *Handler) direct(next http.Handler) http.Handler {
	wrong := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := h.methods[r.URL.Path]
		if m == nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != protoType || r.Header.Get("Content-Encoding") != "" {
			next.ServeHTTP(w, r)
			return
		}
		if err := h.reply(w, r, m); err != nil {
			_ = wrong.Write(w, r, err) // whoever asked may be gone
		}
	})
}

// reply answers a call. The error is to be answered with.
func (h *Handler) reply(w http.ResponseWriter, r *http.Request, m method) error {
	ctx := r.Context()
	if text := r.Header.Get(timeoutHeader); text != "" {
		ms, err := strconv.ParseUint(text, 10, 64)
		if err != nil || len(text) > 10 {
			return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s is %.40q; accepted: up to 10 digits", timeoutHeader, text))
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(min(ms, math.MaxInt64/uint64(time.Millisecond)))*time.Millisecond)
		defer cancel()
	}
	b := buffers.Get().(*bytes.Buffer)
	defer putBuffer(b)
	if err := read(b, r.Body, r.ContentLength, h.o.MaxRequestBytes); err != nil {
		if _, told := errors.AsType[*connect.Error](err); told {
			return err
		}
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the message has not arrived whole: %w", err))
	}
	out, err := m(ctx, b.Bytes())
	if err != nil {
		return err
	}
	b.Reset()
	if err := marshal(b, out); err != nil {
		return connect.NewError(connect.CodeInternal, errors.New("the reply cannot be encoded"))
	}
	header := w.Header()
	header["Content-Type"] = []string{protoType}
	header["Content-Length"] = []string{strconv.Itoa(b.Len())}
	_, _ = w.Write(b.Bytes()) // whoever asked may be gone
	return nil
}
