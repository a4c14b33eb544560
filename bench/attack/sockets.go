package attack

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// head is the head of a request of HTTP/1.1 to a method, with more headers, each of which
// ends with a line's end.
func head(path, contentType, more string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: tandem\r\nContent-Type: " + contentType + "\r\nConnect-Protocol-Version: 1\r\n" + more + "\r\n"
}

// answered notes the status of what a server answers on a connection, within a time.
func (a *attacker) answered(c net.Conn, within time.Duration) {
	_ = c.SetReadDeadline(time.Now().Add(within)) // it is closed, then reading tells
	line, err := bufio.NewReaderSize(c, 4<<10).ReadSlice('\n')
	switch words := bytes.Fields(line); {
	case err == nil && len(words) > 1 && bytes.HasPrefix(line, []byte("HTTP/1")):
		outcome := "http " + string(words[1][:min(3, len(words[1]))])
		a.note(outcome)
		a.tally.failed(a.kind, outcome, string(line), 0)
	case err == nil:
		a.note("other bytes")
	case errors.Is(err, io.EOF):
		a.note("connection closed")
	default:
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			a.note("no answer")
		} else {
			a.note("connection closed")
		}
	}
}

// closeAll closes connections, which nobody uses any more.
func closeAll(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// sendSlowly sends a request in pieces with pauses, or leaves out the end.
func sendSlowly(ctx context.Context, a *attacker) {
	body := a.valid(a.rand)
	more := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	var conns []net.Conn
	for range pick(a.rand, 1, 16, 128) {
		c, err := a.dial(ctx)
		if err != nil {
			break
		}
		conns = append(conns, c)
	}
	defer func() { closeAll(conns) }()
	whole := []byte(head(methodPath("Retrieve"), "application/proto", more))
	switch a.rand.IntN(4) {
	case 0: // headers only, which never end
		whole = whole[:len(whole)-2]
	case 1: // no body
	case 2: // a large body that hardly begins
		whole = append([]byte(head(methodPath("BatchRetrieve"), "application/proto", "Content-Length: 8000000\r\n")), make([]byte, 300_000)...)
	case 3:
		whole = append(whole, body...)
	}
	piece := pick(a.rand, 1, 7, len(whole))
	for at, until := 0, time.Now().Add(15*time.Second); at < len(whole) && !over(ctx) && time.Now().Before(until); at += piece {
		for _, c := range conns {
			_ = c.SetWriteDeadline(until)
			_, _ = c.Write(whole[at:min(at+piece, len(whole))]) // the server may have closed it
		}
		hold(ctx, 50*time.Millisecond)
	}
	hold(ctx, time.Duration(a.rand.IntN(5))*time.Second)
	for _, c := range conns {
		a.answered(c, 10*time.Millisecond)
	}
}

// takeSlowly asks for much, many times, and takes nothing of it, or hardly anything.
func takeSlowly(ctx context.Context, a *attacker) {
	q := a.user(a.rand, maxK)
	body := marshal(connectProto, q)
	one := head(methodPath("Retrieve"), "application/proto", fmt.Sprintf("Content-Length: %d\r\n", len(body))) + string(body)
	var conns []net.Conn
	defer func() { closeAll(conns) }()
	for range pick(a.rand, 1, 8, 64) {
		c, err := a.dial(ctx)
		if err != nil {
			break
		}
		conns = append(conns, c)
		if e, ok := c.(*ending); ok {
			if t, ok := e.Conn.(*net.TCPConn); ok {
				_ = t.SetReadBuffer(4 << 10) // a hint
			}
		}
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, strings.Repeat(one, pick(a.rand, 1, 10, 100))) // the server may have closed it
	}
	for until := time.Now().Add(time.Duration(a.rand.IntN(15)) * time.Second); time.Now().Before(until) && !over(ctx); {
		if a.chance(2) {
			buffer := make([]byte, 1)
			for _, c := range conns {
				_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
				_, _ = c.Read(buffer)
			}
		}
		hold(ctx, 500*time.Millisecond)
	}
	a.note("held")
}

