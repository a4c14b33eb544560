package attack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framing is a connection of HTTP/2 that is spoken by hand. What is written is buffered;
// the first error of writing ends it.
type framing struct {
	*http2.Framer
	a       *attacker
	conn    net.Conn
	out     *bufio.Writer
	headers bytes.Buffer
	encoder *hpack.Encoder
	next    uint32        // number of the next stream
	read    chan struct{} // closed when nothing more is read
	err     error         // of writing
}

// frame opens a connection of HTTP/2 and begins to read what comes back, if read.
func (a *attacker) frame(ctx context.Context, read bool, settings ...http2.Setting) *framing {
	conn, err := a.dial(ctx)
	if err != nil {
		return nil
	}
	f := &framing{a: a, conn: conn, out: bufio.NewWriterSize(conn, 32<<10), next: 1, read: make(chan struct{})}
	f.Framer = http2.NewFramer(f.out, conn)
	f.AllowIllegalWrites = true
	f.encoder = hpack.NewEncoder(&f.headers)
	_ = conn.SetWriteDeadline(time.Now().Add(turnTime))
	_, _ = io.WriteString(f.out, http2.ClientPreface) // a later write tells
	f.check(f.WriteSettings(settings...))
	if read {
		go f.readAll()
	} else {
		close(f.read)
	}
	return f
}

// check notes an error of writing.
func (f *framing) check(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *framing) flush() { f.check(f.out.Flush()) }

// close ends the connection, and waits until nothing more is read.
func (f *framing) close() {
	f.flush()
	if f.err != nil {
		f.a.note("connection closed")
	}
	_ = f.conn.Close()
	<-f.read
}

// readAll notes what comes back, until the connection ends.
func (f *framing) readAll() {
	defer close(f.read)
	reader := http2.NewFramer(io.Discard, bufio.NewReaderSize(f.conn, 32<<10))
	reader.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := reader.ReadFrame()
		if stream := (http2.StreamError{}); errors.As(err, &stream) {
			continue
		}
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			outcome := "goaway " + frame.ErrCode.String()
			f.a.note(outcome)
			f.a.tally.failed(f.a.kind, outcome, string(frame.DebugData()), 0)
		case *http2.RSTStreamFrame:
			outcome := "reset " + frame.ErrCode.String()
			f.a.note(outcome)
			f.a.tally.failed(f.a.kind, outcome, "", 0)
		case *http2.MetaHeadersFrame:
			if status := frame.PseudoValue("status"); status != "" {
				f.a.note("http " + status)
				f.a.tally.failed(f.a.kind, "http "+status, "", 0)
			}
		}
	}
}

// block encodes headers, pairs of a name and a value.
func (f *framing) block(pairs ...string) []byte {
	f.headers.Reset()
	for i := 0; i+1 < len(pairs); i += 2 {
		_ = f.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // a bytes.Buffer takes everything
	}
	return bytes.Clone(f.headers.Bytes())
}

// open begins a request to a method, and returns its stream.
func (f *framing) open(end bool, more ...string) uint32 {
	stream := f.next
	f.next += 2
	pairs := append([]string{
		":method", "POST", ":scheme", "http", ":authority", "tandem", ":path", methodPath("Retrieve"),
		"content-type", "application/proto", "connect-protocol-version", "1",
	}, more...)
	f.check(f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.block(pairs...), EndHeaders: true, EndStream: end}))
	return stream
}

// ask sends a whole request.
func (f *framing) ask(body []byte) uint32 {
	stream := f.open(false)
	f.check(f.WriteData(stream, true, body))
	return stream
}

// holdStreams opens as many streams as it can, and sends headers only, or hardly any body.
func holdStreams(ctx context.Context, a *attacker) {
	f := a.frame(ctx, true)
	if f == nil {
		return
	}
	defer f.close()
	large := a.chance(2)
	for range 200 {
		stream := f.open(false, "content-length", pick(a.rand, "100", "8000000"))
		if large {
			f.check(f.WriteData(stream, false, make([]byte, 8<<10)))
		}
	}
	for until := time.Now().Add(time.Duration(1+a.rand.IntN(12)) * time.Second); f.err == nil && !over(ctx) && time.Now().Before(until); {
		f.check(f.WriteData(uint32(1+2*a.rand.IntN(200)), false, []byte{0}))
		f.flush()
		hold(ctx, 100*time.Millisecond)
	}
}

