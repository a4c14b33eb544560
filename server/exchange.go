package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/traces"
)

// exchange is a request and its answer, whatever they are to. It names the request, gives
// every refusal that is not an error of a method the form of one, and has the log tell of
// those that no method told of.
//
// It is the writer of the answer.
type exchange struct {
	http.ResponseWriter
	service *Service
	errors  *connect.ErrorWriter
	request *http.Request
	start   time.Time
	id      string // "" until it is asked for
	// identity is who has sent it, nil where that is not asked, or not known.
	identity *auth.Identity
	arrived  int64       // bytes of the body
	last     atomic.Bool // the connection ends with the answer

	status  int            // 0 until the answer begins
	begun   bool           // its header is written
	failure *connect.Error // the error that the answer is
	refused bool           // the body is ours: nothing more is written
	told    bool           // the log has the exchange
	code    connect.Code   // that it ended with, 0 without an error
	tooMuch events.Shed    // what there was too much of, of one that was refused for it

	trace *traces.Trace // nil if it is not traced

	gate *gate // of those that work on requests
	shed *shedder
	pass pass
}

type exchangeKey struct{}

// exchangeFrom returns the exchange that ctx belongs to, nil if a method is called without
// a handler.
func exchangeFrom(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// exchanged makes every request an exchange. It is the outermost handler: it answers with
// an internal error if a handler panics outside of a method.
func (s *Service) exchanged(next http.Handler, errors *connect.ErrorWriter, workers *gate, shed *shedder) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		see(r.Context())
		x := &exchange{ResponseWriter: w, service: s, errors: errors, start: time.Now(), gate: workers, shed: shed}
		if isRPC(r) {
			s.events.RPCBegin(r.URL.Path)
			if isTraced(r) {
				x.trace = s.traces.Begin(r.Header, x.start)
			}
			x.code = connect.CodeCanceled // if it goes no further than this
			defer x.rpcEnd(r.URL.Path)
		}
		// What begins like HTTP/2 and is not, has its version and comes by HTTP/1.1.
		if r.Context().Err() != nil && r.Method != "PRI" {
			if r.ProtoMajor == 1 {
				panic(http.ErrAbortHandler) // or net/http would answer that all is well
			}
			return // its caller has taken it back while it waited, as a rapid reset does
		}
		x.code = 0
		x.request = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		// Where messages are in envelopes, no body is one that lacks the message.
		if r.Body != nil && (r.Body != http.NoBody || isGRPC(r.Header) || isConnectStream(r.Header)) {
			x.request.Body = &counted{ReadCloser: r.Body, exchange: x}
		}
		defer func() {
			if p := recover(); p != nil {
				x.code = connect.CodeCanceled // of one that is to abort the request
				x.panicked(panicError(p))
			}
			x.end()
			x.leave()
		}()
		next.ServeHTTP(x, x.request)
	})
}

// isRPC reports whether a request is meant for a method: any but those of browsers before
// others, and probes.
func isRPC(r *http.Request) bool {
	return r.Method != http.MethodOptions && r.URL.Path != healthPath && r.URL.Path != readyPath
}

// rpcEnd tells of the end of a request for a method. It is deferred before all else, and so
// called whatever happens.
func (x *exchange) rpcEnd(path string) {
	x.service.events.RPCEnd(events.RPC{Procedure: path, Code: x.code, Shed: x.tooMuch, Duration: time.Since(x.start)})
	x.endTrace(path)
}

// enter waits until there is little else to do, or ctx ends: work that is not long begins.
func (x *exchange) enter(ctx context.Context) {
	if x == nil {
		return // a method is called without a handler
	}
	x.leave()
	var use *usage
	if c := connFrom(ctx); c != nil {
		use = &c.use
		if x.request.ProtoMajor == 1 {
			// Its goroutine is ours, or reads what comes after the request.
			c.listener.readers.giveBack(&c.pass)
		}
	}
	x.shed.wait()
	x.gate.enter(ctx.Done(), &x.pass, use)
	x.shed.pass(time.Now())
}

// leave is for before the exchange waits for something, or does what is long.
func (x *exchange) leave() {
	if x != nil {
		x.gate.leave(&x.pass)
	}
}

// counted counts the bytes of the body of an exchange.
type counted struct {
	io.ReadCloser
	exchange *exchange
}

// Read implements [io.Reader].
func (c *counted) Read(p []byte) (int, error) {
	c.exchange.leave()
	n, err := c.ReadCloser.Read(p)
	c.exchange.arrived += int64(n)
	return n, err
}

