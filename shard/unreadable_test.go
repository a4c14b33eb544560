package shard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

const (
	cutShards = 3
	cutNumber = 1 // of the shard that is cut
	cutName   = "apps-0001"
	cutDim    = 24
)

// cutApps returns random apps, with attributes as [drawApps] draws them.
func cutApps(n int) []shardtest.App {
	r := rand.New(rand.NewPCG(1, 2))
	apps := make([]shardtest.App, n)
	for i := range apps {
		v := make([]float32, cutDim)
		for j := range v {
			v[j] = float32(r.NormFloat64())
		}
		apps[i] = shardtest.App{
			ID: fmt.Sprintf("%c%04d", 'a'+rune(i%7), i), Vector: v, Age: int64(r.IntN(20) - 1), Free: r.IntN(2) == 0,
			Developer: []string{"", "Elf", "Nine Lives", "Ten", "Ten"}[r.IntN(5)],
		}
		for _, p := range []string{"android", "ios", "linux"} {
			if r.IntN(2) == 0 {
				apps[i].Platforms = append(apps[i].Platforms, p)
			}
		}
	}
	return apps
}

// cutting has a snapshot in which one shard's file can be cut.
type cutting struct {
	apps     []shardtest.App
	dir      string
	manifest *manifest.Manifest
	shard    string // path of the file
	whole    []byte
	entries  []sections.Entry
}

func newCutting(t *testing.T) *cutting {
	c := &cutting{apps: cutApps(600), dir: t.TempDir()}
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 8, 40
	store := shardtest.Store(t, c.dir)
	c.manifest = segmentedManifest(t, store, c.apps, cutDim, cutShards, params, segmentsOf()...)
	c.shard = store.ShardPath(c.manifest.Apps.Shards[cutNumber].Digest)
	var err error
	c.whole, err = os.ReadFile(c.shard)
	require.NoError(t, err)
	f, err := sections.Open(c.shard)
	require.NoError(t, err)
	c.entries = f.Entries()
	require.NoError(t, f.Close())
	return c
}

// open opens the app tower, whole, and then cuts the shard's file.
func (c *cutting) open(t *testing.T, size int64) *shard.Tower {
	// A new file: what was cut must stay so for those that have it mapped.
	require.NoError(t, os.Remove(c.shard))
	require.NoError(t, os.WriteFile(c.shard, c.whole, 0o600))
	store, err := snapshots.OpenStore(t.Context(), c.dir, snapshots.Options{})
	require.NoError(t, err)
	tw, err := snapshots.OpenTower(t.Context(), store, c.manifest, shard.Apps)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(c.shard, size))
	return tw
}

// question is a query and which apps are eligible.
type question struct {
	name     string
	q        shard.Query
	eligible func(shardtest.App) bool
}

// questions are such that together they read every section of a shard. They are exact,
// but for some of which only the rows are known.
func (c *cutting) questions(t *testing.T, tw *shard.Tower) (all []question) {
	every := func(shardtest.App) bool { return true }
	vector := func(i int) []float32 { return c.apps[i].Vector }
	all = append(all,
		question{"exact", shard.Query{Vectors: [][]float32{vector(0)}, K: 10, Target: 1}, every},
		question{"vectors", shard.Query{Vectors: [][]float32{vector(0), vector(1)}, K: 100, Target: 1}, every},
		question{"walk", shard.Query{Vectors: [][]float32{vector(2)}, K: 10, Ef: 50, Plan: index.GraphWalk}, every},
		question{"all rows", shard.Query{Vectors: [][]float32{vector(3)}, K: 1000, Target: 1, Attributes: []int{shardtest.Developer, shardtest.Free, shardtest.MinAge, shardtest.Platforms}}, every},
		question{"at most", shard.Query{Vectors: [][]float32{vector(4)}, K: 20, Target: 1, AtMost: []shard.AtMost{{shardtest.Developer, 2}, {shardtest.MinAge, 3}, {shardtest.Platforms, 9}}}, every},
		question{"excluded", shard.Query{Vectors: [][]float32{vector(5)}, K: 10, Target: 1, Self: c.apps[5].ID, Exclude: []string{c.apps[6].ID, c.apps[7].ID, "none"}}, every},
	)
	included := question{"included", shard.Query{Vectors: [][]float32{vector(8)}, K: 30, Target: 1}, every}
	for _, a := range c.apps[:40] {
		included.q.Include = append(included.q.Include, a.ID)
	}
	explained := question{"explained", shard.Query{Vectors: [][]float32{vector(9)}, K: 10, Target: 1, Segment: "f1"}, filters[1].eligible}
	for _, a := range c.apps[:12] {
		explained.q.Explain = append(explained.q.Explain, a.ID)
	}
	all = append(all, included, explained)
	for i, f := range filters[1:] {
		filter, err := tw.Compile(f.text)
		require.NoError(t, err)
		bound, err := filter.Bind(t.Context(), nil)
		require.NoError(t, err)
		all = append(all,
			question{"filter " + f.text, shard.Query{Vectors: [][]float32{vector(i)}, K: 50, Target: 1, Filter: &bound}, f.eligible},
			question{"filtered walk " + f.text, shard.Query{Vectors: [][]float32{vector(i)}, K: 50, Ef: 60, Plan: index.FilteredWalk, Filter: &bound}, f.eligible},
			question{"segment " + f.text, shard.Query{Vectors: [][]float32{vector(i)}, K: 50, Target: 1, Segment: fmt.Sprint("f", i+1)}, f.eligible})
	}
	return all
}

