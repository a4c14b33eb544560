package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/api/latency"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// trial is a shard with replicas that are made up.
type trial struct {
	*set
	nodes map[*remote.Node]int
}

// newTrial returns a shard that so many nodes have, which never connect, at position 5.
func newTrial(n int) *trial {
	r := New(Options{Name: "r", Node: func(address string) *remote.Node { return remote.NewNode(remote.NodeOptions{Address: address}) }})
	t := &trial{set: &set{router: r, of: remote.ShardID{Tower: shard.Apps, Of: 1}}, nodes: map[*remote.Node]int{}}
	var list []replica
	for i := range n {
		p := &peer{address: fmt.Sprint(i), node: r.o.Node(fmt.Sprint(i))}
		t.nodes[p.node] = i
		list = append(list, replica{peer: p, newest: 5})
	}
	t.now.Store(&list)
	return t
}

var at5 = shard.Position{Sequence: 5}

func (t *trial) peer(i int) *peer { return (*t.now.Load())[i].peer }

// ask has one of the nodes do something, and returns which one has answered.
func (t *trial) ask(ctx context.Context, do func(ctx context.Context, node int) error) (int, error) {
	var answered [2]int
	won, err := t.set.do(ctx, at5, &t.other, func(ctx context.Context, n *remote.Node, to slot) error {
		node := t.nodes[n]
		err := do(ctx, node)
		if err == nil {
			answered[to] = node
		}
		return err
	})
	return answered[won], err
}

// hang waits for so long, as a node that is slow does.
func hang(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// A node that has died costs no answer, and is soon not asked any more.
func TestFailedIsAskedOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrial(3)
		asked := 0
		for range 300 {
			time.Sleep(time.Second) // it may be faster by now
			node, err := s.ask(t.Context(), func(_ context.Context, node int) error {
				if node == 1 {
					asked++
					return errors.New("connection refused")
				}
				return nil
			})
			require.NoError(t, err)
			require.NotEqual(t, 1, node)
		}
		assert.LessOrEqual(t, asked, lossesInARow)
		assert.True(t, s.peer(1).isOut())
		s.peer(1).probed(time.Now())
		assert.False(t, s.peer(1).isOut())
	})
}

// A node that says it can be asked at a position, and refuses for being behind it, is left alone;
// one that has not said so is not.
func TestNodeThatLiesIsLeftAlone(t *testing.T) {
	for _, newest := range []uint64{5, 4} {
		s := newTrial(2)
		(*s.now.Load())[1].newest = newest
		(*s.now.Load())[0].spare = true // the other one is asked first, if it says it may be
		for range 2 * lossesInARow {
			_, err := s.ask(t.Context(), func(_ context.Context, node int) error {
				if node == 1 {
					return &remote.Refusal{Reason: remote.Behind}
				}
				return nil
			})
			require.NoError(t, err)
		}
		assert.Equal(t, newest == 5, s.peer(1).isOut())
		assert.Equal(t, newest == 5, s.router.Counts().Ejected == 1)
	}
}

// What is wrong with a query is wrong on each node, and is no fault of one.
func TestWrongQueryIsAskedOnce(t *testing.T) {
	s := newTrial(3)
	asked := 0
	_, err := s.ask(t.Context(), func(context.Context, int) error {
		asked++
		return &remote.Refusal{Reason: remote.BadQuery, Text: "k"}
	})
	require.ErrorIs(t, err, index.ErrQuery)
	assert.Equal(t, 1, asked)
	asked = 0
	_, err = s.ask(t.Context(), func(context.Context, int) error {
		asked++
		return &shard.PanicError{Shard: "s"}
	})
	require.ErrorAs(t, err, new(*shard.PanicError))
	assert.Equal(t, 1, asked)
}

// Each replica is asked once; that none has an answer is an error which says why.
func TestNobodyAnswers(t *testing.T) {
	s := newTrial(2)
	var asked [2]int
	_, err := s.ask(t.Context(), func(_ context.Context, node int) error {
		asked[node]++
		return &remote.Refusal{Reason: remote.Overloaded, Text: "64 requests in flight"}
	})
	none, ok := errors.AsType[*NoReplicaError](err)
	require.True(t, ok, "%v", err)
	assert.ErrorContains(t, none, "64 requests in flight")
	assert.Equal(t, [2]int{1, 1}, asked)
	assert.False(t, s.peer(0).isOut(), "it has answered")

	s.now.Store(&[]replica{})
	_, err = s.ask(t.Context(), nil)
	assert.ErrorContains(t, err, "no node is ready for apps shard 0 of 1")
}

