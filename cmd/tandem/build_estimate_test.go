package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// plannedOf is the plan of two files that tandem generate has written.
func plannedOf(apps, users int64, dim, shards, m int, appBytes, userBytes int64) *plan.Plan {
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = m, max(params.EfConstruction, m)
	of := func(rows, bytes int64) plan.Tower {
		return plan.Tower{Shards: shards, Rows: []plan.File{{Size: bytes}}, Survey: &tower.Survey{Rows: []int64{rows}}}
	}
	p := &plan.Plan{
		Metric: index.Dot, Params: params.String(), Dim: dim, Apps: of(apps, appBytes), Users: of(users, userBytes),
		Tasks: []plan.Task{{Tower: shard.Apps, Reads: plan.Rows, Files: 1, Bytes: appBytes}, {Tower: shard.Users, Reads: plan.Rows, Files: 1, Bytes: userBytes}},
	}
	p.Apps.RowFields, p.Users.RowFields = synthetic.AppSchema().Fields(), synthetic.UserSchema().Fields()
	return p
}

// What steps took is at most what is said, and what is said at most half more. The measured figures are the
// most that RssAnon was, looked at each 10 ms, and the 60 MiB of the program; of commit all shards beside.
func TestMemoryOfSteps(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		apps, users         int64
		dim, shards, m      int
		appBytes, userBytes int64
		// In MiB, without the program.
		partition, shard, commit int64
		files                    float64 // of all shards
	}{
		{10_000, 2000, 64, 1, 16, 2611309, 482887, 33, 36, 46, 8.4},
		{10_000, 2000, 64, 1, 48, 2611309, 482887, 29, 47, 44, 11.3},
		{30_000, 5000, 16, 1, 16, 2460668, 313829, 36, 61, 40, 16.4},
		{30_000, 5000, 64, 1, 16, 7797744, 1205614, 45, 80, 46, 23.8},
		{30_000, 5000, 64, 3, 16, 7797744, 1205614, 47, 38, 47, 24.7},
		{20_000, 5000, 256, 1, 16, 19444331, 4758198, 72, 106, 58, 39.7},
		{100_000, 20_000, 64, 1, 16, 25929860, 4817496, 89, 224, 49, 79.3},
	} {
		name := fmt.Sprintf("%d x %d in %d, M %d", c.apps, c.dim, c.shards, c.m)
		s := sizesOf(plannedOf(c.apps, c.users, c.dim, c.shards, c.m, c.appBytes, c.userBytes))
		for step, of := range map[string]struct{ said, measured int64 }{
			"partition": {s.partition, c.partition*mib + programMemory},
			"shard":     {s.shard, c.shard*mib + programMemory},
			"commit":    {s.commit, c.commit*mib + programMemory + int64(c.files*mib)},
			"files":     {s.files, int64(c.files * mib)},
		} {
			require.GreaterOrEqual(t, of.said, of.measured, "%s, %s: %d MiB", name, step, of.said/mib)
			require.LessOrEqual(t, of.said, of.measured*3/2, "%s, %s: %d MiB", name, step, of.said/mib)
		}
	}
}

// More of anything never takes less, and a task takes no more than what it may hold.
func TestMoreTakesNoLess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, least, most int64) int64 { return rapid.Int64Range(least, most).Draw(t, name) }
		apps, users, bytes := draw("apps", 0, 1<<34), draw("users", 0, 1<<34), draw("bytes", 0, 1<<44)
		dim, shards, m := int(draw("dim", 1, index.MaxDim)), int(draw("shards", 1, 1024)), int(draw("m", 2, 128))
		s := sizesOf(plannedOf(apps, users, dim, shards, m, bytes, bytes))
		more := func(of stepSizes) {
			require.GreaterOrEqual(t, of.shard, s.shard)
			require.GreaterOrEqual(t, of.commit, s.commit)
			require.GreaterOrEqual(t, of.partition, s.partition)
		}
		n := draw("more", 0, 1<<30)
		more(sizesOf(plannedOf(apps+n, users, dim, shards, m, bytes+4*int64(dim)*n, bytes)))
		more(sizesOf(plannedOf(apps, users, dim, shards, min(m+1, 128), bytes, bytes)))
		require.LessOrEqual(t, s.partition, int64(programMemory+heapMemory+2*partition.DefaultMemory+(2+12)*pageBytes))
		require.Positive(t, s.files+1)
	})
}
