package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// token is what is sent, from a file that is read again.
type token struct {
	now  atomic.Pointer[string] // nil for none
	path string                 // empty if it is in no file

	looking atomic.Bool // by lookBy; of several, one is enough

	mu   sync.Mutex
	seen stamp
}

// stamp is what a file that changes has another one of.
type stamp struct {
	at   time.Time
	size int64
}

// maxToken is how many bytes the file of a token has at most.
const maxToken = 64 << 10

// isToken reports whether a text can be sent as a token.
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f })
}

// lookBy is look, but ends with a context, as a folder that is mounted may hang.
func (t *token) lookBy(ctx context.Context) (changed bool) {
	if t.path == "" || !t.looking.CompareAndSwap(false, true) {
		return false
	}
	done := make(chan bool, 1)
	go func() {
		defer t.looking.Store(false)
		changed, err := t.look() // an error leaves the one before in use; a server that refuses it says so
		done <- changed && err == nil
	}()
	select {
	case changed = <-done:
	case <-ctx.Done():
	}
	return changed
}

// look reads the file if it has changed, and reports whether the token is another one. Errors
// have nothing of what the file has.
func (t *token) look() (changed bool, err error) {
	if t.path == "" {
		return false, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	info, err := os.Stat(t.path)
	if err != nil {
		return false, fmt.Errorf("token file: %w", err)
	}
	if !info.Mode().IsRegular() { // it may block whoever reads it
		return false, fmt.Errorf("token file: %w", &fs.PathError{Op: "open", Path: t.path, Err: errors.New("it is no regular file")})
	}
	now := stamp{info.ModTime(), info.Size()}
	if now == t.seen {
		return false, nil
	}
	f, err := os.Open(t.path)
	if err != nil {
		return false, fmt.Errorf("token file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return false, fmt.Errorf("token file: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if !isToken(text) {
		return false, fmt.Errorf("token file: %s does not have one token, alone", t.path)
	}
	t.seen = now
	before := t.now.Swap(&text)
	return before == nil || *before != text, nil
}
