package server

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	pingFrame   = 6
	windowFrame = 8
)

// arrives is a connection on which all has arrived; what is written goes nowhere.
type arrives struct {
	written
}

func (a *arrives) Write(p []byte) (int, error) { return len(p), nil }

// sendFrames has a server read frames, some bytes at a time, and returns how long it took.
func sendFrames(t *testing.T, l *listener, answer func(*conn), all ...frame) time.Duration {
	in := &arrives{}
	in.WriteString(prefaceText)
	for _, f := range all {
		in.Buffer.Write(f.append(nil))
	}
	c := newConn(in, l)
	start := time.Now()
	var read int
	size := in.Len()
	for p := make([]byte, frameHeader); read < size; {
		n, err := c.Read(p)
		require.NoError(t, err)
		read += n
		if answer != nil {
			answer(c)
		}
	}
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.Zero(t, l.spare.resting)
	return time.Since(start)
}

// repeated returns frames n times.
func repeated(n int, all ...frame) (out []frame) {
	for range n {
		out = append(out, all...)
	}
	return out
}

// TestFramesCost reads as many frames that do no work as an allowance lets it, and those
// of requests that are answered as fast as they come.
func TestFramesCost(t *testing.T) {
	ping := frame{kind: pingFrame, payload: make([]byte, 8)}
	reset := []frame{{kind: headersFrame, payload: make([]byte, 20)}, {kind: resetFrame, payload: make([]byte, 4)}}
	for name, test := range map[string]struct {
		frames []frame
		least  time.Duration
		most   time.Duration
	}{
		"pings":          {repeated(10*spareFrames, ping), 8 * time.Second, 10 * time.Second},
		"empty data":     {repeated(5*spareFrames, frame{kind: dataFrame}), 3 * time.Second, 5 * time.Second},
		"rapid resets":   {repeated(4*spareFrames/(headersPrice+resetPrice), reset...), 2 * time.Second, 4 * time.Second},
		"some pings":     {repeated(spareFrames/2, ping), 0, 0},
		"some resets":    {repeated(spareFrames/2/(headersPrice+resetPrice), reset...), 0, 0},
		"large uploads":  {repeated(1000, frame{kind: dataFrame, payload: make([]byte, 16<<10)}), 0, 0},
		"window updates": {repeated(3*spareFrames, frame{kind: windowFrame, payload: make([]byte, 4)}), time.Second, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took := sendFrames(t, newListener(nil, 1, slog.New(slog.DiscardHandler)), nil, test.frames...)
				require.GreaterOrEqual(t, took, test.least)
				require.LessOrEqual(t, took, test.most)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		l := newListener(nil, 1, slog.New(slog.DiscardHandler))
		for range 3 { // others leave nothing
			sendFrames(t, l, nil, repeated(spareFrames, ping)...)
		}
		question := []frame{
			{kind: headersFrame, payload: make([]byte, 200)}, {kind: dataFrame, payload: make([]byte, 100)},
			{kind: windowFrame, payload: make([]byte, 4)}, {kind: windowFrame, payload: make([]byte, 4)}, ping,
		}
		settings, reply := (frame{kind: settingsFrame}).append(nil), frame{kind: headersFrame, payload: make([]byte, 50)}.append(nil)
		length := 0
		for _, f := range question {
			length += len(f.append(nil))
		}
		reads := 0
		took := sendFrames(t, l, func(c *conn) {
			if reads == 0 {
				_, err := c.Write(settings)
				require.NoError(t, err)
			}
			if reads++; reads%(length/frameHeader/2) == 0 { // sooner than it has taken credit
				_, err := c.Write(reply)
				require.NoError(t, err)
			}
		}, repeated(20_000, question...)...)
		require.Less(t, took, 10*time.Millisecond, "they have earned it, all but the first few")
	})
}

// TestCloseEndsRest closes a connection that waits to be read from, or that will not be.
func TestCloseEndsRest(t *testing.T) {
	l := newListener(nil, 1, slog.New(slog.DiscardHandler))
	in := &arrives{}
	in.Conn, _ = net.Pipe()
	in.WriteString(prefaceText)
	for range 10 * spareFrames {
		in.Buffer.Write(frame{kind: dataFrame}.append(nil))
	}
	c := newConn(in, l)
	for c.wait == 0 {
		_, err := c.Read(make([]byte, 1<<20))
		require.NoError(t, err)
	}
	require.Equal(t, 1, l.spare.resting)
	require.NoError(t, c.Close())
	require.Zero(t, l.spare.resting)
	start := time.Now()
	_, _ = c.Read(make([]byte, 1)) // of a connection that is closed
	require.Less(t, time.Since(start), time.Second)
	require.Zero(t, l.spare.resting)
}

// TestRead reads what comes in pieces of any size, whatever it is.
func TestRead(t *testing.T) {
	for _, text := range []string{"POST / HTTP/1.1\r\n\r\n", "PRI * HTTP/1.1\r\n\r\n", "P", "", prefaceText + "more"} {
		for _, size := range []int{1, 3, 10_000} {
			in := &written{}
			in.WriteString(text)
			c := newConn(in, newListener(nil, 1, slog.New(slog.DiscardHandler)))
			var got bytes.Buffer
			_, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{c}, make([]byte, size))
			require.NoError(t, err)
			require.Equal(t, text, got.String())
		}
	}
}
