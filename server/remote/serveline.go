package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
)

const (
	// idleLine is how long a node keeps a line on which nothing is asked.
	idleLine = 3 * time.Minute
	// attendAfter is how long a call takes until a router that has gone is looked for: most are
	// over before.
	attendAfter = time.Millisecond
)

// served is the side of a node of a line.
type served struct {
	h        *Handler
	conn     net.Conn
	r        *bufio.Reader
	request  *http.Request // that it began as
	idle     bool          // guarded by the handler's mu
	attend   *time.Timer   // runs attended
	mu       sync.Mutex    // of what is written, and of what follows
	cancel   context.CancelFunc
	over     bool          // the call is
	attended chan struct{} // closed when nobody looks for the router any more
}

// serveLine goes on in frames with whoever has sent a request, until either side ends the line.
func (h *Handler) serveLine(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != lineName {
		w.Header().Set("Upgrade", lineName)
		http.Error(w, "upgrade is "+cut(r.Header.Get("Upgrade"))+"; accepted: "+lineName, http.StatusUpgradeRequired)
		return
	}
	if n := int(h.lineCount.Add(1)); n > h.o.MaxLines {
		h.lineCount.Add(-1)
		http.Error(w, fmt.Sprintf("%d lines are open, and %d may be", n-1, h.o.MaxLines), http.StatusServiceUnavailable)
		return
	}
	defer h.lineCount.Add(-1)
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil { // a stream of HTTP/2
		http.Error(w, "frames go over a connection of HTTP/1.1", http.StatusHTTPVersionNotSupported)
		return
	}
	defer conn.Close() //nolint:errcheck // all of use was written
	if rw.Reader.Buffered() > 0 {
		return // a router waits for the answer first
	}
	// The reader of package http ends the request's context when a wait is cut off.
	s := &served{h: h, conn: conn, r: bufio.NewReaderSize(conn, lineBuffer), request: r}
	s.attend = time.AfterFunc(time.Hour, s.lookForRouter)
	s.attend.Stop()
	if conn.SetDeadline(time.Now().Add(routerSilence)) != nil {
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+lineName+"\r\n\r\n"); err != nil {
		return
	}
	if !h.addLine(s) {
		return
	}
	defer h.removeLine(s)
	for s.next() {
	}
}

// addLine takes in a line, unless the handler ends.
func (h *Handler) addLine(s *served) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ending {
		return false
	}
	h.lines[s] = struct{}{}
	return true
}

func (h *Handler) removeLine(s *served) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.lines, s)
	if h.ending && len(h.lines) == 0 {
		close(h.ended)
	}
}

// rest says whether the line waits for a call, and returns false if it is to end instead.
func (s *served) rest(idle bool) bool {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.idle = idle
	if idle && s.h.ending {
		return false
	}
	return !idle || s.conn.SetReadDeadline(time.Now().Add(idleLine)) == nil
}

// next answers the next call, and reports whether there may be another one.
func (s *served) next() bool {
	if !s.rest(true) {
		return false
	}
	var head [askHead]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return false
	}
	s.rest(false)
	length, method, left := binary.LittleEndian.Uint32(head[:]), int(head[4]), time.Duration(binary.LittleEndian.Uint64(head[8:]))
	b := buffers.Get().(*bytes.Buffer)
	defer putBuffer(b)
	if uint64(length) > uint64(s.h.o.MaxRequestBytes) {
		return s.refuse(b, tooLarge(length, s.h.o.MaxRequestBytes)) && s.skip(length)
	}
	if s.conn.SetReadDeadline(time.Now().Add(routerSilence+transferTime(int(length)))) != nil {
		return false
	}
	if err := readFrame(b, s.r, int(length)); err != nil {
		return false
	}
	switch {
	case method >= len(lineMethods):
		return s.refuse(b, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("the frame is of method %d; accepted: 0 to %d", method, len(lineMethods)-1)))
	case left < 0:
		return s.refuse(b, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the time that is left is %d ns; accepted: 0 for no end, or more", left)))
	}
	if s.h.o.Allowed != nil {
		if err := s.h.o.Allowed(s.request); err != nil {
			s.refuse(b, err)
			return false
		}
	}
	return s.answer(s.h.methods[lineMethods[method]], b, left)
}

// skip reads the rest of a message that is not answered, if it is short.
func (s *served) skip(length uint32) bool {
	const most = 1 << 20
	if length > most {
		return false
	}
	_, err := io.CopyN(io.Discard, s.r, int64(length))
	return err == nil
}

// answer answers a call, whose message is in b.
func (s *served) answer(m method, b *bytes.Buffer, left time.Duration) bool {
	ctx, cancel := context.WithCancel(s.request.Context())
	defer cancel()
	if left > 0 {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, left)
		defer end()
	}
	s.begin(cancel)
	done, err := s.h.enter()
	kind := frameReply
	if err == nil {
		err = s.call(ctx, m, b)
		done()
	}
	if err != nil {
		kind = frameError
		beginFrame(b, answerHead)
		appendError(b, err)
	}
	return s.end(b, kind)
}

// call makes b the frame of a reply.
func (s *served) call(ctx context.Context, m method, b *bytes.Buffer) error {
	out, err := m(ctx, b.Bytes())
	if err != nil {
		return err
	}
	beginFrame(b, answerHead)
	if err := marshal(b, out); err != nil {
		return connect.NewError(connect.CodeInternal, errors.New("the reply cannot be encoded"))
	}
	return nil
}

// refuse answers a call with an error, and reports whether there may be another one.
func (s *served) refuse(b *bytes.Buffer, err error) bool {
	s.begin(nil)
	beginFrame(b, answerHead)
	appendError(b, err)
	return s.end(b, frameError)
}

// begin has the router looked for if the call that cancel ends takes long.
func (s *served) begin(cancel context.CancelFunc) {
	s.cancel, s.over, s.attended = cancel, false, make(chan struct{})
	if cancel != nil {
		s.attend.Reset(attendAfter)
	}
}

// end sends the answer of a call, and reports whether there may be another one.
func (s *served) end(b *bytes.Buffer, kind byte) bool {
	looks := s.cancel != nil && !s.attend.Stop()
	s.mu.Lock()
	s.over = true
	if looks {
		_ = s.conn.SetReadDeadline(past) // if that fails, so does what it is to end
	}
	s.mu.Unlock()
	if looks {
		<-s.attended
	}
	frame := b.Bytes()
	endAnswer(frame, kind)
	if s.conn.SetWriteDeadline(time.Now().Add(routerSilence+transferTime(len(frame)))) != nil {
		return false
	}
	_, err := s.conn.Write(frame)
	return err == nil
}

// lookForRouter gives signs of life until the call is over, and ends it if the router has gone.
func (s *served) lookForRouter() {
	defer close(s.attended)
	for first := true; s.stillWorks(first); first = false {
		_, err := s.r.Peek(1)
		if err != nil && isTimeout(err) {
			continue
		}
		s.cancel() // it has gone, or asks for another thing, as no router does
		return
	}
}

// stillWorks gives a sign of life, but at first, and has the next one due in a while, if the call
// is not over.
func (s *served) stillWorks(first bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	now := time.Now()
	if s.conn.SetReadDeadline(now.Add(workingEvery)) != nil || s.conn.SetWriteDeadline(now.Add(routerSilence)) != nil {
		return true // reading fails too
	}
	if !first {
		var frame [answerHead]byte
		endAnswer(frame[:], frameWorking)
		_, _ = s.conn.Write(frame[:]) // if that fails, so does reading
	}
	return true
}
