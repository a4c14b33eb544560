package tail_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/bench/capacity/tail"
)

// exponential is the distribution of exponential times with a mean.
func exponential(mean float64) tail.Times {
	const n = 20_000
	t := make(tail.Times, n)
	for i := range t {
		t[i] = -mean * math.Log(1-(float64(i)+0.5)/n)
	}
	return t
}

// one is a cluster of nodes with so many processors each, which hold a shard each, and a router
// that takes no time.
func one(nodes, cores int) tail.Cluster {
	c := tail.Cluster{Cores: []int{1}, Routers: []int{0}, Client: -1}
	for i := range nodes {
		c.Cores = append(c.Cores, cores)
		c.Nodes = append(c.Nodes, i+1)
		c.Shards = append(c.Shards, []int{i})
	}
	return c
}

func simulate(t require.TestingT, c tail.Cluster, w tail.Work, l tail.Load) *tail.Result {
	r, err := tail.Simulate(c, w, l)
	require.NoError(t, err)
	return r
}

// A queue with one server is M/M/1: what is under way for as long as an exponential time of mean
// 1 / (mu - lambda).
func TestOneServer(t *testing.T) {
	for _, busy := range []float64{0.2, 0.5, 0.8} {
		r := simulate(t, one(1, 1), tail.Work{Search: exponential(1e-3)}, tail.Load{Rate: busy * 1e3, Queries: 150_000, Seed: 1})
		mean := 1e-3 / (1 - busy)
		require.InEpsilon(t, mean, r.Latency.Mean(), 0.05, "mean at %v", busy)
		require.InEpsilon(t, mean*math.Ln2, r.Latency.At(0.5), 0.05, "p50 at %v", busy)
		require.InEpsilon(t, mean*math.Log(100), r.Latency.At(0.99), 0.09, "p99 at %v", busy)
		require.InDelta(t, busy, r.Busy[1], 0.02)
		require.False(t, r.Overloaded)
	}
}

// One with several is M/M/c, of which Erlang's formula says how long is waited.
func TestSeveralServers(t *testing.T) {
	for _, c := range []int{2, 4, 16} {
		const busy = 0.7
		offered := busy * float64(c)
		sum, term := 0.0, 1.0
		for k := range c {
			sum += term
			term *= offered / float64(k+1)
		}
		waits := term / (1 - busy) / (sum + term/(1-busy))
		mean := 1e-3 + waits*1e-3/(float64(c)*(1-busy))
		r := simulate(t, one(1, c), tail.Work{Search: exponential(1e-3)}, tail.Load{Rate: offered * 1e3, Queries: 100_000, Seed: 2})
		require.InEpsilon(t, mean, r.Latency.Mean(), 0.05, "%d servers", c)
	}
}

// Where nothing waits, a query takes as long as the slowest of its shards: of exponential times
// the harmonic number in the mean.
func TestSlowestOfMany(t *testing.T) {
	for _, shards := range []int{1, 4, 16, 64} {
		r := simulate(t, one(shards, 64), tail.Work{Search: exponential(1e-3)}, tail.Load{Rate: 1, Queries: 20_000, Seed: 3})
		mean := 0.0
		for i := range shards {
			mean += 1e-3 / float64(i+1)
		}
		require.InEpsilon(t, mean, r.Latency.Mean(), 0.03, "%d shards", shards)
		for _, q := range []float64{0.5, 0.99} {
			require.InEpsilon(t, -1e-3*math.Log(1-math.Pow(q, 1/float64(shards))), r.Latency.At(q), 0.06, "%d shards, quantile %v", shards, q)
		}
	}
}

// What all searches of a query have in common is waited for once.
func TestSameForAllShards(t *testing.T) {
	r := simulate(t, one(64, 64), tail.Work{Search: exponential(1e-3)}, tail.Load{Rate: 1, Queries: 20_000, Same: 1, Seed: 4})
	require.InEpsilon(t, 1e-3, r.Latency.Mean(), 0.03)
}