// A node that stands still costs callers a little, and hedges are few.
func TestHedges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrial(2)
		stopped := -1
		var calls, atStopped atomic.Int32
		ask := func(ctx context.Context, node int) error {
			calls.Add(1)
			if node == stopped {
				atStopped.Add(1)
				return hang(ctx, time.Hour)
			}
			return hang(ctx, 2*time.Millisecond)
		}
		for range 200 {
			_, err := s.ask(t.Context(), ask)
			require.NoError(t, err)
		}
		require.EqualValues(t, 200, calls.Load(), "nobody was slow")
		stopped = 0
		var slowest time.Duration
		for range 1000 {
			start := time.Now()
			node, err := s.ask(t.Context(), ask)
			require.NoError(t, err)
			require.Equal(t, 1, node)
			slowest = max(slowest, time.Since(start))
		}
		synctest.Wait()
		assert.LessOrEqual(t, slowest, 3*2*time.Millisecond, "the time after which there is a hedge, and that of its answer")
		assert.LessOrEqual(t, atStopped.Load(), int32(lossesInARow))
		assert.LessOrEqual(t, s.router.Counts().Hedges, int64(lossesInARow))
		assert.Equal(t, s.router.Counts().Hedges, s.router.Counts().HedgesWon)
		assert.Zero(t, s.peer(0).inFlight.Load())
		assert.Zero(t, s.peer(1).inFlight.Load())
	})
}

// Where any node is slow now and then, hedges are a share of the queries, each of which asks many
// shards, and whatever they gain.
func TestHedgesHaveABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		users, apps := newTrial(2), []*trial{}
		for i := range 4 {
			one := newTrial(2)
			one.router, one.of = users.router, remote.ShardID{Tower: shard.Apps, Number: i, Of: 4}
			apps = append(apps, one)
		}
		var calls atomic.Int32
		ask := func(ctx context.Context, _ int) error {
			if calls.Add(1)%31 == 0 {
				return hang(ctx, 4*time.Millisecond)
			}
			return hang(ctx, 2*time.Millisecond)
		}
		query := func() {
			_, err := users.ask(t.Context(), ask)
			require.NoError(t, err)
			for _, s := range apps {
				s.searched()
				_, err := s.ask(t.Context(), ask)
				require.NoError(t, err)
			}
		}
		const asked = 4000
		before := 0.0
		for n := range asked {
			query()
			if now := float64(users.router.Counts().Hedges); n%1000 == 999 {
				assert.LessOrEqual(t, now-before, 0.05*1000)
				before = now
			}
		}
		synctest.Wait()
		hedges := float64(users.router.Counts().Hedges)
		assert.Greater(t, hedges, 0.9*hedgeShare*asked, "those that are allowed are made")
	})
}

// What calls that are a little slow have left of hedges is enough for those that hang, as where a
// node stands still.
func TestHedgesAreKeptForWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrial(2)
		ask := func(first time.Duration) time.Duration {
			start := time.Now()
			var nth atomic.Int32
			_, err := s.ask(t.Context(), func(ctx context.Context, _ int) error {
				if nth.Add(1) == 1 {
					return hang(ctx, first)
				}
				return hang(ctx, 2*time.Millisecond)
			})
			require.NoError(t, err)
			return time.Since(start)
		}
		for range 100 {
			ask(2 * time.Millisecond)
		}
		for range 100 {
			ask(3 * time.Millisecond)
		}
		require.EqualValues(t, hedgeMost-hedgeKept, s.router.Counts().Hedges)
		for range hedgeKept {
			assert.Less(t, ask(time.Hour), 20*time.Millisecond)
		}
		assert.EqualValues(t, hedgeMost, s.router.Counts().Hedges)
	})
}

