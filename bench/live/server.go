package live

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// How long a server may take to be ready, to stop, and to answer.
const (
	readyTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
	askTimeout   = 30 * time.Second
)

// maxKept is how many bytes of a server's log are kept, to be told if it fails.
const maxKept = 4 << 10

// server is a server that runs as a process of its own.
type server struct {
	cmd       *exec.Cmd
	dir       string
	exited    chan struct{}
	transport *http.Transport
	retrieval tandemv1connect.RetrievalServiceClient
	live      tandemv1connect.LiveServiceClient

	mu   sync.Mutex
	last []byte // of its log
}

// startServer starts a server, and waits until it is ready.
func startServer(ctx context.Context, o *Options, location string) (_ *server, err error) {
	dir, err := os.MkdirTemp("", "tandem-bench-live-")
	if err != nil {
		return nil, err
	}
	command := o.Serve(location, dir)
	s := &server{cmd: exec.Command(command[0], command[1:]...), dir: dir, exited: make(chan struct{})}
	s.transport = &http.Transport{MaxIdleConnsPerHost: 64}
	stderr, err := s.cmd.StderrPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	listening := make(chan string, 1)
	go func() {
		defer close(s.exited)
		s.follow(stderr, listening)
		_ = s.cmd.Wait() // its state says how it ended
	}()
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	select {
	case address := <-listening:
		client := &http.Client{Transport: s.transport}
		s.retrieval = tandemv1connect.NewRetrievalServiceClient(client, "http://"+address)
		s.live = tandemv1connect.NewLiveServiceClient(client, "http://"+address)
		err = s.awaitReady(limited, "http://"+address+"/readyz")
	case <-s.exited:
		err = s.ended()
	case <-limited.Done():
		err = fmt.Errorf("a server does not listen: %w", limited.Err())
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// follow reads the log to its end.
func (s *server) follow(r io.Reader, listening chan<- string) {
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
		s.mu.Lock()
		s.last = append(append(s.last, line...), '\n')
		s.last = s.last[max(0, len(s.last)-maxKept):]
		s.mu.Unlock()
	}
}

// ended is the error of a server that has ended by itself.
func (s *server) ended() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("a server ended by itself (%s): %q", s.cmd.ProcessState, s.last)
}

func (s *server) awaitReady(ctx context.Context, url string) error {
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		if response, err := s.transport.RoundTrip(request); err == nil {
			_ = response.Body.Close() // its status is what counts
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.exited:
			return s.ended()
		case <-ctx.Done():
			return fmt.Errorf("a server is not ready: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop has the server stop, and removes what it kept. The error is of one that had ended
// before, or does not stop well.
func (s *server) stop() (err error) {
	s.transport.CloseIdleConnections()
	select {
	case <-s.exited:
		err = s.ended()
	default:
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-s.exited:
			if !s.cmd.ProcessState.Success() {
				err = s.ended()
			}
		case <-time.After(stopTimeout):
			err = errors.Join(fmt.Errorf("a server did not stop within %s of SIGTERM, and was killed", stopTimeout), s.cmd.Process.Kill())
			<-s.exited
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// stopAll stops servers.
func stopAll(list []*server) (err error) {
	for _, s := range list {
		err = errors.Join(err, s.stop())
	}
	return err
}

// startAll starts so many servers, at locations of the store.
func startAll(ctx context.Context, o *Options, locations []string) (list []*server, err error) {
	for _, location := range locations {
		s, err := startServer(ctx, o, location)
		if err != nil {
			return nil, errors.Join(err, stopAll(list))
		}
		list = append(list, s)
	}
	return list, nil
}

// write writes events.
func (s *server) write(ctx context.Context, events ...*tandemv1.LiveEvent) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := s.live.Write(ctx, connect.NewRequest(&tandemv1.WriteRequest{Events: events, Author: "tandem bench live"}))
	return err
}

// returns reports whether the server returns an app.
func (s *server) returns(ctx context.Context, vector []float32, app string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a, err := s.retrieval.Retrieve(ctx, connect.NewRequest(&tandemv1.RetrieveRequest{
		Vector: vector, K: 1, IncludeIds: []string{app},
	}))
	if err != nil {
		return false, err
	}
	return len(a.Msg.Candidates) > 0, nil
}
