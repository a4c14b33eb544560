package machine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/bench/capacity/tail"
	"github.com/tandem-ann/tandem/bench/cluster"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// turn is what one measurement of processes has found.
type turn struct {
	took    []float64       // seconds
	cpu     map[int]float64 // seconds of processors for each that was asked, by process
	self    float64         // the same of this one
	others  float64         // processors that others have taken meanwhile
	rate    float64         // that was answered
	refused int             // queries
}

// filler is work beside what is measured.
type filler struct {
	ask    func(i int) error
	rate   float64
	client float64 // seconds of this process for each
}

// beside has a filler at work while do is.
func (f *filler) beside(ctx context.Context, seed uint64, do func() error) error {
	if f == nil || f.rate < 1 {
		return do()
	}
	filling, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, _, err := pace(filling, f.rate, time.Hour, seed+2, f.ask)
		if filling.Err() != nil && ctx.Err() == nil {
			err = nil // it was to end
		}
		done <- err
	}()
	err := do()
	end()
	return errors.Join(err, <-done)
}

// over measures while something is asked, beside a filler, if it is not nil.
func over(ctx context.Context, pids []int, rate float64, d time.Duration, seed uint64, f *filler, ask func(i int) error) (t turn, err error) {
	err = f.beside(ctx, seed, func() (err error) {
		t, err = whileAsked(ctx, pids, rate, d, seed, ask)
		return err
	})
	if f != nil {
		t.self -= f.rate * f.client / t.rate
	}
	return t, err
}

// whileAsked measures while something is asked.
func whileAsked(ctx context.Context, pids []int, rate float64, d time.Duration, seed uint64, ask func(i int) error) (t turn, err error) {
	read := func() (map[int]float64, float64, float64, error) {
		out := map[int]float64{}
		for _, pid := range pids {
			var err error
			if out[pid], err = processCPU(pid); err != nil {
				return nil, 0, 0, err
			}
		}
		self, err := ownCPU()
		if err != nil {
			return nil, 0, 0, err
		}
		all, err := machineCPU()
		return out, self, all, err
	}
	if _, _, err := pace(ctx, rate, d/10+100*time.Millisecond, seed+1, ask); err != nil { // warm
		return t, err
	}
	start := time.Now()
	before, self, all, err := read()
	if err != nil {
		return t, err
	}
	if t.took, t.refused, err = pace(ctx, rate, d, seed, ask); err != nil {
		return t, err
	}
	after, selfAfter, allAfter, err := read()
	if err != nil {
		return t, err
	}
	seconds, n := time.Since(start).Seconds(), float64(len(t.took))
	ours := selfAfter - self
	t.self, t.cpu, t.rate = ours/n, map[int]float64{}, n/seconds
	for pid := range after {
		ours += after[pid] - before[pid]
		t.cpu[pid] = (after[pid] - before[pid]) / n
	}
	t.others = max(0, (allAfter-all-ours)/seconds)
	return t, nil
}

// searches returns how long searches of a shard take a processor, for each user, in seconds.
func searches(ctx context.Context, t *shard.Tower, vectors [][]float32, rows, expected int, target float64) ([]float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	part := t.Parts()[0]
	var reply shard.Reply
	var took []float64
	for round := range 2 { // the first one warms
		took = took[:0]
		for _, v := range vectors {
			r := &shard.Request{Moment: shard.Moment{Time: time.Now()}, Vectors: [][]float32{v}, K: rows, Expected: expected, Target: target}
			before, err := spent()
			if err != nil {
				return nil, err
			}
			if err := part.Search(ctx, r, &reply); err != nil {
				return nil, fmt.Errorf("search in round %d: %w", round, err)
			}
			after, err := spent()
			if err != nil {
				return nil, err
			}
			took = append(took, after-before)
		}
	}
	return took, nil
}

// calls asks a node to search its shard.
func calls(ctx context.Context, s cluster.Server, of remote.ShardID, t *shard.Tower, vectors [][]float32, rows, expected int, target, rate float64, d time.Duration, seed uint64, f *filler) (turn, error) {
	n := remote.NewNode(remote.NodeOptions{Address: s.Address})
	defer n.Close()
	names := remote.NewNames(t.Metric())
	return over(ctx, []int{s.PID}, rate, d, seed, f, func(i int) error {
		limited, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		var reply shard.Reply
		r := &shard.Request{Moment: shard.Moment{Time: time.Now()}, Vectors: [][]float32{vectors[i*7919%len(vectors)]}, K: rows, Expected: expected, Target: target}
		return n.Search(limited, of, r, names, &reply)
	})
}

// lookups asks a node for vectors of users.
func lookups(ctx context.Context, s cluster.Server, of remote.ShardID, users []string, rate float64, d time.Duration, seed uint64, f *filler) (turn, error) {
	n := remote.NewNode(remote.NodeOptions{Address: s.Address})
	defer n.Close()
	return over(ctx, []int{s.PID}, rate, d, seed, f, func(i int) error {
		limited, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		var dst [1][]float32
		return n.Vectors(limited, of, shard.Moment{Time: time.Now()}, users[i*7919%len(users):][:1], dst[:])
	})
}

// queries asks a router.
func queries(ctx context.Context, servers *cluster.Servers, users []string, k int, rate float64, d time.Duration, seed uint64, f *filler) (turn, error) {
	a, err := newAsker(servers.Routers()[0].Address, users, k)
	if err != nil {
		return turn{}, err
	}
	defer a.close()
	var pids []int
	for _, one := range slices.Concat(servers.Routers(), servers.Nodes()) {
		pids = append(pids, one.PID)
	}
	return over(ctx, pids, rate, d, seed, f, func(i int) error { return a.ask(ctx, i) })
}

// middle returns the median.
func middle(list []float64) float64 { return tail.NewTimes(list, len(list)).At(0.5) }