// While a replica hangs that was asked beside one which fails then, or beside which it fails,
// others are asked.
func TestThirdReplicaIsAsked(t *testing.T) {
	for _, hangs := range []int32{1, 2} { // the first or the second that is asked
		synctest.Test(t, func(t *testing.T) {
			s := newTrial(3)
			for range 50 {
				time.Sleep(time.Second)
				start := time.Now()
				var nth atomic.Int32
				_, err := s.ask(t.Context(), func(ctx context.Context, _ int) error {
					switch nth.Add(1) {
					case hangs:
						return hang(ctx, time.Hour)
					case 3:
						return hang(ctx, time.Millisecond)
					}
					if err := hang(ctx, 2*latency.First); err != nil {
						return err
					}
					return errors.New("connection reset")
				})
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(start), 4*latency.First)
				require.EqualValues(t, 3, nth.Load())
				for i := range 3 {
					s.peer(i).probed(time.Now())
				}
				s.router.hedges.earn(1)
			}
			synctest.Wait()
			assert.Zero(t, s.peer(0).inFlight.Load()+s.peer(1).inFlight.Load()+s.peer(2).inFlight.Load())
		})
	}
}

// Where two replicas hang at once, a third is asked; if that one fails, the second is once more,
// which may only have been slow.
func TestThirdReplicaIsAskedWhileTwoHang(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newTrial(3)
			for range 100 {
				_, err := s.ask(t.Context(), func(ctx context.Context, _ int) error { return hang(ctx, 2*time.Millisecond) })
				require.NoError(t, err)
			}
			asked := make([]int, 0, 4)
			var mu sync.Mutex
			start := time.Now()
			_, err := s.ask(t.Context(), func(ctx context.Context, node int) error {
				mu.Lock()
				asked = append(asked, node)
				nth := len(asked)
				mu.Unlock()
				switch {
				case nth <= 2:
					return hang(ctx, time.Hour)
				case nth == 3 && fails:
					return errors.New("connection refused")
				}
				return hang(ctx, 2*time.Millisecond)
			})
			require.NoError(t, err)
			assert.Less(t, time.Since(start), (hangFactor+4)*2*time.Millisecond*9/8)
			if fails {
				require.Len(t, asked, 4)
				assert.Equal(t, asked[1], asked[3])
			} else {
				require.Len(t, asked, 3)
			}
			synctest.Wait()
			assert.Zero(t, s.peer(0).inFlight.Load()+s.peer(1).inFlight.Load()+s.peer(2).inFlight.Load())
		})
	}
}

// A node that gave no sign of life, or was given up for what others had asked it, is asked again
// before nobody has answered: it may have had no processor.
func TestSilentIsAskedAgain(t *testing.T) {
	for _, why := range []error{remote.ErrSilent, remote.ErrCut} {
		synctest.Test(t, func(t *testing.T) {
			for nodes := 1; nodes <= 2; nodes++ {
				s, calls := newTrial(nodes), 0
				answered, err := s.ask(t.Context(), func(context.Context, int) error {
					if calls++; calls <= nodes {
						return fmt.Errorf("ask node: %w", why)
					}
					return nil
				})
				require.NoError(t, err)
				require.Less(t, answered, nodes)
				require.Equal(t, nodes+1, calls)

				calls = 0
				_, err = s.ask(t.Context(), func(context.Context, int) error {
					calls++
					return why
				})
				require.ErrorIs(t, err, why)
				require.LessOrEqual(t, calls, maxTries+1)
			}
		})
	}
}

// Where all fail but one that hangs, all are asked once, and the deadline ends the call.
func TestTriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrial(8)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var asked atomic.Int32
		_, err := s.ask(ctx, func(ctx context.Context, _ int) error {
			if asked.Add(1) == 1 {
				return hang(ctx, time.Hour)
			}
			return errors.New("connection refused")
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.EqualValues(t, maxTries+1, asked.Load())
	})
}

// Retries end where the budget does: nodes that all fail are not asked many times as often.
func TestRetriesHaveABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrial(4)
		calls := 0
		const asked = 2000
		for range asked {
			_, err := s.ask(t.Context(), func(context.Context, int) error {
				calls++
				return &remote.Refusal{Reason: remote.Overloaded}
			})
			require.Error(t, err)
		}
		assert.LessOrEqual(t, float64(calls), asked*(1+retryShare)+retryMost+1)
		assert.Positive(t, s.router.Counts().Denied)
	})
}

// A deadline ends all calls, and says so.
func TestDeadlineEndsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrial(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.ask(ctx, func(ctx context.Context, _ int) error { return hang(ctx, time.Hour) })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Second, time.Since(start))
		synctest.Wait()
		assert.Zero(t, s.peer(0).inFlight.Load()+s.peer(1).inFlight.Load())
	})
}

