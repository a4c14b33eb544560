package remote

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
)

const (
	// maxLines is how many lines there are to a node at a time; a call beyond waits.
	maxLines = 256
	// keptLine is how long a line that is not in use is kept, less than a node keeps it.
	keptLine = time.Minute
	// plainTime is how long a node that has no lines is asked by Connect, until lines are tried
	// again: another build may have taken its place.
	plainTime = 5 * time.Second

	lineBuffer = 8 << 10
)

// errPlain says that a node has no lines.
var errPlain = errors.New("the node does not speak in frames")

// errStale says that a line had ended before anything of an answer came: if it was in use
// before, the node had closed it.
var errStale = errors.New("the connection was closed")

// lines are the lines to a node. They are for any number of goroutines.
type lines struct {
	o    *NodeOptions
	tls  *tls.Config // nil for clear text
	room chan struct{}

	mu    sync.Mutex
	busy  map[*line]struct{}
	dials map[*dial]struct{}
	idle  []*line // those in use last at the end
	ended uint64  // how often all lines were given up
	plain time.Time
}

// line is a line to a node. It is for one goroutine.
type line struct {
	conn  net.Conn
	r     *bufio.Reader
	token string
	since uint64 // lines.ended when it began
	used  time.Time
	fresh bool // it was not in use before
	isCut atomic.Bool
	head  [answerHead]byte
}

// dial is a line that is being made.
type dial struct {
	end   context.CancelFunc
	isCut atomic.Bool
}

func newLines(o *NodeOptions) *lines {
	l := &lines{o: o, room: make(chan struct{}, maxLines), busy: map[*line]struct{}{}, dials: map[*dial]struct{}{}}
	if o.TLS != nil {
		l.tls = o.TLS.Clone()
		l.tls.NextProtos = []string{"http/1.1"}
		if l.tls.ServerName == "" {
			l.tls.ServerName, _, _ = net.SplitHostPort(o.Address) // a wrong address is told by who dials it
		}
	}
	return l
}

// call makes a unary call. The error is a [*connect.Error] that the node has sent, errPlain if
// it has no lines, or says why there is no answer.
func (l *lines) call(ctx context.Context, procedure string, m, reply proto.Message) error {
	select {
	case l.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.room }()
	out, in := buffers.Get().(*bytes.Buffer), buffers.Get().(*bytes.Buffer)
	defer putBuffer(out)
	defer putBuffer(in)
	beginFrame(out, askHead)
	if err := marshal(out, m); err != nil {
		return err
	}
	method := methodNumber(procedure)
	for {
		one, err := l.take(ctx)
		if err != nil {
			return err
		}
		fresh := one.fresh
		kind, err := one.call(ctx, out.Bytes(), method, in, l.o)
		if err != nil {
			l.drop(one)
			if !fresh && errors.Is(err, errStale) && ctx.Err() == nil {
				l.end() // the others are of the same process
				continue
			}
			return err
		}
		l.put(one)
		if kind == frameError {
			return readFrameError(in.Bytes())
		}
		return proto.Unmarshal(in.Bytes(), reply)
	}
}

// take returns a line that nobody uses.
func (l *lines) take(ctx context.Context) (*line, error) {
	token, now := "", time.Now()
	if l.o.Token != nil {
		token = l.o.Token()
	}
	l.mu.Lock()
	for len(l.idle) > 0 {
		one := l.idle[len(l.idle)-1]
		l.idle = l.idle[:len(l.idle)-1]
		if one.token == token && now.Sub(one.used) < keptLine {
			l.busy[one] = struct{}{}
			l.mu.Unlock()
			return one, nil
		}
		_ = one.conn.Close() // nothing is under way on it
	}
	ended, isPlain := l.ended, now.Before(l.plain)
	if isPlain {
		l.mu.Unlock()
		return nil, errPlain
	}
	dialing, end := context.WithTimeout(ctx, min(handshakeTime, l.o.Silence))
	defer end()
	d := &dial{end: end}
	l.dials[d] = struct{}{}
	l.mu.Unlock()
	one, err := l.begin(dialing, token)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.dials, d)
	if d.isCut.Load() { // what was made is not cut later
		if err == nil {
			_ = one.conn.Close() // nothing is under way on it
		}
		return nil, ErrCut
	}
	if errors.Is(err, errPlain) {
		l.plain = now.Add(plainTime)
	}
	if err != nil {
		return nil, err
	}
	one.since = ended
	l.busy[one] = struct{}{}
	return one, nil
}

// drop closes a line on which something may come still.
func (l *lines) drop(one *line) {
	l.mu.Lock()
	delete(l.busy, one)
	l.mu.Unlock()
	_ = one.conn.Close() // it is of no use
}

// put takes back a line on which nothing is under way.
func (l *lines) put(one *line) {
	one.fresh, one.used = false, time.Now()
	var old *line
	l.mu.Lock()
	delete(l.busy, one)
	if one.since != l.ended || one.isCut.Load() {
		old = one
	} else {
		l.idle = append(l.idle, one)
		if one.used.Sub(l.idle[0].used) > keptLine {
			old = l.idle[0]
			l.idle = slices.Delete(l.idle, 0, 1)
		}
	}
	l.mu.Unlock()
	if old != nil {
		_ = old.conn.Close() // nothing is under way on it
	}
}

