package server

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/live"
)

// call is a request to a method on its way through the server, with all that it holds of
// what is bounded. Its body arrives first, whole, while it holds nothing but the bytes
// that have arrived; then it is decoded; then the method knows what it costs, and admits
// it; and once the answer is encoded it holds nothing but the bytes of that, for as long
// as the caller takes to take them.
//
// It is the context of the request, so that the method finds it.
type call struct {
	context.Context // that of the request, with the longest deadline
	limits          *limiter
	exchange        *exchange
	priority        auth.Priority
	control         *http.ResponseController
	answering       answering

	body   io.ReadCloser // as it arrives
	stream *importBody   // if it is one of messages
	length int64         // of it, if that is known, else -1
	packed string        // its encoding, gzip or zstd, if it is compressed
	http1  bool
	get    bool   // a GET, whose message is in the URL
	taken  bool   // and was taken out of it
	query  string // of the URL
	data   []byte // what has arrived
	small  [768]byte
	head   int    // bytes of data before the message
	json   bool   // the message is in JSON, else in protobuf
	unread string // what Connect is still to read as the body
	err    error  // why the request is refused without being looked at

	// What it holds. A method may be worked on by several goroutines, but they admit
	// nothing.
	held     holding
	admitted cost
	turn     bool
	wait     time.Duration  // for the turn, once it was admitted
	rows     *candidateRows // of the answer, nil until it is made, and of batches
	arm      string         // what answers it; empty until that is known, and of batches

	told     []*events.Answer  // what is told once the answer is encoded
	one      [1]*events.Answer // it for one query
	answered time.Time         // when the method had all of it

	views    []*live.View // that the answer was made with, to be looked at last; see fence
	finisher *finisher    // not nil once there is an answer that is looked at last

	mu    sync.Mutex // held to use control from outside
	ended bool
}

type callKey struct{}

// Value implements [context.Context].
func (c *call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// callFrom returns the call that ctx belongs to, nil if a method is called without a
// handler.
func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// receive is the gate of the methods: it waits until the body has arrived. ctx has the
// caller's deadline.
//
// Connect would read the body into memory of its own, and copy it as that grows. It gets
// an empty message, and the interceptors decode that of the call. A request that is refused
// here reaches them too, which refuse it: they name and log it.
func receive(ctx context.Context, spec connect.Spec, _ connect.Peer, header http.Header) (context.Context, error) {
	c := callFrom(ctx)
	if c == nil || spec.StreamType != connect.StreamTypeUnary {
		return nil, nil
	}
	enveloped := isGRPC(header)
	if enveloped {
		c.head, c.unread = envelopeBytes, emptyEnvelope
	}
	if !c.taken {
		c.json = isJSON(header.Get("Content-Type"))
	}
	if c.err == nil {
		c.err = c.arrive(ctx)
	}
	if c.err == nil && enveloped {
		c.err = checkEnvelope(c.data, cmp.Or(c.packed, header.Get("Grpc-Encoding")))
	}
	if c.err == nil && c.isLarge() {
		c.err = c.takeTurn(ctx)
	}
	if c.err == nil && c.packed != "" {
		c.err = c.inflate(ctx)
	}
	if c.err != nil {
		c.free()
	}
	if in := c.span(); in.On() {
		in.BeginAt("receive", c.exchange.start).End()
	}
	return nil, nil
}

// decode decodes the message that has arrived, of which nothing stays.
func (c *call) decode(ctx context.Context, m proto.Message) error {
	form := keptWire
	if c.json {
		form = keptJSON
	}
	defer c.free()
	return decodeFrom(ctx, form, c.data[c.head:], m)
}

// takeRows returns rows for the one answer to a request, which it has until it has ended: it is
// encoded then.
func (c *call) takeRows() *candidateRows {
	c.rows, _ = c.limits.rows.Get().(*candidateRows)
	if c.rows == nil {
		c.rows = &candidateRows{}
	}
	return c.rows
}

// arrive reads the body.
func (c *call) arrive(ctx context.Context) error {
	if c.body == nil {
		c.limits.bytes.resume(c)
		return nil
	}
	limit := c.limits.maxBytes + envelopeBytes
	if c.length > int64(limit) {
		return tooLarge(c.limits.maxBytes)
	}
	left := c.limits.read
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(deadline))
	}
	// Over HTTP/2 a deadline is a message to the goroutine of the connection, which a
	// request that arrives in time does without.
	late := time.AfterFunc(left, c.stopReading)
	defer func() {
		if !late.Stop() {
			c.noMore() // it may come only now
		}
	}()
	c.data = c.small[:0]
	for {
		if len(c.data) == cap(c.data) {
			if err := c.grow(limit); err != nil {
				return err
			}
		}
		n, err := c.body.Read(c.data[len(c.data):cap(c.data)])
		c.data = c.data[:len(c.data)+n]
		if len(c.data) > limit {
			return tooLarge(c.limits.maxBytes)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return c.readError(ctx, err)
		}
	}
	if !c.limits.bytes.resume(c) {
		return errCutOff()
	}
	c.exchange.enter(ctx)
	if c.http1 {
		// Else what net/http reads in the background would end the request.
		_ = c.control.SetReadDeadline(time.Time{})
	}
	return nil
}

