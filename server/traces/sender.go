package traces

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tandem-ann/tandem/server/events"
)

// sender sends spans by another exporter, and tells what became of them: a change for the worse
// or the better once. It is called by one goroutine, that of the SDK's queue, which never has
// more spans than the sender has room for.
type sender struct {
	to     sdktrace.SpanExporter
	events *events.Listener
	ending context.Context
	end    context.CancelFunc // gives up what is sent, and what is still to be

	most    int64
	pending atomic.Int64 // spans that wait, or are sent

	mu   sync.Mutex
	bad  bool // spans were lost, and it was told
	lost int  // since it was
	late bool // some were dropped since something was sent last
}

func newSender(to sdktrace.SpanExporter, most int, told *events.Listener) *sender {
	s := &sender{to: to, events: told, most: int64(most)}
	s.ending, s.end = context.WithCancel(context.Background())
	return s
}

// room takes room for spans, or tells that they are dropped.
func (s *sender) room(spans int) bool {
	for {
		now := s.pending.Load()
		if now+int64(spans) > s.most {
			s.tell(events.Traced{Outcome: events.SpansDropped, N: spans})
			return false
		}
		if s.pending.CompareAndSwap(now, now+int64(spans)) {
			return true
		}
	}
}

// ExportSpans implements [sdktrace.SpanExporter]. Errors are told here, and no others see them.
func (s *sender) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	err := s.to.ExportSpans(ctx, spans)
	s.pending.Add(-int64(len(spans)))
	failed := len(spans)
	if err == nil {
		failed = 0
	} else if rejected, ok := rejectedOf(err); ok {
		failed = min(rejected, len(spans))
	}
	if failed > 0 {
		s.tell(events.Traced{Outcome: events.SpansFailed, N: failed, Err: short(err)})
	}
	if sent := len(spans) - failed; sent > 0 {
		s.tell(events.Traced{Outcome: events.SpansSent, N: sent})
	}
	return nil
}

// Shutdown implements [sdktrace.SpanExporter].
func (s *sender) Shutdown(ctx context.Context) error { return s.to.Shutdown(ctx) }

// tell tells what became of spans. Sending is good again once spans were sent and, since those
// before them, none was lost.
func (s *sender) tell(e events.Traced) {
	s.mu.Lock()
	was := s.bad
	switch e.Outcome {
	case events.SpansSent:
		if s.bad = s.bad && s.late; was && !s.bad {
			e.Lost, s.lost = s.lost, 0
		}
		s.late = false
	case events.SpansDropped:
		s.bad, s.late, s.lost = true, true, s.lost+e.N
	default:
		s.bad, s.lost = true, s.lost+e.N
	}
	e.Turned = s.bad != was
	s.mu.Unlock()
	s.events.Traced(e)
}

// rejection is what the exporter says of spans that a collector did not take among others that
// it did; the type of that error is its own.
var rejection = regexp.MustCompile(`^traces export: OTLP partial success: (?s:.*) \((\d+) spans rejected\)$`)

// rejectedOf returns how many spans a collector did not take which did take the others.
func rejectedOf(err error) (int, bool) {
	found := rejection.FindStringSubmatch(err.Error())
	if found == nil {
		return 0, false
	}
	n, err := strconv.Atoi(found[1])
	return n, err == nil
}

// maxError is how many bytes are told of an error: it may have what a collector has answered.
const maxError = 512

// short returns an error whose text is not too long.
func short(err error) error {
	if text := err.Error(); len(text) > maxError {
		return errors.New(text[:maxError] + "...")
	}
	return err
}
