package audit

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrEnded says that a scan was not done, since nothing is any more.
var ErrEnded = errors.New("no scans are done any more")

// Scans does what the audits of others take of this process: the exact scans that routers ask a
// node of a cluster for.
//
// # Goals
//
// Whatever routers ask for, and however many they are, their audits take no more than a share of
// one processor here, and none that a live query could have.
//
// # Design
//
// Scans are done one after the other, in the order in which they come, as [Auditor.Run] does its
// own: on a thread of lower priority, in slices of some 0.2 ms, with sleeps between them
// that keep the share, and that are longer where the thread is woken late, since others want its
// processor. So a scan is delayed for as long as there is something better to do, and never
// hurried. Who asks bounds how long that may be by a context, and how many wait.
type Scans struct {
	c     Config
	queue chan *scan
	ended chan struct{}

	mu     sync.Mutex
	counts Counts
}

// scan is one that is done.
type scan struct {
	ctx  context.Context
	do   func(ctx context.Context, pause func()) error
	done chan struct{} // closed when what follows is set
	used time.Duration
	err  error
}

// NewScans returns what does scans once it runs. Of the config CPU, Clock and Now count.
func NewScans(c Config) *Scans {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Scans{c: c, queue: make(chan *scan), ended: make(chan struct{})}
}

// Run does scans until ctx ends, which ends what is done then. It is called once, and takes a
// thread for itself. A nil one does nothing.
func (s *Scans) Run(ctx context.Context) {
	if s == nil {
		return
	}
	defer close(s.ended)
	onThread(func() {
		_ = lower() // it is the budget that counts
		budget := newBudget(s.c.clock(), s.c.Now, s.c.CPU)
		for {
			select {
			case <-ctx.Done():
				return
			case one := <-s.queue:
				budget.resume()
				s.scan(ctx, budget, one)
				budget.pause(ctx)
			}
		}
	})
}

// scan does one.
func (s *Scans) scan(ctx context.Context, b *budget, one *scan) {
	defer close(one.done)
	scanning, cancel := context.WithCancel(one.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	before := b.spent()
	if one.err = scanning.Err(); one.err == nil {
		pause := func() { b.pause(scanning) }
		one.err = one.do(pausing{scanning, pause}, pause)
	}
	if one.err != nil && one.ctx.Err() == nil && ctx.Err() != nil {
		one.err = ErrEnded
	}
	one.used = b.spent() - before
	s.mu.Lock()
	defer s.mu.Unlock()
	if one.err == nil {
		s.counts.Audits++
	} else {
		s.counts.Failed++
	}
	s.counts.Used, s.counts.Longest = b.spent(), b.longest
}

// Do has do called once it is its turn, and returns when it has ended, with the processor time
// that it took. do does all that takes long with its context, which pauses where it is looked at,
// or calls pause in the midst of it. The error is that of do, of a context that ends before, or
// [ErrEnded].
func (s *Scans) Do(ctx context.Context, do func(ctx context.Context, pause func()) error) (used time.Duration, err error) {
	one := &scan{ctx: ctx, do: do, done: make(chan struct{})}
	select {
	case s.queue <- one:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.ended:
		return 0, ErrEnded
	}
	<-one.done
	return one.used, one.err
}

// Counts returns what was done: of all counts Audits, Failed, Used and Longest.
func (s *Scans) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}
