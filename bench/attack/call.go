package attack

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// protocol is how a method is called.
type protocol int

const (
	connectProto protocol = iota
	connectJSON
	connectGet
	grpcProto
	grpcWeb
)

// methodPath returns the path of a method of RetrievalService.
func methodPath(method string) string {
	return "/" + tandemv1connect.RetrievalServiceName + "/" + method
}

// call is a request over HTTP. The zero value of a field but path is what most requests
// have.
type call struct {
	path     string
	protocol protocol
	name     string // that body is kept by, if it is
	body     []byte // the message, before it is compressed or put into an envelope
	encoding string
	packed   bool // body is compressed, and in its envelope, already
	header   map[string]string
	timeout  time.Duration // that the server is told; 0 is none
	cancel   time.Duration // when the caller goes away; 0 is never
}

// send sends a message of a method by a protocol and with a compression that are drawn.
func (a *attacker) send(ctx context.Context, method string, m proto.Message) {
	p := pick(a.rand, connectProto, connectProto, grpcProto, grpcProto, grpcWeb, connectJSON)
	a.do(ctx, call{path: methodPath(method), protocol: p, body: marshal(p, m), encoding: pick(a.rand, "", "", "gzip", "zstd")})
}

// marshal encodes a message for a protocol.
func marshal(p protocol, m proto.Message) (data []byte) {
	var err error
	if p == connectJSON {
		data, err = protojson.Marshal(m)
	} else {
		data, err = proto.Marshal(m)
	}
	if err != nil {
		return []byte(err.Error()) // it has no encoding, such as invalid UTF-8: garbage will do
	}
	return data
}

// callTime is how long a caller waits: longer than a server works on a request.
const callTime = 15 * time.Second