// isGRPC reports whether the body of a request to a method is a message of gRPC or
// gRPC-Web. Connect takes types in any case.
func isGRPC(header http.Header) bool {
	const prefix = "application/grpc"
	kind := header.Get("Content-Type")
	return len(kind) >= len(prefix) && strings.EqualFold(kind[:len(prefix)], prefix)
}

// checkEnvelope returns an error unless the body of a request by gRPC is one whole
// message. Connect would call it an error of the server.
func checkEnvelope(body []byte, encoding string) error {
	if len(body) == 0 {
		return invalidf(reasonMalformed, "", "the body has no message; accepted: one")
	}
	if len(body) < envelopeBytes {
		return invalidf(reasonMalformed, "", "the body has %d bytes; accepted: the %d bytes before a message, and the message", len(body), envelopeBytes)
	}
	if err := checkFlags(body[0], encoding); err != nil {
		return err
	}
	length, rest := uint64(binary.BigEndian.Uint32(body[1:])), uint64(len(body)-envelopeBytes)
	switch {
	case length > rest:
		return invalidf(reasonMalformed, "", "the message is said to have %d bytes and has %d", length, rest)
	case length < rest:
		return invalidf(reasonMalformed, "", "%d bytes are after the message; accepted: one message", rest-length)
	}
	return nil
}

// envelopeBytes is what gRPC puts before a message.
const envelopeBytes = 5

// emptyEnvelope is an empty message of gRPC, with what it has before it.
const emptyEnvelope = "\x00\x00\x00\x00\x00"

// grow makes room for more of the body.
func (c *call) grow(limit int) error {
	room := max(smallestBuffer, 2*cap(c.data))
	if c.length > 0 {
		room = min(room, int(c.length)+1)
	}
	_, room = sizeOf(min(room, limit+1))
	if !c.limits.bytes.take(c, int64(room-cap(c.data))) {
		if c.limits.bytes.isCut(c) {
			return errCutOff()
		}
		return c.limits.bytes.full()
	}
	grown := append(c.limits.buffers.take(room), c.data...)
	c.free()
	c.data = grown
	return nil
}

// free gives back the memory of what has arrived.
func (c *call) free() {
	c.limits.buffers.give(c.data)
	c.data = nil
}

// errCutOff is the error of a request whose place was needed.
func errCutOff() error {
	return overloaded(events.ShedArrival, "the request took longer than %s to arrive, and others needed its place", cutOffAfter)
}

func (c *call) readError(ctx context.Context, err error) error {
	late := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case c.limits.bytes.isCut(c):
		return errCutOff()
	case late && time.Since(c.held.since) >= c.limits.read:
		return errorf(connect.CodeDeadlineExceeded, reasonDeadline, "the request did not arrive within %s", c.limits.read)
	case late:
		return errorf(connect.CodeDeadlineExceeded, reasonDeadline, "the deadline passed before the request had arrived")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalidf(reasonMalformed, "", "the body ends after %d bytes, before its end", len(c.data))
	case ctx.Err() != nil:
		return errorf(connect.CodeCanceled, reasonGone, "the caller went away while the request arrived")
	}
	return invalidf(reasonMalformed, "", "the body cannot be read: %w", err)
}