// require checks that a question is answered by all shards or by all but the one that
// was cut, and says by which.
func (c *cutting) require(t *testing.T, tw *shard.Tower, one question) (lost bool) {
	q := one.q
	q.MinCoverage = 1
	_, err := tw.Search(context.Background(), &q)
	if err != nil {
		short, ok := errors.AsType[*shard.CoverageError](err)
		if !assert.True(t, ok, "%s: %v", one.name, err) || !assert.Len(t, short.Unreadable, 1, "%s: %v", one.name, err) {
			return true
		}
		assert.ErrorIs(t, err, sections.ErrUnreadable)
		assert.Equal(t, cutShards-1, short.Answered)
		assert.Equal(t, cutName, short.Unreadable[0].Shard)
		assert.Equal(t, c.shard, short.Unreadable[0].Fault.Path)
		assert.NotContains(t, err.Error(), c.shard, "callers see it")
	}
	lost = err != nil

	q.MinCoverage = 0
	a, err := tw.Search(context.Background(), &q)
	if !assert.NoError(t, err, one.name) {
		return lost
	}
	// How much is read of a shard depends on what others had found when it was asked.
	lost = a.Answered() < cutShards
	asked := c.apps
	if lost {
		asked = nil
		for _, other := range c.apps {
			if shard.Partition(other.ID, cutShards) != cutNumber {
				asked = append(asked, other)
			}
		}
		assert.Equal(t, cutShards-1, a.Answered(), one.name)
		assert.Len(t, a.Unreadable(), 1)
	} else {
		assert.Equal(t, cutShards, a.Answered(), one.name)
	}
	want := bruteForce(index.Dot, asked, &q, one.eligible)
	assert.Equal(t, len(want.all), a.Eligible, one.name)
	if q.Target == 1 {
		assert.Equal(t, want.top, ids(a), one.name)
	}
	for _, e := range a.Explained {
		if lost && shard.Partition(e.ID, cutShards) == cutNumber {
			assert.Equal(t, shard.ShardMissing, e.Standing)
		} else {
			assert.NotEqual(t, shard.ShardMissing, e.Standing)
		}
	}
	return lost
}

// TestShardCutWhileMapped cuts a shard's file at each of its sections while queries go
// on, also those whose goroutine is another. What is there is answered, by the shard or
// without it, and the process lives.
func TestShardCutWhileMapped(t *testing.T) {
	c := newCutting(t)
	whole := c.open(t, int64(len(c.whole)))
	defer func() { require.NoError(t, whole.Close()) }()
	for _, one := range c.questions(t, whole) {
		require.False(t, c.require(t, whole, one), one.name)
	}
	losing := 0
	for _, e := range append([]sections.Entry{{Name: "all", Offset: 0}}, c.entries...) {
		tw := c.open(t, int64(e.Offset))
		questions := c.questions(t, tw)
		var group sync.WaitGroup
		for from := range 2 {
			group.Go(func() {
				for i := from; i < len(questions); i += 2 {
					lost := c.require(t, tw, questions[i])
					if e.Offset == 0 {
						assert.True(t, lost, questions[i].name)
					}
				}
			})
		}
		group.Wait()
		if c.require(t, tw, questions[3]) {
			losing++
		}
		for _, a := range c.apps[:30] {
			v, ok, err := tw.Vector(t.Context(), shard.Moment{}, a.ID)
			if err == nil {
				require.True(t, ok)
				require.Equal(t, a.Vector, v)
				continue
			}
			require.Equal(t, cutNumber, shard.Partition(a.ID, cutShards), "%v", err)
			lost, ok := errors.AsType[*shard.UnreadableError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, cutName, lost.Shard)
		}
		for number, s := range tw.Local() {
			if err := s.Check(); number == cutNumber && e.Offset == 0 {
				require.ErrorIs(t, err, sections.ErrUnreadable)
			} else if number != cutNumber {
				require.NoError(t, err)
			}
		}
		require.NoError(t, tw.Close())
	}
	require.Greater(t, losing, len(c.entries)/2, "cuts that one query for all rows and attributes meets")
	for _, one := range c.questions(t, whole) {
		require.False(t, c.require(t, whole, one), "what others have mapped: %s", one.name)
	}
}

// TestShardCutWhileMappedOnOtherKernels does the same where the processor is told to
// lack what the fastest kernels need: each must let a fault become an error.
func TestShardCutWhileMappedOnOtherKernels(t *testing.T) {
	for _, without := range []string{"cpu.avx512f=off", "cpu.avx512f=off,cpu.avx2=off"} {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestShardCutWhileMapped$")
		command.Env = append(os.Environ(), "GODEBUG="+without)
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s: %s", without, out)
	}
}

// A file that is cut can not be opened, and says which it is.
func TestOpenCutShard(t *testing.T) {
	c := newCutting(t)
	tw := c.open(t, int64(c.entries[len(c.entries)-1].Offset))
	require.NoError(t, tw.Close())
	store, err := snapshots.OpenStore(t.Context(), c.dir, snapshots.Options{})
	require.NoError(t, err)
	_, err = snapshots.OpenTower(t.Context(), store, c.manifest, shard.Apps)
	require.True(t, sections.IsDamaged(err), "%v", err)
	require.ErrorContains(t, err, strings.TrimSuffix(filepath.Base(c.shard), ".shard"))
}