// name returns the request's name: that of its message once that is known, as its headers
// have it, or a new one.
func (x *exchange) name() string {
	if x.id == "" {
		if x.id = incomingID(x.request.Header); x.id != "" {
			return x.id
		}
		if x.trace != nil {
			x.id = x.trace.ID()
			return x.id
		}
		x.id = newID()
	}
	return x.id
}

// refuse answers a request that no method has seen with an error, as its protocol has it, and
// has the log tell of all of it.
func refuse(errors *connect.ErrorWriter, w http.ResponseWriter, r *http.Request, err *connect.Error) {
	if x := exchangeFrom(r.Context()); x != nil {
		x.failure = err
	}
	_ = errors.Write(w, r, err) // the caller may be gone
}

// panicked answers a request whose handler panicked, and tells why.
func (x *exchange) panicked(err error) {
	id := x.name()
	coded := callerError(err, id)
	x.service.ended(x.request.Context(), x.request.URL.Path, id, x.start, coded, err)
	x.told = true
	if !x.begun {
		x.status = 0
		_ = x.errors.Write(x, x.request, coded) // the caller may be gone
	}
}

// WriteHeader implements [http.ResponseWriter].
func (x *exchange) WriteHeader(status int) {
	if x.status != 0 || status < http.StatusOK {
		x.ResponseWriter.WriteHeader(status)
		return
	}
	x.complete()
	if status, err := x.refusal(status); err != nil {
		x.refuse(status, err)
		return
	}
	x.status = status
	if !x.isWhole() {
		x.begin()
	}
}

// complete adds to the header what every answer has. None is to be kept: what the same
// request gets changes with each release.
func (x *exchange) complete() {
	header := x.Header()
	if header.Get(RequestIDHeader) == "" {
		header.Set(RequestIDHeader, headerOf(x.name()))
	}
	header.Set("Cache-Control", "no-store")
	if x.trace != nil {
		header.Set(traces.ResponseHeader, x.trace.Response())
	}
	if x.last.Load() {
		header.Set("Connection", "close")
	}
	x.completeEncodings(header)
	if kind := header.Get("Content-Type"); !strings.HasPrefix(kind, "application/grpc") && !slices.Contains(header["Vary"], "Accept-Encoding") {
		header.Add("Vary", "Accept-Encoding")
	}
}

// completeEncodings says which encodings of requests are accepted, as Connect does where it
// looks at the request itself: whoever is refused for its encoding is to find one.
func (x *exchange) completeEncodings(header http.Header) {
	name := "Grpc-Accept-Encoding"
	if x.isWhole() {
		name = "Accept-Encoding"
	} else if !strings.HasPrefix(header.Get("Content-Type"), "application/grpc") {
		return
	}
	if header.Get(name) == "" {
		header.Set(name, acceptedEncodings)
	}
}

// isWhole reports whether the body of the answer is written at once, as Connect writes
// messages and errors. Its length is then known when the header is written.
func (x *exchange) isWhole() bool {
	kind := x.Header().Get("Content-Type")
	return kind == "application/proto" || strings.HasPrefix(kind, "application/json")
}

// begin writes the header, unless it is written.
func (x *exchange) begin() {
	if !x.begun {
		x.begun = true
		x.ResponseWriter.WriteHeader(x.status)
	}
}

// Write implements [http.ResponseWriter].
func (x *exchange) Write(p []byte) (int, error) {
	if x.refused {
		return len(p), nil
	}
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	if !x.begun {
		if x.isWhole() {
			x.Header().Set("Content-Length", strconv.Itoa(len(p)))
		}
		x.begin()
	}
	if x.status >= http.StatusBadRequest && x.failure == nil {
		x.failure = writtenError(p)
	}
	return x.ResponseWriter.Write(p)
}

// Flush implements [http.Flusher].
func (x *exchange) Flush() {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	x.begin()
	_ = http.NewResponseController(x.ResponseWriter).Flush()
}