// A query that nobody disturbs takes what its steps take, one after the other.
func TestStepsAddUp(t *testing.T) {
	c := one(2, 1)
	c.Users, c.Network, c.Wake = [][]int{{0}}, 10e-3, tail.Times{1e-3}
	c.Cores = append(c.Cores, 1)
	c.Client = 3
	w := tail.Work{Client: 0.2e-3, Query: 0.4e-3, Call: 0.6e-3, Search: tail.Times{2e-3}, Lookup: tail.Times{3e-3}}
	r := simulate(t, c, w, tail.Load{Rate: 1e-3, Queries: 100, Seed: 5})
	// There are ten pieces of work. The router sends one call after the other with its one processor, and reads
	// what comes meanwhile after it.
	pieces := 0.1e-3 + 0.2e-3 + 0.3e-3 + 3e-3 + 0.3e-3 + (0.3e-3 + 0.3e-3) + 2e-3 + 0.3e-3 + 0.2e-3 + 0.1e-3
	const messages, begun = 6 * 10e-3, 8 * 1e-3 // each of them on a processor that sleeps, but while others are there
	require.InDelta(t, pieces+messages+begun, r.Latency.At(0.5), 2.1e-3)
	require.InDelta(t, r.Latency.At(0), r.Latency.At(1), 1e-9, "all are alike")
}

// A hedge helps where some searches are slow, and costs no more than the budget.
func TestHedges(t *testing.T) {
	c := one(4, 8)
	for i := range c.Shards {
		c.Shards[i] = []int{i, (i + 1) % 4}
	}
	slow := make(tail.Times, 100)
	for i := range slow {
		slow[i] = 1e-3
	}
	slow[99] = 1 // one in some hundred
	load := tail.Load{Rate: 20, Queries: 20_000, Seed: 6}
	without := simulate(t, c, tail.Work{Search: slow}, load)
	load.Hedge = true
	with := simulate(t, c, tail.Work{Search: slow}, load)
	require.Zero(t, without.Hedged)
	require.Positive(t, with.Hedged)
	require.LessOrEqual(t, with.Hedged, 0.031)
	require.Less(t, with.Latency.At(0.98), 0.5*without.Latency.At(0.98))
}

// What comes faster than it is done is told.
func TestOverload(t *testing.T) {
	r := simulate(t, one(1, 1), tail.Work{Search: tail.Times{1e-3}}, tail.Load{Rate: 2000, Queries: 20_000, Seed: 7})
	require.True(t, r.Overloaded)
}

// Whatever a cluster is: more of something never makes queries take less, and the same seed gives
// the same times.
func TestMoreTakesLonger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, cores := rapid.IntRange(1, 6).Draw(t, "nodes"), rapid.IntRange(1, 4).Draw(t, "cores")
		c := one(nodes, cores)
		w := tail.Work{
			Query: rapid.Float64Range(0, 1e-3).Draw(t, "query"), Call: rapid.Float64Range(0, 1e-3).Draw(t, "call"),
			Search: exponential(rapid.Float64Range(1e-5, 1e-3).Draw(t, "search")),
		}
		busiest := max((w.Query+float64(nodes)*w.Call)/1, w.Search.Mean()/float64(cores))
		l := tail.Load{Rate: rapid.Float64Range(0.05, 0.4).Draw(t, "busy") / busiest, Queries: 1000, Seed: rapid.Uint64().Draw(t, "seed")}
		before := simulate(t, c, w, l)
		require.Equal(t, before, simulate(t, c, w, l), "the same seed")
		for i := range before.Busy {
			require.LessOrEqual(t, before.Busy[i], 1.0)
		}
		// What is drawn for a thousand queries is not the same where they take longer: so means may differ.
		c.Network = 1e-3
		require.Greater(t, simulate(t, c, w, l).Latency.At(0.5), before.Latency.At(0.5), "a network")
		c.Network = 0
		slower := w
		slower.Search = w.Search.Scaled(2)
		require.GreaterOrEqual(t, simulate(t, c, slower, l).Latency.Mean(), 0.75*before.Latency.Mean(), "slower searches")
		for i := range c.Cores {
			c.Cores[i] *= 4
		}
		require.LessOrEqual(t, simulate(t, c, w, l).Latency.Mean(), 1.33*before.Latency.Mean(), "more processors")
	})
}

// More replicas never make the tail longer: what a node is asked less of waits less.
func TestReplicasMakeTailsShorter(t *testing.T) {
	for seed := range uint64(3) {
		last := math.Inf(1)
		for _, replicas := range []int{1, 2, 4} {
			c := tail.Cluster{Cores: []int{8}, Routers: []int{0}, Client: -1}
			for i := range 4 * replicas {
				c.Cores, c.Nodes = append(c.Cores, 1), append(c.Nodes, i+1)
			}
			for i := range 4 {
				var on []int
				for r := range replicas {
					on = append(on, i+4*r)
				}
				c.Shards = append(c.Shards, on)
			}
			r := simulate(t, c, tail.Work{Search: exponential(1e-3)}, tail.Load{Rate: 700, Queries: 20_000, Hedge: true, Seed: seed})
			require.Less(t, r.Latency.At(0.99), last, "%d replicas", replicas)
			last = r.Latency.At(0.99)
		}
	}
}