// largeMessage is how many bytes a message may have for one to be decoded at any time:
// that takes less than about a millisecond.
const largeMessage = 64 << 10

// largestZipped is how many bytes of a compressed message cannot become very many.
const largestZipped = 256

// isLarge reports whether it may take long to decode the message.
func (c *call) isLarge() bool {
	if max(len(c.data), len(c.query)) > largeMessage || strings.Contains(c.query, "compression=") {
		return true
	}
	switch c.packed {
	case "":
		return false
	case "gzip":
		return len(c.data) > largestZipped
	}
	return true // hardly anything is small in zstd
}

// Read implements [io.Reader] for Connect.
func (c *call) Read(p []byte) (int, error) {
	if c.unread == "" {
		return 0, io.EOF
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// Close implements [io.Closer].
func (c *call) Close() error {
	if c.body == nil {
		return nil
	}
	return c.body.Close()
}

// takeTurn waits for a turn to do long work. What is not admitted yet, as nobody knows what
// it costs, waits in a queue, and is refused if that is full.
func (c *call) takeTurn(ctx context.Context) error {
	if c.turn {
		return nil
	}
	c.exchange.leave()
	select {
	case c.limits.turns <- struct{}{}:
	default:
		if c.admitted.counted == 0 {
			select {
			case c.limits.queue <- struct{}{}:
				defer func() { <-c.limits.queue }()
			default:
				return overloaded(events.ShedQueue, "%d large requests wait to be looked at, as many as are accepted", cap(c.limits.queue))
			}
		}
		select {
		case c.limits.turns <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.turn = true
	return nil
}

// admit takes what the request costs, or returns an error at once if that is too much
// beside what is in flight. What takes long waits for its turn.
func (c *call) admit(ctx context.Context, k cost) error {
	admitting := c.span().Begin("admit")
	defer admitting.End()
	k.priority = c.priority
	charged := c.limits.work.corrected(k.work)
	if from := connFrom(ctx); from != nil {
		from.sent(charged > shortWork)
	}
	if err := c.exchange.charge(charged); err != nil {
		return quotaError(err)
	}
	if err := c.limits.work.enter(&k); err != nil {
		c.exchange.refund(charged)
		return err
	}
	c.admitted = k
	if !c.limits.bytes.take(c, int64(k.memory)) {
		c.exchange.refund(charged)
		return c.limits.bytes.full()
	}
	if c.admitted.isLong() {
		err := c.takeTurn(ctx)
		c.wait = time.Since(c.admitted.start)
		return err
	}
	c.giveTurn()
	return nil
}

func (c *call) giveTurn() {
	if c.turn {
		c.turn = false
		<-c.limits.turns
	}
}

// worked gives back what only work needs.
func (c *call) worked() {
	c.exchange.leave()
	c.giveTurn()
	if c.admitted.counted > 0 {
		c.limits.work.leave(&c.admitted)
		c.admitted = cost{}
	}
}

// end gives back all.
func (c *call) end() {
	if c.finisher != nil { // Connect could not encode the answer
		c.finisher.tell()
	}
	c.worked()
	c.free()
	if c.rows != nil {
		c.rows.clear()
		c.limits.rows.Put(c.rows)
	}
	c.limits.bytes.release(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
}

// cutOff ends the request's reading and writing.
func (c *call) cutOff() {
	c.stopReading()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		_ = c.control.SetWriteDeadline(longAgo())
	}
}

// noMore has a connection of HTTP/1.1 end with the answer: net/http looks for what its
// client does next, fails, and takes the requests that come for cancelled ones.
func (c *call) noMore() {
	if !c.http1 {
		return
	}
	if x := exchangeFrom(c.Context); x != nil {
		x.last.Store(true)
	}
}

// stopReading ends the request's reading.
func (c *call) stopReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.noMore()
		_ = c.control.SetReadDeadline(longAgo())
	}
}

// longAgo is a deadline that has passed.
func longAgo() time.Time { return time.Unix(1, 0) }