// Unwrap is for [http.ResponseController].
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// refusal returns the error of a request that net/http or Connect refuses with no more
// than a status, and the status that it is to have; nil if the answer is not of that kind.
func (x *exchange) refusal(status int) (int, *connect.Error) {
	header, r := x.Header(), x.request
	if kind := header.Get("Content-Type"); kind != "" && !strings.HasPrefix(kind, "text/") {
		return status, nil
	}
	switch status {
	case http.StatusBadRequest:
		return status, invalidf(reasonMalformed, "", "the target of method %s is %q; accepted: a path", excerpt(r.Method), excerpt(r.RequestURI))
	case http.StatusNotFound:
		return status, errorf(connect.CodeUnimplemented, reasonPath,
			"path %q is not served; served: POST and GET of the methods of the services that reflection lists, GET /healthz, GET /readyz", excerpt(r.URL.Path))
	case http.StatusMethodNotAllowed:
		return status, errorf(connect.CodeUnimplemented, reasonMethod, "method %s of path %s is not accepted; accepted: %s",
			excerpt(r.Method), excerpt(r.URL.Path), header.Get("Allow"))
	case http.StatusUnsupportedMediaType:
		encoding := r.URL.Query().Get("encoding")
		switch {
		case r.Method != http.MethodGet:
			return status, invalidf(reasonContentType, "", "content-type %q is not accepted; accepted: %s",
				excerpt(r.Header.Get("Content-Type")), header.Get("Accept-Post"))
		case encoding != "json" && encoding != "proto":
			return status, invalidf(reasonContentType, "", "query parameter encoding is %q; accepted: json, proto", excerpt(encoding))
		}
		return http.StatusBadRequest, invalidf(reasonMalformed, "", "a GET request has a body; accepted: none")
	case http.StatusHTTPVersionNotSupported:
		return status, errorf(connect.CodeUnimplemented, reasonMethod, "path %s is of a stream in both directions; accepted: HTTP/2", excerpt(r.URL.Path))
	}
	return status, nil
}

// refuse answers with an error and a status, which gRPC and streams of Connect have no use
// for.
func (x *exchange) refuse(status int, err *connect.Error) {
	id := x.name()
	err = callerError(err, id)
	x.service.ended(x.request.Context(), x.request.URL.Path, id, x.start, err, nil)
	x.status, x.begun, x.told = status, true, true
	out := http.ResponseWriter(statusWriter{x.ResponseWriter, status})
	if protocolOf(x.request) != "connect" || isConnectStream(x.request.Header) {
		out = x.ResponseWriter
	}
	_ = x.errors.Write(out, x.request, err) // the caller may be gone
	x.refused = true
}

// statusWriter begins an answer with a status, whatever it is told.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w statusWriter) WriteHeader(int) { w.ResponseWriter.WriteHeader(w.status) }

// end tells of a failed exchange that no method told of.
func (x *exchange) end() {
	if x.status == 0 {
		x.complete() // it begins with the end of the handler
	} else {
		x.begin()
	}
	if x.told {
		return
	}
	err := x.failure
	if status := x.trailer("Grpc-Status"); err == nil && status != "" && status != "0" {
		code, _ := strconv.ParseUint(status, 10, 32) // Connect wrote it
		err = connect.NewError(connect.Code(code), errors.New(x.trailer("Grpc-Message")))
	}
	// An internal one is what Connect calls a caller's breach of a protocol.
	if err == nil {
		return
	}
	if err.Code() == connect.CodeCanceled {
		x.code = err.Code()
		return // streams end so
	}
	x.service.ended(x.request.Context(), x.request.URL.Path, x.name(), x.start, err, nil)
}

// writtenError returns the error that a body has.
func writtenError(body []byte) *connect.Error {
	var wire struct {
		Code    connect.Code `json:"code"`
		Message string       `json:"message"`
	}
	if err := json.Unmarshal(body, &wire); err != nil || wire.Code == 0 {
		return connect.NewError(connect.CodeUnknown, errors.New(excerpt(string(body))))
	}
	return connect.NewError(wire.Code, errors.New(shortened(wire.Message, maxDescription)))
}

// trailer returns a trailer of gRPC, which may be in the header.
func (x *exchange) trailer(name string) string {
	if value := x.Header().Get(name); value != "" {
		return value
	}
	return x.Header().Get(http.TrailerPrefix + name)
}

// protocolOf returns the protocol of a request: one to no method is taken for one by
// Connect.
func protocolOf(r *http.Request) string {
	if r.Method != http.MethodPost {
		return "connect"
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), "+")
	switch kind {
	case "application/grpc-web":
		return "grpc-web"
	case "application/grpc":
		return "grpc"
	}
	return "connect"
}

// size returns the bytes that arrived of the request's message.
func (x *exchange) size() int64 {
	if x.request.Method == http.MethodGet {
		return int64(len(x.request.URL.RawQuery))
	}
	return x.arrived
}
