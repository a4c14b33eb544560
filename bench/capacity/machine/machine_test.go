package machine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/bench/capacity"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// A figure is off by more than a fifth on either side, or if it is none.
func TestFiguresThatAreOff(t *testing.T) {
	v := &Validation{Machine: "a test", Processors: 2, Clusters: []Validated{{
		Shards: 4, Rows: 1000,
		Figures: []Figure{{Name: "memory", Unit: "MiB", Simulated: 119, Measured: 100}},
		Loads: []Loaded{{Load: 0.2, Steps: map[string]float64{}, Figures: []Figure{
			{Name: "p50", Unit: "ms", Simulated: 121, Measured: 100},
			{Name: "p90", Unit: "ms", Simulated: 79, Measured: 100},
			{Name: "p99", Unit: "ms", Simulated: 0, Measured: 0},
			{Name: "CPU", Unit: "ms", Simulated: 81, Measured: 100},
		}}},
	}}}
	require.Equal(t, []string{"4 processes, load 0.2, p50: +21%", "4 processes, load 0.2, p90: -21%", "4 processes, load 0.2, p99: +NaN%"}, v.Off())
	var text bytes.Buffer
	require.NoError(t, v.WriteTable(&text))
	require.Equal(t, 3, bytes.Count(text.Bytes(), []byte("OFF")))
}

// What calls take beyond what they take of processors is what is waited for, three times.
func TestWakes(t *testing.T) {
	c := &common{search: []float64{1e-3, 1e-3}}
	p := &parts{aloneCall: []float64{2e-3}, callerCall: []float64{3e-3}, call: []float64{9e-3, 9e-3}}
	for _, v := range p.wake(c) {
		require.InDelta(t, 1e-3, v, 1e-12)
	}
	p.call = []float64{1e-3, 1e-3} // no more than the work
	for _, v := range p.wake(c) {
		require.Zero(t, v)
	}
}

// What a process takes that is not asked is counted once.
func TestIdleWorkIsCountedOnce(t *testing.T) {
	c := &common{search: []float64{1e-3, 1e-3}, beside: []float64{0.01}}
	p := &parts{rate: 100, nodeCall: []float64{1e-3}, lookup: []float64{0.5e-3}, routerQuery: []float64{2e-3}, routerCall: []float64{0.3e-3}, client: []float64{0.2e-3}}
	w := p.work(c)
	require.InDelta(t, 1e-3+0.9e-3, w.Search.Mean(), 1e-12)
	require.InDelta(t, 0.4e-3, w.Lookup.Mean(), 1e-12)
	require.InDelta(t, 1.9e-3, w.Query, 1e-12)
	require.InDelta(t, 0.3e-3, w.Call, 1e-12)
}

// Refusals are counted, other failures end a measurement, and so does the end of the context.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, refused, err := pace(t.Context(), 2000, 100*time.Millisecond, 1, func(i int) error {
			if i%2 == 0 {
				return errRefused
			}
			return nil
		})
		require.NoError(t, err)
		require.NotEmpty(t, took)
		require.Positive(t, refused)
		broken := errors.New("broken")
		_, _, err = pace(t.Context(), 2000, 100*time.Millisecond, 1, func(int) error { return broken })
		require.ErrorIs(t, err, broken)
		ended, end := context.WithCancel(t.Context())
		end()
		_, _, err = pace(ended, 1, time.Hour, 1, func(int) error { return nil })
		require.ErrorIs(t, err, context.Canceled)
	})
}

// The process that asks is one of which the kernel tells.
func TestThisProcess(t *testing.T) {
	before, err := processCPU(os.Getpid())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("it is for Linux")
	}
	require.NoError(t, err)
	own, err := ownCPU()
	require.NoError(t, err)
	require.InDelta(t, before, own, 1)
	anonymous, files, err := memoryOf(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, anonymous)
	require.Positive(t, files)
	_, err = processCPU(-1)
	require.ErrorContains(t, err, "process -1")
}

func TestBadOptionsAreRefused(t *testing.T) {
	good := func() *Options {
		return &Options{Rows: []int{1000, 2000}, Dim: 8, K: 10, Target: 0.9, Rates: []float64{10}, Time: time.Second, Rounds: 1}
	}
	require.NoError(t, good().Validate())
	for want, change := range map[string]func(*Options){
		"there are 1 sizes of shards, want 2": func(o *Options) { o.Rows = o.Rows[:1] },
		"a shard of 5 rows is to be searched": func(o *Options) { o.Rows[0] = 5 },
		"dim is 0, want 1":                    func(o *Options) { o.Dim = 0 },
		"k is 5000, want 1 to 1000":           func(o *Options) { o.K = 5000 },
		"target is 1, want more than 0":       func(o *Options) { o.Target = 1 },
		"rate 2 is 10 a second, want asc":     func(o *Options) { o.Rates = []float64{10, 10} },
		"there are 0 rates, want 1 to 16":     func(o *Options) { o.Rates = nil },
		"time is 1ms, want 100ms to 1h":       func(o *Options) { o.Time = time.Millisecond },
		"rounds is 0, want 1 to 100":          func(o *Options) { o.Rounds = 0 },
	} {
		o := good()
		change(o)
		require.ErrorContains(t, o.Validate(), want)
	}
}

func TestBadLargeOptionsAreRefused(t *testing.T) {
	good := func() *LargeOptions {
		return &LargeOptions{
			Options: Options{Dim: 8, K: 10, Target: 0.9, Time: time.Second, Rounds: 1},
			Towers:  Towers{Apps: 10_000, Users: users, Shards: 4}, Threads: 1, Rate: 10, Recalled: 5,
		}
	}
	require.NoError(t, good().Validate())
	for want, change := range map[string]func(*LargeOptions){
		"apps is 10, want 1000":            func(o *LargeOptions) { o.Towers.Apps = 10 },
		"users is 10, want 2000":           func(o *LargeOptions) { o.Towers.Users = 10 },
		"shards is 1, want 2 to 64":        func(o *LargeOptions) { o.Towers.Shards = 1 },
		"threads is 0, want 1 to 1024":     func(o *LargeOptions) { o.Threads = 0 },
		"compared is 0, want 1 to 10000":   func(o *LargeOptions) { o.Recalled = 0 },
		"rate 1 is 0 a second, want ascen": func(o *LargeOptions) { o.Rate = 0 },
		"k is 5000, want 1 to 1000":        func(o *LargeOptions) { o.K = 5000 },
	} {
		o := good()
		change(o)
		require.ErrorContains(t, o.Validate(), want)
	}
}

func TestAttributesOfGeneratedTowers(t *testing.T) {
	apps, users, err := attributesOf(Towers{Apps: 3000, Users: 500, Dim: 4, Seed: 1})
	require.NoError(t, err)
	of := map[string]capacity.Attribute{}
	for _, a := range apps {
		of[a.Name] = a
	}
	require.Equal(t, capacity.Attribute{Name: "moderation", Type: attribute.Keyword, Values: 3, Bytes: 22.0 / 3, Present: 1}, of["moderation"], "approved, limited, blocked")
	require.EqualValues(t, 6, of["platforms"].Values)
	require.InDelta(t, 3, of["platforms"].Each, 1.5)
	require.InDelta(t, 0.98, of["price_usd"].Present, 0.02, "a twentieth of those that are not free have none")
	require.Zero(t, of["price_usd"].Values)
	require.Len(t, users, 4)
}
