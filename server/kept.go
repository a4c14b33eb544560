package server

import (
	"bytes"
	"maps"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
)

// refusals keeps what is answered to requests that are refused by their headers, as it is
// written.
//
// A server that is asked more than it can answer has as much to refuse as to answer, and what
// refusing takes is missing for answers. To make an error with its details and to encode it
// takes a third of that, and is the same for all that are refused for one reason at a time.
type refusals struct {
	errors *connect.ErrorWriter

	mu   sync.Mutex
	kept map[refusalKey]*refusal
}

// refusalKey is all that the error of a refusal depends on.
type refusalKey struct {
	shed     events.Shed
	said     time.Duration // of which the error tells
	priority auth.Priority
	caller   string
	quota    auth.Quota
	denial   auth.Denial // of a caller that may not ask, with its text
	text     string
}

// refusal is the error of those that are refused alike. Nothing changes what it has.
type refusal struct {
	err     *connect.Error
	answers [len(refusalForms)]*refusalAnswer // nil until one is needed
}

// refusalAnswer is what is written for one.
type refusalAnswer struct {
	header  http.Header
	status  int
	trailer http.Header // that are set once the header is written
	body    []byte
}

// mostRefusals bounds how many are kept: errors tell of times, rounded.
const mostRefusals = 512

// refusalForms are the types of requests whose errors are kept; others are encoded each time.
// The errors of the first two are the same.
var refusalForms = [...]string{
	"application/proto", "application/json",
	"application/grpc", "application/grpc+proto",
	"application/grpc-web", "application/grpc-web+proto",
}

// formOf returns which of refusalForms the error for a request has, -1 for none.
func formOf(r *http.Request) int {
	kind := r.Header["Content-Type"]
	if r.Method != http.MethodPost || len(kind) != 1 {
		return -1
	}
	for i, form := range refusalForms {
		if kind[0] == form {
			return i
		}
	}
	return -1
}

// refuse refuses a request that has not passed the gate. build makes the error of key, if there
// is none yet.
func (s *refusals) refuse(w http.ResponseWriter, r *http.Request, key refusalKey, build func() *connect.Error) {
	refusal, answer := s.of(r, key, build)
	if answer == nil {
		refuseCheaply(s.errors, w, r, refusal.err)
		return
	}
	chargeRefused(r)
	if x := exchangeFrom(r.Context()); x != nil {
		x.failure = refusal.err
	}
	answer.send(w)
}

// of returns the refusal of a key, and the answer to a request, nil if none is kept.
func (s *refusals) of(r *http.Request, key refusalKey, build func() *connect.Error) (*refusal, *refusalAnswer) {
	form := formOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.kept[key]
	if known == nil {
		known = &refusal{err: build()}
		known.err.Meta() // makes it, once
		if s.kept == nil || len(s.kept) >= mostRefusals {
			s.kept = map[refusalKey]*refusal{}
		}
		s.kept[key] = known
	}
	if form < 0 {
		return known, nil
	}
	if known.answers[form] == nil {
		known.answers[form] = recordRefusal(s.errors, r, known.err)
	}
	return known, known.answers[form]
}

// recordRefusal returns an error as the answer to a request.
func recordRefusal(errors *connect.ErrorWriter, r *http.Request, err *connect.Error) *refusalAnswer {
	out := refusalRecorder{header: http.Header{}}
	if errors.Write(&out, r, err) != nil {
		return nil
	}
	for name := range out.sent {
		delete(out.header, name) // the rest are trailers
	}
	return &refusalAnswer{out.sent, out.status, out.header, out.body.Bytes()}
}

// refusalRecorder is a [http.ResponseWriter] that keeps what is written.
type refusalRecorder struct {
	header, sent http.Header
	status       int
	body         bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (w *refusalRecorder) Header() http.Header { return w.header }

// WriteHeader implements [http.ResponseWriter].
func (w *refusalRecorder) WriteHeader(status int) { w.status, w.sent = status, w.header.Clone() }

// Write implements [http.ResponseWriter].
func (w *refusalRecorder) Write(p []byte) (int, error) { return w.body.Write(p) }

// send writes the answer. What it has is shared by all to whom it is sent: whoever adds to a
// header copies it, as none of the lists has room for more.
func (a *refusalAnswer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	maps.Copy(w.Header(), a.trailer)
	if len(a.body) > 0 {
		_, _ = w.Write(a.body) // the caller may be gone
	}
}

// coarse rounds a time up to about two digits, and to whole seconds beyond ten, so that
// errors that tell of one are few.
func coarse(d time.Duration) time.Duration {
	step := time.Second
	for _, s := range [...]time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond} {
		if d <= 100*s {
			step = s
			break
		}
	}
	return (d + step - 1) / step * step
}