// do sends a call and notes what came back.
func (a *attacker) do(ctx context.Context, c call) {
	if over(ctx) {
		return
	}
	patience := callTime
	if c.cancel > 0 {
		patience = c.cancel
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(outer, patience)
	defer cancel()
	request, err := a.request(ctx, c)
	if err != nil {
		a.note("not sent")
		return
	}
	transport := a.http1
	if c.protocol == grpcProto || a.rand.IntN(2) == 0 {
		transport = a.http2
	}
	err = a.exchange(transport, c.protocol, request)
	switch {
	case err == nil:
	case c.cancel == 0 && over(ctx) && !over(outer):
		a.note(fmt.Sprint("no answer in ", callTime))
	default:
		a.note(broken(ctx, err))
	}
}

// request makes the request of a call.
func (a *attacker) request(ctx context.Context, c call) (*http.Request, error) {
	body := c.body
	if !c.packed {
		body = a.compressed(c.name, c.encoding, body)
	}
	if c.protocol == connectGet {
		query := url.Values{"connect": {"v1"}, "encoding": {"proto"}, "base64": {"1"}, "message": {base64.RawURLEncoding.EncodeToString(body)}}
		if c.encoding != "" {
			query.Set("compression", c.encoding)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+c.path+"?"+query.Encode(), http.NoBody)
		if err == nil && c.timeout > 0 {
			request.Header.Set("Connect-Timeout-Ms", strconv.FormatInt(c.timeout.Milliseconds(), 10))
		}
		return request, err
	}
	if (c.protocol == grpcProto || c.protocol == grpcWeb) && !c.packed {
		body = envelope(body, c.encoding != "")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+c.path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	h := request.Header
	switch c.protocol {
	case grpcProto, grpcWeb:
		h.Set("Content-Type", map[protocol]string{grpcProto: "application/grpc+proto", grpcWeb: "application/grpc-web+proto"}[c.protocol])
		h.Set("Te", "trailers")
		if c.encoding != "" {
			h.Set("Grpc-Encoding", c.encoding)
		}
		if c.timeout > 0 {
			h.Set("Grpc-Timeout", strconv.FormatInt(c.timeout.Microseconds(), 10)+"u")
		}
		h.Set("Grpc-Accept-Encoding", pick(a.rand, "identity", "gzip", "zstd"))
	default:
		h.Set("Content-Type", map[protocol]string{connectProto: "application/proto", connectJSON: "application/json"}[c.protocol])
		h.Set("Connect-Protocol-Version", "1")
		if c.encoding != "" {
			h.Set("Content-Encoding", c.encoding)
		}
		if c.timeout > 0 {
			h.Set("Connect-Timeout-Ms", strconv.FormatInt(c.timeout.Milliseconds(), 10))
		}
		h.Set("Accept-Encoding", pick(a.rand, "identity", "gzip", "zstd"))
	}
	for name, value := range c.header {
		h.Set(name, value)
	}
	return request, nil
}

// envelope puts a message into gRPC's.
func envelope(message []byte, compressed bool) []byte {
	out := make([]byte, 5, 5+len(message))
	if compressed {
		out[0] = 1
	}
	binary.BigEndian.PutUint32(out[1:], uint32(len(message)))
	return append(out, message...)
}

// broken names why there is no response.
func broken(ctx context.Context, err error) string {
	text := err.Error()
	switch {
	case over(ctx):
		return "given up"
	case strings.Contains(text, "REFUSED_STREAM"):
		return "reset REFUSED_STREAM"
	case strings.Contains(text, "INTERNAL_ERROR"):
		return "reset INTERNAL_ERROR"
	}
	if operation := (*net.OpError)(nil); errors.As(err, &operation) && operation.Op == "dial" {
		if reason := syscall.Errno(0); errors.As(err, &reason) {
			return "not connected: " + reason.Error()
		}
		return "not connected"
	}
	return "connection closed"
}

// tailBytes is how much of the end of a response is looked at, and maxTaken how much is
// taken of one at most.
const (
	tailBytes = 64 << 10
	maxTaken  = 64 << 20
)

// exchange sends a request, takes the response and notes what it says.
func (a *attacker) exchange(transport *http.Transport, p protocol, request *http.Request) error {
	r, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }() // it was read, or the connection is broken
	tail, err := readTail(r.Body)
	if err != nil {
		return err
	}
	outcome, text := codeOf(p, r, tail)
	a.note(outcome)
	if outcome != "ok" {
		size := len(text) + len(r.Trailer.Get("Grpc-Status-Details-Bin")) + len(r.Header.Get("Grpc-Status-Details-Bin"))
		a.tally.failed(a.kind, outcome, text, size)
	}
	return nil
}

// readTail reads all, and returns the end of it.
func readTail(r io.Reader) ([]byte, error) {
	var tail []byte
	buffer := make([]byte, 32<<10)
	for taken := 0; taken < maxTaken; {
		n, err := r.Read(buffer)
		taken += n
		tail = append(tail[max(0, len(tail)-tailBytes):], buffer[:n]...)
		if errors.Is(err, io.EOF) {
			return tail, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("the response has more than %d bytes", maxTaken)
}

// codeOf returns the code of a response by its Connect name, or "ok", or "http STATUS" if
// it has none, and the text of its error.
func codeOf(p protocol, r *http.Response, tail []byte) (code, text string) {
	status := fmt.Sprint("http ", r.StatusCode)
	switch p {
	case grpcProto, grpcWeb:
		number, text := r.Trailer.Get("Grpc-Status"), r.Trailer.Get("Grpc-Message")
		if number == "" {
			number, text = r.Header.Get("Grpc-Status"), r.Header.Get("Grpc-Message")
		}
		if at := bytes.LastIndex(tail, []byte("grpc-status:")); number == "" && p == grpcWeb && at >= 0 {
			line, _, _ := strings.Cut(string(tail[at+len("grpc-status:"):]), "\r\n")
			number, text = strings.TrimSpace(line), string(tail[max(0, at-maxFault):])
		}
		n, err := strconv.Atoi(number)
		switch {
		case err != nil:
			return status, string(tail)
		case n == 0:
			return "ok", ""
		}
		return connect.Code(n).String(), text
	}
	if r.StatusCode == http.StatusOK {
		return "ok", ""
	}
	var e struct{ Code, Message string }
	if r.Header.Get("Content-Encoding") == "" && json.Unmarshal(tail, &e) == nil && e.Code != "" {
		return e.Code, string(tail)
	}
	return status, string(tail)
}