// end gives up all lines that there are. What is under way on them goes on.
func (l *lines) end() {
	l.mu.Lock()
	list := l.idle
	l.idle = nil
	l.ended++
	l.mu.Unlock()
	for _, one := range list {
		_ = one.conn.Close() // nothing is under way on it
	}
}

// cut ends all calls that are under way, and those that wait for a connection to be made.
func (l *lines) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for one := range l.busy {
		one.isCut.Store(true)
		_ = one.conn.SetDeadline(past) // if that fails, so does the call
	}
	for d := range l.dials {
		d.isCut.Store(true)
		d.end()
	}
}

// begin connects, and has the node go on in frames, before ctx ends.
func (l *lines) begin(ctx context.Context, token string) (*line, error) {
	dialer := net.Dialer{Timeout: dialTime, KeepAliveConfig: net.KeepAliveConfig{Enable: false}} // a call has an end
	conn, err := dialer.DialContext(ctx, "tcp", l.o.Address)
	if err != nil {
		return nil, err
	}
	if l.tls != nil {
		conn = tls.Client(conn, l.tls)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })()
	one := &line{conn: conn, r: bufio.NewReaderSize(conn, lineBuffer), token: token, fresh: true}
	err = one.upgrade(l.o.Address)
	if ctx.Err() != nil { // its deadline may be in the past
		err = ErrSilent
	}
	if err != nil {
		_ = conn.Close() // it is of no use
		return nil, err
	}
	return one, nil
}

// upgrade has the node go on in frames. The error is errPlain if it does not, but for those who
// may not ask it at all.
func (one *line) upgrade(host string) error {
	r, err := http.NewRequest(http.MethodPost, "http://"+host+linePath, http.NoBody) //nolint:noctx // the connection has a deadline
	if err != nil {
		return err
	}
	r.Header["Connection"], r.Header["Upgrade"] = []string{"Upgrade"}, []string{lineName}
	if one.token != "" {
		r.Header["Authorization"] = []string{"Bearer " + one.token}
	}
	if err := r.Write(one.conn); saysClear(err) {
		return errWantsClear
	} else if err != nil {
		return errPlain
	}
	if first, err := one.r.Peek(1); err == nil && first[0] == recordAlert {
		return errWantsTLS
	}
	answer, err := http.ReadResponse(one.r, r)
	if err != nil { // it may speak HTTP/2 only
		return errPlain
	}
	defer answer.Body.Close() //nolint:errcheck // of the connection, which goes on in frames or is closed
	if answer.StatusCode == http.StatusSwitchingProtocols {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxErrorBytes))
	if err != nil {
		return errPlain
	}
	switch answer.StatusCode {
	case http.StatusBadRequest:
		if saysTLS(body) {
			return errWantsTLS
		}
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return readWireError(answer, body)
	}
	return errPlain
}

// ErrSilent says that nothing was heard of a node for [NodeOptions].Silence.
var ErrSilent = errors.New("the node has given no sign of life")

// ErrCut says that a call was given up with all others of its node, by [Node.Cut].
var ErrCut = errors.New("the node was given up, with all that it was asked")

// call sends a frame, and reads what is answered. The line is of no use after an error.
func (one *line) call(ctx context.Context, frame []byte, method int, in *bytes.Buffer, o *NodeOptions) (kind byte, err error) {
	stop := context.AfterFunc(ctx, func() { _ = one.conn.SetDeadline(past) })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err() // its deadline is in the past, or about to be
		}
	}()
	var left time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		left = max(time.Until(deadline), 1)
	}
	endAsk(frame, method, left)
	if err := one.wait(ctx, o.Silence+transferTime(len(frame))); err != nil {
		return 0, err
	}
	if _, err := one.conn.Write(frame); err != nil {
		return 0, one.failure(err, true)
	}
	for answered := false; ; answered = true {
		if n, err := io.ReadFull(one.r, one.head[:]); err != nil {
			return 0, one.failure(err, n == 0 && !answered)
		}
		length, kind := binary.LittleEndian.Uint32(one.head[:]), one.head[4]
		most := o.MaxReplyBytes
		switch kind {
		case frameReply:
		case frameError:
			most = maxErrorBytes
		case frameWorking:
			if err := one.wait(ctx, o.Silence); err != nil {
				return 0, err
			}
			continue
		default:
			return 0, fmt.Errorf("its answer has kind %d; want %d to %d", kind, frameReply, frameWorking)
		}
		if uint64(length) > uint64(most) {
			return 0, tooLarge(length, most)
		}
		if length > lineBuffer {
			if err := one.wait(ctx, o.Silence+transferTime(int(length))); err != nil {
				return 0, err
			}
		}
		if err := readFrame(in, one.r, int(length)); err != nil {
			return 0, one.failure(err, false)
		}
		return kind, nil
	}
}

// wait has the connection waited for, from now on, for so long, unless ctx has ended.
func (one *line) wait(ctx context.Context, most time.Duration) error {
	if err := one.conn.SetDeadline(time.Now().Add(most)); err != nil {
		return err
	}
	if one.isCut.Load() {
		return ErrCut
	}
	return ctx.Err() // if it ends later, so does the wait
}

// failure returns the error of a connection that has failed, unanswered if nothing of an answer
// has come.
func (one *line) failure(err error, unanswered bool) error {
	switch {
	case one.isCut.Load():
		return ErrCut
	case isTimeout(err):
		return ErrSilent
	case unanswered:
		return fmt.Errorf("%w: %w", errStale, err)
	}
	return err
}