func TestBadInputIsRefused(t *testing.T) {
	good := func() (tail.Cluster, tail.Work, tail.Load) {
		return one(2, 2), tail.Work{Search: tail.Times{1e-3}}, tail.Load{Rate: 1, Queries: 100}
	}
	for want, change := range map[string]func(*tail.Cluster, *tail.Work, *tail.Load){
		"there are 0 hosts, want 1":                        func(c *tail.Cluster, _ *tail.Work, _ *tail.Load) { c.Cores = nil },
		"host 1 has 0 processors, want 1":                  func(c *tail.Cluster, _ *tail.Work, _ *tail.Load) { c.Cores[1] = 0 },
		"there are 0 routers and 2 nodes":                  func(c *tail.Cluster, _ *tail.Work, _ *tail.Load) { c.Routers = nil },
		"process 0 is on host 7, want 0 to 2":              func(c *tail.Cluster, _ *tail.Work, _ *tail.Load) { c.Nodes[0] = 7 },
		"shard 0 is on node 9, want 0 to 1":                func(c *tail.Cluster, _ *tail.Work, _ *tail.Load) { c.Shards[0] = []int{9} },
		"shard 1 is on no node":                            func(c *tail.Cluster, _ *tail.Work, _ *tail.Load) { c.Shards[1] = nil },
		"the client is on host 3, want -1 to 2":            func(c *tail.Cluster, _ *tail.Work, _ *tail.Load) { c.Client = 3 },
		"a message takes NaN s, want at least 0":           func(c *tail.Cluster, _ *tail.Work, _ *tail.Load) { c.Network = math.NaN() },
		"wake: time 0 is -1, want a number":                func(c *tail.Cluster, _ *tail.Work, _ *tail.Load) { c.Wake = tail.Times{-1} },
		"a step takes NaN s, want at least 0":              func(_ *tail.Cluster, w *tail.Work, _ *tail.Load) { w.Call = math.NaN() },
		"search: time 1 is 1 after 2, want ascending":      func(_ *tail.Cluster, w *tail.Work, _ *tail.Load) { w.Search = tail.Times{2, 1} },
		"there are no times of searches":                   func(_ *tail.Cluster, w *tail.Work, _ *tail.Load) { w.Search = nil },
		"processes take 1 of a processor in pieces of 1 s": func(_ *tail.Cluster, w *tail.Work, _ *tail.Load) { w.Beside, w.Piece = 1, 1 },
		"rate is 0 a second, want more than 0":             func(_ *tail.Cluster, _ *tail.Work, l *tail.Load) { l.Rate = 0 },
		"9 queries of 2 shards, want 10 to":                func(_ *tail.Cluster, _ *tail.Work, l *tail.Load) { l.Queries = 9 },
		"shares are 2 and 0, want 0 to 1":                  func(_ *tail.Cluster, _ *tail.Work, l *tail.Load) { l.Same = 2 },
	} {
		c, w, l := good()
		change(&c, &w, &l)
		_, err := tail.Simulate(c, w, l)
		require.ErrorContains(t, err, want)
		require.Less(t, len(err.Error()), 300)
	}
}

func TestTimes(t *testing.T) {
	require.Zero(t, tail.Times(nil).At(0.5))
	require.Zero(t, tail.Times(nil).Mean())
	require.Equal(t, 3.0, tail.Times{3}.At(0.7))
	require.Equal(t, 1.5, tail.Times{1, 2}.At(0.5))
	require.Equal(t, tail.Times{0, 1}, tail.Times{1, 3}.Plus(-2))
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Float64Range(0, 100), 2, 300).Draw(t, "times")
		all := tail.NewTimes(list, len(list))
		few := tail.NewTimes(list, 50)
		require.NoError(t, few.Validate())
		require.Equal(t, all.At(0), few.At(0))
		require.Equal(t, all.At(1), few.At(1))
		sum, n := 0.0, 20_000
		random := rand.New(rand.NewPCG(1, 2))
		for range n {
			sum += all.At(random.Float64())
		}
		require.InDelta(t, all.Mean(), sum/float64(n), 2)
	})
}
