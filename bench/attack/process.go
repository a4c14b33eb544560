package attack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Log is what a server logged.
type Log struct {
	Lines int64 `json:"lines"`
	Bytes int64 `json:"bytes"`
	// Errors are the first lines of level ERROR, and those that are not JSON, such as a
	// crash's.
	Errors []string `json:"errors,omitempty"`
}

// maxLogged is how many of a log's errors are kept, and maxLine how many bytes of each.
const (
	maxLogged = 20
	maxLine   = 1000
)

// How long a server may take to be ready, and to stop.
const (
	readyTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
)

// serverProcess is a server that runs as a process of its own.
type serverProcess struct {
	cmd     *exec.Cmd
	address string
	exited  chan struct{}
	err     error        // why it ended, once exited is closed
	line    func([]byte) // called for each line of its log, if not nil

	mu  sync.Mutex
	log Log
}

// startServer starts a server, on one processor, and waits until it is ready.
func startServer(ctx context.Context, command []string, processor int, line func([]byte)) (*serverProcess, error) {
	p := &serverProcess{cmd: exec.Command(command[0], command[1:]...), exited: make(chan struct{}), line: line}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(p.cmd, processor); err != nil {
		return nil, err
	}
	listening := make(chan string, 1)
	go func() {
		defer close(p.exited)
		p.follow(stderr, listening)
		p.err = p.cmd.Wait()
	}()
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	select {
	case p.address = <-listening:
		err = p.awaitReady(limited)
	case <-p.exited:
		err = p.ended()
	case <-limited.Done():
		err = fmt.Errorf("the server does not listen after %s", readyTimeout)
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// ended is the error of a server that has ended by itself.
func (p *serverProcess) ended() error {
	text := ""
	if errs := p.logged().Errors; len(errs) > 0 {
		text = ": " + errs[0]
	}
	return fmt.Errorf("the server ended by itself (%v)%s", p.cmd.ProcessState, text)
}

// follow reads the log to its end.
func (p *serverProcess) follow(r io.Reader, listening chan<- string) {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, more, err := lines.ReadLine()
		if err != nil {
			return
		}
		if p.line != nil {
			p.line(line)
		}
		var entry struct{ Level, Msg, Address string }
		parsed := json.Unmarshal(line, &entry) == nil
		if parsed && entry.Msg == "listening" {
			select {
			case listening <- entry.Address:
			default:
			}
		}
		p.mu.Lock()
		p.log.Bytes += int64(len(line))
		if !more {
			p.log.Lines++
			p.log.Bytes++
		}
		if (!parsed && !more || entry.Level == "ERROR") && len(p.log.Errors) < maxLogged {
			p.log.Errors = append(p.log.Errors, string(bytes.ToValidUTF8(line[:min(len(line), maxLine)], []byte("?"))))
		}
		p.mu.Unlock()
	}
}

func (p *serverProcess) logged() Log {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log
}

// awaitReady waits until the server is ready.
func (p *serverProcess) awaitReady(ctx context.Context) error {
	transport := &http.Transport{DisableKeepAlives: true}
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		if response, err := transport.RoundTrip(request); err == nil {
			_ = response.Body.Close() // its status is what counts
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.exited:
			return p.ended()
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop asks the server to stop, and returns an error if it had ended before, or if it does
// not stop well in time.
func (p *serverProcess) stop() error {
	select {
	case <-p.exited:
		return p.ended()
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	select {
	case <-p.exited:
		if p.err != nil {
			return fmt.Errorf("the server did not stop well: %w", p.err)
		}
		return nil
	case <-time.After(stopTimeout):
		err := p.cmd.Process.Kill()
		<-p.exited
		return errors.Join(fmt.Errorf("the server did not stop within %s of SIGTERM, and was killed", stopTimeout), err)
	}
}

// sendFrom runs attackers as a process of their own, on one processor, at a lower
// priority.
func sendFrom(ctx context.Context, command []string, processor int) (*Sent, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = turnTime
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := startOn(cmd, processor); err != nil {
		return nil, err
	}
	err := lower(cmd.Process.Pid)
	if waitErr := cmd.Wait(); waitErr != nil {
		text := log.Bytes()
		err = errors.Join(err, fmt.Errorf("attack: %w: %s", waitErr, text[:min(len(text), maxLine)]))
	}
	if err != nil {
		return nil, err
	}
	sent := new(Sent)
	if err := json.Unmarshal(out.Bytes(), sent); err != nil {
		return nil, fmt.Errorf("read what the attackers report: %w", err)
	}
	return sent, nil
}
