package attack

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Options say how a server is measured under attack. The zero value of a field is its
// default, unless it says that it is required.
type Options struct {
	// Serve is the command line of the server: it listens on loopback, logs JSON with the
	// address that it listens on, as `tandem serve --log-format json` does, and stops at
	// SIGTERM. Required.
	Serve []string
	// Attack returns the command line of the attackers of the server at an address: it
	// writes a [Sent] as JSON, as `tandem bench attack --server` does. Required.
	Attack func(address string) []string
	// Users are the ids that light queries ask with. Required.
	Users []string
	// Time is how long Attack takes. Required.
	Time time.Duration
	// Quiet is how long light queries are asked before the attack, and after the rest. The
	// default is a minute.
	Quiet time.Duration
	// Rest is how long nothing is asked before the attack and after it. The default is a
	// minute.
	Rest time.Duration
	// Rate is how many light queries are asked a second. The default is 50.
	Rate int
	// MaxMemory is how many bytes the server may take, that are of no file. The default is
	// a GiB.
	MaxMemory int64
	// Progress, if not nil, is called when a phase begins.
	Progress func(phase string)
}

// MaxRate bounds the light queries a second.
const MaxRate = 10_000

// DefaultMaxMemory is the bound of a server's memory by default.
const DefaultMaxMemory = 1 << 30

// Bounds of what a server may be under attack.
const (
	// maxSlower is how many times the 99th percentile without attackers that with them
	// may be.
	maxSlower = 10
	// maxKept is how many times the memory before the attack that after it may be.
	maxKept = 1.1
)

func (o Options) withDefaults() Options {
	if o.Quiet == 0 {
		o.Quiet = time.Minute
	}
	if o.Rest == 0 {
		o.Rest = time.Minute
	}
	if o.Rate == 0 {
		o.Rate = 50
	}
	if o.MaxMemory == 0 {
		o.MaxMemory = DefaultMaxMemory
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// Validate returns an error that names the option out of bounds.
func (o Options) Validate() error {
	o = o.withDefaults()
	switch {
	case len(o.Serve) == 0:
		return errors.New("serve is missing")
	case o.Attack == nil:
		return errors.New("attack is missing")
	case len(o.Users) == 0:
		return errors.New("there are no users to ask with")
	case o.Time <= 0:
		return fmt.Errorf("time is %s, want more than 0", o.Time)
	case o.Quiet < 0:
		return fmt.Errorf("quiet is %s, want more than 0", o.Quiet)
	case o.Rest < 0:
		return fmt.Errorf("rest is %s, want more than 0", o.Rest)
	case o.Rate < 1 || o.Rate > MaxRate:
		return fmt.Errorf("rate is %d, want 1 to %d", o.Rate, MaxRate)
	case o.MaxMemory < 1:
		return fmt.Errorf("max memory is %d, want at least 1", o.MaxMemory)
	}
	return nil
}

// Run measures a server under attack. A server that ends, and each other bound that is
// broken, is told by the report; the error is of what kept it from being measured.
//
// While it runs, this process runs on one processor.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
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
	defer func() { err = errors.Join(err, pin(all)) }()
	o.Progress("start")
	p, err := startServer(ctx, o.Serve, all[0], nil)
	if err != nil {
		return nil, err
	}
	r := &Report{MaxMemory: o.MaxMemory}
	running, cancel := context.WithCancel(ctx) // which ends with the server
	defer cancel()
	go func() {
		select {
		case <-p.exited:
			cancel()
		case <-running.Done():
		}
	}()
	measureErr := r.measure(running, &o, p, all[1])
	o.Progress("stop")
	stopErr := p.stop()
	r.Log = p.logged()
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), stopErr)
	}
	if stopErr != nil {
		r.Ended = stopErr.Error()
	} else if measureErr != nil {
		return nil, measureErr
	}
	r.judge()
	return r, nil
}

// measure takes the phases. An error after the server has ended is a consequence of that.
func (r *Report) measure(ctx context.Context, o *Options, p *serverProcess, processor int) (err error) {
	pid := p.cmd.Process.Pid
	l := newLight("http://"+p.address, o.Users, o.Rate)
	defer l.close()
	o.Progress("quiet")
	r.Before = l.ask(ctx, o.Quiet)
	o.Progress("rest")
	if r.MemoryBefore, err = leastIn(ctx, pid, o.Rest); err != nil {
		return err
	}

	o.Progress("attack")
	attacked, end := context.WithTimeout(ctx, o.Time+time.Minute) // it ends by itself
	defer end()
	var most peak
	following, unfollow := context.WithCancel(ctx)
	var both sync.WaitGroup
	defer both.Wait()
	defer unfollow()
	both.Go(func() { most.follow(following, pid) })
	var asked sync.WaitGroup
	asked.Go(func() { r.During = l.ask(ctx, o.Time) })
	sent, err := sendFrom(attacked, o.Attack(p.address), processor)
	asked.Wait()
	if err != nil {
		return err
	}
	r.Sent = *sent
	o.Progress("rest")
	if r.MemoryAfter, err = leastIn(ctx, pid, o.Rest); err != nil {
		return err
	}
	r.MemoryPeak = max(most.most.Load(), r.MemoryAfter)
	o.Progress("quiet")
	r.After = l.ask(ctx, o.Quiet)
	return ctx.Err()
}