// Callers who have little time say nothing about nodes: neither where it is not known how long
// calls take, nor where what they ask takes longer than most calls do, nor where the node's clock
// is a little early.
func TestHastyCallersEjectNobody(t *testing.T) {
	for name, c := range map[string]struct {
		known, deadline, takes time.Duration
		early                  bool
	}{
		"no time":           {0, 10 * time.Microsecond, time.Millisecond, false},
		"nothing known":     {0, 60 * time.Millisecond, 100 * time.Millisecond, false},
		"expensive":         {2 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond, false},
		"expensive, early":  {2 * time.Millisecond, 20 * time.Millisecond, 19500 * time.Microsecond, true},
		"hardly any longer": {2 * time.Millisecond, 3 * time.Millisecond, 4 * time.Millisecond, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newTrial(2)
			if c.known > 0 {
				for range 100 {
					_, err := s.ask(t.Context(), func(ctx context.Context, _ int) error { return hang(ctx, c.known) })
					require.NoError(t, err)
				}
			}
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				_, err := s.ask(ctx, func(ctx context.Context, _ int) error {
					err := hang(ctx, c.takes)
					if err == nil && c.early {
						return context.DeadlineExceeded
					}
					return err
				})
				cancel()
				require.ErrorIs(t, err, context.DeadlineExceeded, name)
			}
			assert.False(t, s.peer(0).isOut() || s.peer(1).isOut(), name)
			assert.Zero(t, s.router.Counts().Ejected, name)
			assert.Zero(t, s.router.Counts().Retries, name)
		})
	}
}

// A node that answers nothing, though callers wait for long, is left alone, even if there are no
// hedges to tell.
func TestMuteNodeIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrial(2)
		mute := false
		ask := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, _ = s.ask(ctx, func(ctx context.Context, node int) error {
				if mute && node == 0 {
					return hang(ctx, time.Hour)
				}
				return hang(ctx, 2*time.Millisecond)
			})
		}
		for range 100 {
			ask()
		}
		for s.router.hedges.spend(0) { // until there are none
		}
		mute = true
		for range 1000 {
			ask()
			time.Sleep(time.Second) // it may be faster by now
		}
		assert.True(t, s.peer(0).isOut())
		assert.False(t, s.peer(1).isOut())
	})
}

// A node that is a hundred times slower than the other gets hardly any request, and more again
// when it is not any more.
func TestSlowNodeIsAvoided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrial(2)
		var asked [2]int
		slow := 200 * time.Millisecond
		ask := func() {
			_, err := s.ask(t.Context(), func(ctx context.Context, node int) error {
				asked[node]++
				if node == 0 {
					return hang(ctx, slow)
				}
				return hang(ctx, 2*time.Millisecond)
			})
			require.NoError(t, err)
		}
		for range 2000 {
			ask()
		}
		assert.Less(t, asked[0], 60)
		slow = 2 * time.Millisecond
		time.Sleep(30 * time.Second)
		s.peer(0).probed(time.Now())
		asked = [2]int{}
		for range 20_000 {
			ask()
		}
		assert.Greater(t, asked[0], 20_000/6)
		synctest.Wait()
	})
}

// Replicas that are behind, or about to leave, are asked where there is no other.
func TestSpareReplicas(t *testing.T) {
	s := newTrial(3)
	list := *s.now.Load()
	list[0].spare, list[1].newest, list[2].oldest = true, 4, 6
	for range 50 {
		node, err := s.ask(t.Context(), func(context.Context, int) error { return nil })
		require.NoError(t, err)
		require.NotEqual(t, 2, node, "it has lost the position")
	}
	list[2].oldest = 5
	for range 50 {
		node, err := s.ask(t.Context(), func(context.Context, int) error { return nil })
		require.NoError(t, err)
		require.Equal(t, 2, node)
	}
}

// What lost reads no memory of the caller any more, who may have given it away.
func TestHedgeThatLosesHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTrial(2)
		var begun, ended atomic.Int32
		_, err := s.set.do(t.Context(), at5, &s.other, func(ctx context.Context, _ *remote.Node, to slot) error {
			if to == own {
				return hang(ctx, 2*latency.First)
			}
			begun.Add(1)
			<-ctx.Done()
			time.Sleep(time.Millisecond)
			ended.Add(1)
			return ctx.Err()
		})
		require.NoError(t, err)
		assert.Equal(t, []int32{1, 1}, []int32{begun.Load(), ended.Load()})
	})
}
