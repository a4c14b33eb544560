// Package clienttest has a server of Tandem in memory, for the tests of rankers: no process, no
// network, no files, and the same answers every time.
//
// It keeps the contract: requests are checked by its rules, errors have the codes, reasons and
// fields of real ones, answers have exact scores, and are sent in the bytes of the protocol through
// a real [client.Client]. It scans all rows. What it does not have is the language of filters: a
// filter, by its text, and a segment are functions that a test gives. It does not explain.
package clienttest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tandem-ann/tandem/api/client"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// Row is an app or a user.
type Row struct {
	ID     string
	Vector []float32
	// Attributes are by their names: string, []string, bool, int64, float64 or time.Time, and of one
	// type for all rows of a tower that have one.
	Attributes map[string]any
}

// Server is a server in memory. Its fields are set before the first call; its methods are safe for
// concurrent use. The metric is the inner product.
type Server struct {
	// Model and ModelVersion are what answers say. The default is "test" at "1".
	Model, ModelVersion string
	// Filters are by their text, Segments by their name. Bindings are those of the request.
	Filters  map[string]func(app Row, bindings map[string]any) bool
	Segments map[string]func(app Row) bool
	// MeanUser is what the fallback asks with; nil if the snapshot has none.
	MeanUser []float32
	// Staleness is what answers say of the age of their proof; negative says nothing.
	Staleness time.Duration

	towers  map[tandemv1.Tower]*tower
	dim     int
	handler http.Handler

	mu       sync.Mutex
	before   func(ctx context.Context, procedure string, request proto.Message) error
	down     map[string]bool
	requests []proto.Message
}

type tower struct {
	noun  string
	rows  []Row // by id
	place map[string]int
	types map[string]string // of attributes
}

// New returns a server of two towers. An error names the row that does not fit.
func New(apps, users []Row) (*Server, error) {
	s := &Server{Model: "test", ModelVersion: "1", down: map[string]bool{}, towers: map[tandemv1.Tower]*tower{}}
	for _, of := range []struct {
		kind tandemv1.Tower
		noun string
		rows []Row
	}{{tandemv1.Tower_TOWER_APPS, "app", apps}, {tandemv1.Tower_TOWER_USERS, "user", users}} {
		t := &tower{noun: of.noun, rows: slices.Clone(of.rows), place: map[string]int{}, types: map[string]string{}}
		slices.SortFunc(t.rows, func(a, b Row) int { return compare(a.ID, b.ID) })
		for i, r := range t.rows {
			if s.dim == 0 {
				s.dim = len(r.Vector)
			}
			switch _, twice := t.place[r.ID]; {
			case twice:
				return nil, fmt.Errorf("%s %.200q is there twice", of.noun, r.ID)
			case r.ID == "" || len(r.ID) > 256:
				return nil, fmt.Errorf("%s %.200q: its id has %d bytes; accepted: 1 to 256", of.noun, r.ID, len(r.ID))
			case len(r.Vector) != s.dim || s.dim == 0:
				return nil, fmt.Errorf("%s %.200q: its vector has %d numbers; accepted: as many as the others, %d", of.noun, r.ID, len(r.Vector), s.dim)
			}
			t.place[r.ID] = i
			for _, name := range slices.Sorted(maps.Keys(r.Attributes)) {
				kind := fmt.Sprintf("%T", r.Attributes[name])
				if _, err := value(r.Attributes[name]); err != nil {
					return nil, fmt.Errorf("%s %.200q: attribute %.200q: %w", of.noun, r.ID, name, err)
				}
				if before := t.types[name]; before != "" && before != kind {
					return nil, fmt.Errorf("%s %.200q: attribute %.200q is %s, and of another row %s", of.noun, r.ID, name, kind, before)
				}
				t.types[name] = kind
			}
		}
		s.towers[of.kind] = t
	}
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewRetrievalServiceHandler(s))
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") })
	s.handler = mux
	return s, nil
}

// ServeHTTP answers a request, for tests that want a real listener.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Client returns a client of the server, without a network, which ends with the test. Options of the
// ranker under test come on top.
func (s *Server) Client(tb testing.TB, options ...client.Option) *client.Client {
	tb.Helper()
	base := []client.Option{
		client.WithTransport(func(client.Server) http.RoundTripper { return memory{s} }),
		client.WithProbes(0),
	}
	c, err := client.New(client.Addresses("127.0.0.1:1"), append(base, options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() }) // it has no error
	return c
}

// Before has a function called before each call is answered, with the name of its procedure, such as
// "Retrieve". Its error is that of the call: of [Refuse], or [connect.NewError]. It may wait, by ctx;
// it is not called for single queries of a batch. nil ends that.
func (s *Server) Before(f func(ctx context.Context, procedure string, request proto.Message) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// TakeDown has apps returned no more.
func (s *Server) TakeDown(apps ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range apps {
		s.down[id] = true
	}
}

// Requests returns what was asked so far, in its order: messages of the contract, not to be changed.
func (s *Server) Requests() []proto.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// arrive notes a call, and returns how it fails, if it is to.
func (s *Server) arrive(ctx context.Context, procedure string, m proto.Message) error {
	s.mu.Lock()
	s.requests = append(s.requests, m)
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, procedure, m); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return Refuse(client.DeadlineExceeded, "the deadline passed before there was an answer")
	}
	return nil
}

// memory sends requests to a server in this process.
type memory struct{ *Server }

// RoundTrip implements [http.RoundTripper].
func (m memory) RoundTrip(r *http.Request) (*http.Response, error) {
	got := r.Clone(r.Context())
	if got.Body == nil {
		got.Body = http.NoBody
	}
	defer got.Body.Close()
	answer := httptest.NewRecorder()
	m.ServeHTTP(answer, got)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return answer.Result(), nil
}

// value returns an attribute's value in the contract's form.
func value(v any) (*tandemv1.AttributeValue, error) {
	switch v := v.(type) {
	case string:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Keyword{Keyword: v}}, nil
	case []string:
		list := slices.Compact(slices.Sorted(slices.Values(v)))
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Keywords{Keywords: &tandemv1.Keywords{Values: list}}}, nil
	case bool:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Bool{Bool: v}}, nil
	case int64:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Int{Int: v}}, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("it is %g; accepted: finite numbers", v)
		}
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Float{Float: v}}, nil
	case time.Time:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Timestamp{Timestamp: timestamppb.New(v)}}, nil
	}
	return nil, fmt.Errorf("it is a %T; accepted: string, []string, bool, int64, float64, time.Time", v)
}

// proof returns what answers say of the live log.
func (s *Server) proof() (*tandemv1.LivePosition, *durationpb.Duration) {
	if s.Staleness < 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &tandemv1.LivePosition{Sequence: uint64(len(s.down))}, durationpb.New(s.Staleness)
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

var _ tandemv1connect.RetrievalServiceHandler = (*Server)(nil)

// named gives an answer the name of its request.
func named[T any](m *T, id string) *connect.Response[T] {
	r := connect.NewResponse(m)
	r.Header().Set("X-Request-Id", id)
	r.Header().Set("Cache-Control", "no-store")
	return r
}
