package cluster

import (
	"bufio"
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

	"github.com/tandem-ann/tandem/bench/attack"
)

// How long a process may take to be ready, and to stop.
const (
	readyTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
	lookEvery    = 20 * time.Millisecond
)

// maxKept is how many bytes of a log are kept, to be told if something is wrong.
const maxKept = 16 << 10

// process is a server of any role, which is started again and again under one name. It is for
// one goroutine, but for what is guarded by mu.
type process struct {
	name    string
	command func() []string
	pinned  bool // to the first processor

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{}
	address string
	admin   string // where it listens for those who operate it
	last    []byte // of its log
}

// start starts the process, and waits until it listens.
func (p *process) start(ctx context.Context) error {
	args := p.command()
	cmd := exec.Command(args[0], args[1:]...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := attack.StartOwned(cmd, p.pinned); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited, listening := make(chan struct{}), make(chan string, 1)
	p.mu.Lock()
	p.cmd, p.exited, p.address, p.last = cmd, exited, "", nil
	p.mu.Unlock()
	go func() {
		defer close(exited)
		p.follow(stderr, listening)
		_ = cmd.Wait() // its state says how it ended
	}()
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	select {
	case address := <-listening:
		p.mu.Lock()
		p.address = address
		p.mu.Unlock()
		return nil
	case <-exited:
		return p.ended()
	case <-limited.Done():
		return fmt.Errorf("%s does not listen: %w: %s", p.name, limited.Err(), p.log())
	}
}

// follow reads the log to its end.
func (p *process) follow(r io.Reader, listening chan<- string) {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		var entry struct{ Msg, Address string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" {
			select {
			case listening <- entry.Address:
			default:
			}
		}
		p.mu.Lock()
		if entry.Msg == "listening for admin" {
			p.admin = entry.Address
		}
		p.last = append(append(p.last, line...), '\n')
		p.last = p.last[max(0, len(p.last)-maxKept):]
		p.mu.Unlock()
	}
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.last)
}

func (p *process) ended() error {
	return fmt.Errorf("%s ended by itself (%s): %s", p.name, p.cmd.ProcessState, p.log())
}

// isRunning reports whether the process was started and has not ended.
func (p *process) isRunning() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// at returns where the process listens, empty if it does not.
func (p *process) at() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.address
}

func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// kill ends the process at once.
func (p *process) kill() {
	if p.isRunning() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.exited
	}
}

// stop has the process end well.
func (p *process) stop() error {
	if p.cmd == nil {
		return nil
	}
	if !p.isRunning() {
		return p.ended()
	}
	_ = p.signal(syscall.SIGCONT)
	_ = p.signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.exited:
		if !p.cmd.ProcessState.Success() {
			return p.ended()
		}
		return nil
	case <-time.After(stopTimeout):
		p.kill()
		return fmt.Errorf("%s did not stop within %s of SIGTERM, and was killed: %s", p.name, stopTimeout, p.log())
	}
}

// isReady reports whether the process says that it is ready.
func (p *process) isReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.at()+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close() // its status is what counts
	return response.StatusCode == http.StatusOK
}

// awaitReady waits until the process says that it is ready.
func (p *process) awaitReady(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for !p.isReady(limited) {
		if !p.isRunning() {
			return p.ended()
		}
		if err := rest(limited, lookEvery); err != nil {
			return fmt.Errorf("%s is not ready: %w: %s", p.name, err, p.log())
		}
	}
	return nil
}

// rest waits, unless ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// stopAll stops processes.
func stopAll(list ...*process) (err error) {
	for _, p := range list {
		if p.isRunning() {
			err = errors.Join(err, p.stop())
		}
	}
	return err
}