// resetHeaders and resetQueries open streams and reset them at once: the first with no more
// than headers, the second with whole queries that take long.
func resetHeaders(ctx context.Context, a *attacker) { a.resetRapidly(ctx, nil) }

func resetQueries(ctx context.Context, a *attacker) {
	a.resetRapidly(ctx, marshal(connectProto, a.user(a.rand, maxK)))
}

func (a *attacker) resetRapidly(ctx context.Context, body []byte) {
	f := a.frame(ctx, a.chance(2))
	if f == nil {
		return
	}
	defer f.close()
	for range 5000 {
		if f.err != nil || over(ctx) {
			return
		}
		stream := f.next
		if body != nil {
			f.ask(body)
		} else {
			f.open(a.chance(2))
		}
		f.check(f.WriteRSTStream(stream, pick(a.rand, http2.ErrCodeCancel, http2.ErrCodeNo, http2.ErrCodeProtocol)))
	}
}

// flood sends very many frames that a server has to look at, and may have to answer.
func flood(ctx context.Context, a *attacker) {
	f := a.frame(ctx, a.chance(2))
	if f == nil {
		return
	}
	defer f.close()
	which := a.rand.IntN(8)
	for i := range 50_000 {
		if f.err != nil || over(ctx) {
			return
		}
		switch which {
		case 0:
			f.check(f.WritePing(false, [8]byte{1}))
		case 1:
			f.check(f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)}))
		case 2:
			f.check(f.WriteSettings())
		case 3:
			f.check(f.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: uint32(2 * a.rand.IntN(i+1)), Weight: 255}))
		case 4:
			f.check(f.WriteWindowUpdate(0, 1))
		case 5:
			if i == 0 {
				f.open(false)
			}
			f.check(f.WriteData(1, false, nil))
		case 6:
			f.check(f.WriteRawFrame(http2.FrameType(0x40+i%100), 0, uint32(i), []byte("?")))
		case 7:
			f.check(f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(i * 1000)}))
		}
	}
}

// continueHeaders sends headers that go on and on, or that become much.
func continueHeaders(ctx context.Context, a *attacker) {
	f := a.frame(ctx, true)
	if f == nil {
		return
	}
	defer f.close()
	if a.chance(2) { // one field of the dynamic table, again and again
		value := strings.Repeat("v", 3900)
		for range 100 {
			if f.err != nil || over(ctx) {
				return
			}
			stream := f.open(false, "x-large", value)
			f.check(f.WriteContinuation(stream, false, nil)) // which nothing allows
			f.check(f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.next, BlockFragment: bytes.Repeat([]byte{0xbe}, 16_000), EndHeaders: true}))
			f.next += 2
		}
		return
	}
	f.check(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block(":method", "POST", ":scheme", "http", ":path", "/")}))
	part := f.block("x-more", strings.Repeat("m", pick(a.rand, 0, 10, 10_000)))
	for range 20_000 {
		if f.err != nil || over(ctx) {
			return
		}
		f.check(f.WriteContinuation(1, false, part))
	}
}

// narrow asks for much and gives it no window, or one of a few bytes.
func narrow(ctx context.Context, a *attacker) {
	f := a.frame(ctx, true, http2.Setting{ID: http2.SettingInitialWindowSize, Val: pick(a.rand, uint32(0), 1, 100)},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16384})
	if f == nil {
		return
	}
	defer f.close()
	q := a.user(a.rand, maxK)
	if a.chance(2) {
		q.Attributes = []string{"*"}
		q.K = 3000
	}
	body := marshal(connectProto, q)
	for range 128 {
		f.ask(body)
	}
	f.flush()
	for until := time.Now().Add(time.Duration(1+a.rand.IntN(15)) * time.Second); f.err == nil && !over(ctx) && time.Now().Before(until); {
		switch a.rand.IntN(30) {
		case 0:
			f.check(f.WriteWindowUpdate(uint32(1+2*a.rand.IntN(128)), 0))
		case 1:
			f.check(f.WriteWindowUpdate(pick(a.rand, uint32(0), 1, 3), 1<<31-1))
		default:
			f.check(f.WriteWindowUpdate(uint32(1+2*a.rand.IntN(128)), 1))
		}
		f.flush()
		hold(ctx, 20*time.Millisecond)
	}
}

