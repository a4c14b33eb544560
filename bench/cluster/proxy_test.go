package cluster

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each connection with what it says, until the test ends.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c) // one at a time
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		<-done
	})
	return l.Addr().String()
}

// TestProxy has a connection frozen, thawed and cut, and a new one refused until that is over.
func TestProxy(t *testing.T) {
	to := echo(t)
	p, err := NewProxy()
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close()) }()
	p.To(to)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.Address())
		require.NoError(t, err)
		return c
	}
	says := func(c net.Conn, text string, within time.Duration) error {
		if _, err := c.Write([]byte(text)); err != nil {
			return err
		}
		require.NoError(t, c.SetReadDeadline(time.Now().Add(within)))
		got := make([]byte, len(text))
		_, err := io.ReadFull(c, got)
		if err == nil {
			require.Equal(t, text, string(got))
		}
		return err
	}
	c := dial()
	require.NoError(t, says(c, "a", time.Minute))
	p.Set(Freeze, 0)
	require.ErrorContains(t, says(c, "b", 50*time.Millisecond), "timeout")
	p.Set(Pass, 0)
	got := make([]byte, 1)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, "b", string(got))
	p.Set(Cut, 0)
	require.Error(t, says(c, "c", time.Minute))
	require.NoError(t, c.Close())
	c = dial()
	require.Error(t, says(c, "d", time.Minute))
	require.NoError(t, c.Close())
	p.Set(Pass, 0)
	c = dial()
	require.NoError(t, says(c, "e", time.Minute))
	require.NoError(t, c.Close())
}