// churn opens connections and ends them, in each way that there is.
func churn(ctx context.Context, a *attacker) {
	for range 200 {
		if over(ctx) {
			return
		}
		c, err := a.dial(ctx)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, pick(a.rand, "", "G", "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", head(methodPath("Retrieve"), "application/proto", "Content-Length: 9\r\n")))
		e, _ := c.(*ending)
		t, _ := e.Conn.(*net.TCPConn)
		switch a.rand.IntN(4) {
		case 0:
			_ = t.SetLinger(0) // so that it is reset
		case 1:
			_ = t.CloseWrite()
			a.answered(c, 50*time.Millisecond)
		case 2:
			_ = t.CloseRead()
		}
		_ = c.Close()
		a.note("closed by us")
	}
}

// hoard keeps connections that say nothing.
func hoard(ctx context.Context, a *attacker) {
	var conns []net.Conn
	defer func() { closeAll(conns) }()
	for range pick(a.rand, 50, 200) {
		c, err := a.dial(ctx)
		if err != nil {
			break
		}
		conns = append(conns, c)
		a.note("held")
	}
	hold(ctx, time.Duration(1+a.rand.IntN(12))*time.Second)
}

// sendOddly sends what is no HTTP/1.1, or hardly any.
func sendOddly(ctx context.Context, a *attacker) {
	path := methodPath("Retrieve")
	proto := "application/proto"
	odd := []string{
		head(path, proto, "Transfer-Encoding: chunked\r\n") + "zz\r\n",
		head(path, proto, "Transfer-Encoding: chunked\r\n") + "ffffffffffffffff\r\nabc",
		head(path, proto, "Transfer-Encoding: chunked\r\n") + "5;" + strings.Repeat("x", 100_000) + "\r\nabcde\r\n0\r\n\r\n",
		head(path, proto, "Transfer-Encoding: chunked\r\n") + strings.Repeat("1\r\nx\r\n", 200_000),
		head(path, proto, "Transfer-Encoding: chunked\r\n") + "0\r\n" + strings.Repeat("T: t\r\n", 100_000) + "\r\n",
		head(path, proto, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n",
		head(path, proto, "Content-Length: 5\r\nContent-Length: 6\r\n") + "abcdef",
		head(path, proto, "Content-Length: -1\r\n"), head(path, proto, "Content-Length: 99999999999999999999\r\n"),
		head(path, proto, "Content-Length: 9000000000\r\nExpect: 100-continue\r\n"),
		head(path, proto, "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Length: 0\r\n"),
		head(path, "application/connect+proto", "Transfer-Encoding: chunked\r\n") + "5\r\n\x00\xff\xff\xff\xff\r\n",
		head(path, "multipart/form-data; boundary=x", "Content-Length: 4\r\n") + "--x-",
		"GET " + path + "?" + strings.Repeat("a=b&", 40_000) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /readyz HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 50_000) + "\r\n",
		"GET /readyz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 1<<20),
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 500), // TLS
		"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "GET /\r\n", "GET / HTTP/0.9\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "* * HTTP/1.1\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", strings.Repeat("\x00", 100_000), strings.Repeat("\r\n", 100_000),
		strings.Repeat("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 2000), "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n" + strings.Repeat("x", 2_000_000),
	}
	for range 4 {
		c, err := a.dial(ctx)
		if err != nil {
			return
		}
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		_, _ = io.WriteString(c, pick(a.rand, odd...)) // the server may have closed it
		a.answered(c, pick(a.rand, 10*time.Millisecond, time.Second))
		_ = c.Close()
	}
}

// pipeline sends many light requests on one connection without waiting.
func pipeline(ctx context.Context, a *attacker) {
	c, err := a.dial(ctx)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	body := a.valid(a.rand)
	one := head(methodPath("Retrieve"), "application/proto", fmt.Sprintf("Content-Length: %d\r\n", len(body))) + string(body)
	_ = c.SetWriteDeadline(time.Now().Add(3 * time.Second))
	n, _ := io.WriteString(c, strings.Repeat(one, 1000)) // what was taken is counted
	a.note("sent")
	if n == 1000*len(one) && a.chance(2) {
		a.answered(c, 5*time.Second)
	}
}