// breakFrames sends frames in wrong places, with wrong lengths and numbers of streams.
func breakFrames(ctx context.Context, a *attacker) {
	for range 10 {
		f := a.frame(ctx, true)
		if f == nil {
			return
		}
		body := a.valid(a.rand)
		for range 1 + a.rand.IntN(20) {
			f.oddFrame(a.rand, body)
		}
		f.flush()
		hold(ctx, 20*time.Millisecond)
		f.close()
	}
}

func (f *framing) oddFrame(r *rand.Rand, body []byte) {
	switch r.IntN(12) {
	case 0:
		f.check(f.WriteData(uint32(r.IntN(1000)), r.IntN(2) == 0, body))
	case 1:
		stream := f.open(false, "content-length", strconv.Itoa(len(body)+r.IntN(3)-1))
		f.check(f.WriteData(stream, true, body))
	case 2:
		f.next = uint32(2 * r.IntN(100)) // even, or again
		f.open(true)
	case 3: // a frame that is longer than it says
		head := binary.BigEndian.AppendUint32(nil, uint32(r.IntN(1<<24))<<8|uint32(r.IntN(12)))
		_, _ = f.out.Write(append(append(head, byte(r.Uint32())), 0, 0, 0, byte(r.IntN(8))))
	case 4:
		f.check(f.WriteRawFrame(http2.FrameType(r.IntN(11)), http2.Flags(r.Uint32()), uint32(r.IntN(20)), make([]byte, r.IntN(100))))
	case 5:
		f.check(f.WriteSettings(http2.Setting{ID: http2.SettingID(r.IntN(10)), Val: r.Uint32()}))
	case 6:
		f.check(f.WriteGoAway(r.Uint32(), http2.ErrCodeNo, make([]byte, r.IntN(10_000))))
	case 7:
		f.check(f.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: []byte{0x82}, EndHeaders: true}))
	case 8:
		f.open(true, pickPair(r)...)
	case 9:
		f.check(f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.next, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		f.next += 2
	case 10: // trailers before the end, and after it
		stream := f.ask(body)
		f.check(f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.block("t", "t"), EndHeaders: true, EndStream: true}))
	case 11:
		f.check(f.WriteDataPadded(f.open(false), true, body, make([]byte, 255)))
	}
}

// pickPair is a header that a request may not have.
func pickPair(r *rand.Rand) []string {
	return pick(r, []string{":path", "/twice"}, []string{"connection", "close"}, []string{"transfer-encoding", "chunked"}, []string{"UPPER", "case"},
		[]string{"x", "\r\nsmuggled: 1"}, []string{"host", "other"}, []string{":unknown", "1"}, []string{"te", "gzip"}, []string{"", "empty"})
}

// upload sends many large messages on one connection, slowly.
func upload(ctx context.Context, a *attacker) {
	f := a.frame(ctx, true)
	if f == nil {
		return
	}
	defer f.close()
	var streams []uint32
	for range pick(a.rand, 8, 64, 128) {
		streams = append(streams, f.open(false))
	}
	f.flush()
	part := make([]byte, 4<<10)
	for until := time.Now().Add(time.Duration(1+a.rand.IntN(12)) * time.Second); f.err == nil && !over(ctx) && time.Now().Before(until); {
		for _, stream := range streams { // whatever windows say
			f.check(f.WriteData(stream, false, part))
		}
		_ = f.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
		f.flush()
		hold(ctx, 100*time.Millisecond)
	}
}
