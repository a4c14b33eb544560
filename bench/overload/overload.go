// Package overload measures what a server does when it is asked more than it can answer, and
// what one caller can do to another by asking more than it may.
//
// The server runs on one processor, and what asks it on another. Its capacity is measured
// first, by clients that ask again once they are answered; then queries are sent at times that
// are drawn beforehand, whatever becomes of those before. A latency counts from when its query
// was to be sent, so a server that stalls is not asked less. How far behind its times the
// sender was is measured too: where that is much, it was the sender that had too much to do.
package overload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/tandem-ann/tandem/bench/attack"
	"github.com/tandem-ann/tandem/server/auth"
)

// Options say what is measured. The zero value of a field is its default, unless it says that
// it is required.
type Options struct {
	// Serve returns the command line of the server, which reads a file of tokens: see
	// [attack.Options]. Required.
	Serve func(tokens string) []string
	// Users are the ids to ask with. Required.
	Users []string
	// K is how many candidates a query asks for. The default is 100.
	K int
	// RecallTarget is the recall that queries ask for. The default is that of the server.
	RecallTarget float64
	// Factor is how many times its capacity the server is asked. The default is 2.
	Factor float64
	// Time is how long each phase takes. The default is 20 seconds.
	Time time.Duration
	// Deadline is how long callers wait for an answer: a later one is none. The default is a
	// second.
	Deadline time.Duration
	// Seed is what the times are drawn from.
	Seed uint64
	// Progress, if not nil, is called when a phase begins.
	Progress func(phase string)
}

func (o Options) withDefaults() Options {
	if o.K == 0 {
		o.K = 100
	}
	if o.Factor == 0 {
		o.Factor = 2
	}
	if o.Time == 0 {
		o.Time = 20 * time.Second
	}
	if o.Deadline == 0 {
		o.Deadline = time.Second
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
	case o.Serve == nil:
		return errors.New("serve is missing")
	case len(o.Users) == 0:
		return errors.New("there are no users to ask with")
	case o.K < 1 || o.K > 10_000:
		return fmt.Errorf("k is %d, want 1 to 10000", o.K)
	case !(o.RecallTarget >= 0 && o.RecallTarget <= 1):
		return fmt.Errorf("recall target is %v, want 0 to 1", o.RecallTarget)
	case !(o.Factor > 1 && o.Factor <= 100):
		return fmt.Errorf("factor is %v, want more than 1, up to 100", o.Factor)
	case o.Time < time.Second || o.Deadline <= 0:
		return fmt.Errorf("time and deadline are %s and %s, want at least a second, and more than 0", o.Time, o.Deadline)
	}
	return nil
}

// collectAt is the growth of the heap, in percent, at which the sender collects.
const collectAt = 2000

// The callers, and what those of the second measurement ask, of what the server can answer.
const (
	steady      = "steady"
	greedy      = "greedy"
	steadyShare = 0.3
	greedyQuota = 0.1 // of a processor
	greedyTimes = 10  // its quota
)

// Run measures a server. While it runs, this process runs on one processor.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	// Collections of the sender, on its one processor, are nothing of the server's.
	defer debug.SetGCPercent(debug.SetGCPercent(collectAt))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir, err := os.MkdirTemp("", "tandem-overload-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file, tokens := filepath.Join(dir, "tokens.yaml"), map[string]string{}
	for name, quota := range map[string]auth.Quota{steady: {}, greedy: {CPU: greedyQuota}} {
		tokens[name] = auth.NewSecret()
		if err := auth.Append(file, auth.Token{Name: name, Hash: auth.HashOf(tokens[name]), Scopes: auth.Query, Quota: quota}); err != nil {
			return nil, err
		}
	}
	var log refusals
	o.Progress("start")
	p, err := attack.StartPinned(ctx, o.Serve(file), log.line)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	s, err := newSender(&o, "http://"+p.Address(), p.PID(), tokens)
	if err != nil {
		return nil, err
	}
	defer s.close()
	r := &Report{K: o.K, Factor: o.Factor, Deadline: o.Deadline.Seconds()}
	if err := r.measure(ctx, &o, s, &log); err != nil {
		return nil, err
	}
	r.judge()
	return r, ctx.Err()
}

// measure takes the phases.
func (r *Report) measure(ctx context.Context, o *Options, s *sender, log *refusals) error {
	o.Progress("warm up")
	if _, _, err := s.capacity(ctx, o.Time/4); err != nil {
		return err
	}
	o.Progress("capacity")
	var err error
	if r.Capacity, r.CPU, err = s.capacity(ctx, o.Time); err != nil {
		return err
	}
	o.Progress("overload")
	log.reset()
	r.Overload = s.send(ctx, steady, o.Factor*r.Capacity, o.Time)
	r.Refusals = log.report()

	o.Progress("one caller")
	r.Alone = s.send(ctx, steady, steadyShare*r.Capacity, o.Time)
	o.Progress("beside one beyond its quota")
	var both sync.WaitGroup
	both.Go(func() { r.Greedy = s.send(ctx, greedy, greedyTimes*greedyQuota/r.CPU, o.Time) })
	r.Beside = s.send(ctx, steady, steadyShare*r.Capacity, o.Time)
	both.Wait()
	// The second half of a pair: a machine that has become slower meanwhile is not the caller.
	o.Progress("one caller")
	if again := s.send(ctx, steady, steadyShare*r.Capacity, o.Time); again.P99 > r.Alone.P99 {
		r.Alone = again
	}
	return ctx.Err()
}

// refusals are what the log of a server says of requests that it has refused: it tells of some
// each second, with how long the server took from the headers to the answer.
type refusals struct {
	mu    sync.Mutex
	times *hdrhistogram.Histogram
}

// line takes a line of the log.
func (r *refusals) line(line []byte) {
	var entry struct {
		Msg, Code string
		Duration  int64
	}
	if json.Unmarshal(line, &entry) != nil || entry.Msg != "request failed" || entry.Code != "resource_exhausted" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.times != nil {
		_ = r.times.RecordValue(min(max(entry.Duration, 1), maxLatency)) // in bounds
	}
}

func (r *refusals) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times = newHistogram()
}

func (r *refusals) report() Times {
	r.mu.Lock()
	defer r.mu.Unlock()
	return timesOf(r.times)
}
