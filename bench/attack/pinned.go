package attack

import (
	"context"
	"errors"
	"fmt"
)

// Pinned is a server as a process of its own on one processor, while this process, which asks
// it, runs on another.
type Pinned struct {
	process    *serverProcess
	processors []int
}

// StartPinned starts a server, of a command line as [Options] has it, and waits until it is
// ready. line, if not nil, is called for each line of its log, by one goroutine.
func StartPinned(ctx context.Context, serve []string, line func([]byte)) (*Pinned, error) {
	all, err := processors()
	if err != nil {
		return nil, err
	}
	if len(all) < 2 {
		return nil, fmt.Errorf("%d processor may be used, want 2: one for the server, one for its clients", len(all))
	}
	if err := pin(all[1:2]); err != nil {
		return nil, err
	}
	p, err := startServer(ctx, serve, all[0], line)
	if err != nil {
		return nil, errors.Join(err, pin(all))
	}
	return &Pinned{p, all}, nil
}

// Address is where the server listens.
func (p *Pinned) Address() string { return p.process.address }

// PID is the process of the server.
func (p *Pinned) PID() int { return p.process.cmd.Process.Pid }

// Stop stops the server, and lets this process run on all processors again.
func (p *Pinned) Stop() error { return errors.Join(p.process.stop(), pin(p.processors)) }
