package capacity_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/bench/capacity"
	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var update = flag.Bool("update", false, "write golden files anew")

// measured is a measurement that was made up.
func measured(t require.TestingT) *capacity.Measured {
	f, err := os.Open("testdata/measured.json")
	require.NoError(t, err)
	defer f.Close()
	m, err := capacity.ReadMeasured(f)
	require.NoError(t, err)
	return m
}

// catalogue is a scenario.
func catalogue() *capacity.Scenario {
	return &capacity.Scenario{
		Apps: 100_000_000, Users: 300_000_000, Dim: 64, Element: capacity.Float32, Degree: 16, Segments: 2, ShardRows: 10_000_000,
		AppAttributes: []capacity.Attribute{
			{Name: "country", Type: attribute.Keyword, Values: 200, Bytes: 2, Present: 1},
			{Name: "platforms", Type: attribute.KeywordList, Values: 6, Bytes: 5, Each: 2, Present: 0.9},
			{Name: "free", Type: attribute.Bool, Present: 1},
			{Name: "released", Type: attribute.Timestamp, Present: 1},
		},
		QPS: 2000, K: 100, Recall: 0.99, Replicas: 2, Zones: 3,
		Instances: []capacity.Instance{{Name: "large", VCPU: 32, Memory: 256 << 30, Price: 2}, {Name: "small", VCPU: 8, Memory: 64 << 30, Price: 0.6}, {Name: "tiny", VCPU: 2, Memory: 4 << 30, Price: 0.1}},
		Prices:    capacity.Prices{Put: 0.005, Get: 0.0004, Stored: 0.02},
		Queries:   4000, Seed: 1,
	}
}

// A report is the same each time, to the letter.
func TestReportIsGolden(t *testing.T) {
	for name, write := range map[string]func(io.Writer) error{
		"report.txt": func(w io.Writer) error {
			r, err := capacity.Plan(catalogue(), capacity.Options{Measured: measured(t), Assume: map[string]float64{"utilisation": 0.3}})
			require.NoError(t, err)
			return r.WriteTable(w)
		},
		"summary.txt": func(w io.Writer) error {
			var list []*capacity.Report
			for _, apps := range []int64{10_000_000, 100_000_000, 1_000_000_000} {
				s := catalogue()
				s.Apps, s.Users = apps, 3*apps
				r, err := capacity.Plan(s, capacity.Options{Measured: measured(t), Brief: true})
				require.NoError(t, err)
				list = append(list, r)
			}
			return capacity.WriteSummary(w, list)
		},
	} {
		var got bytes.Buffer
		require.NoError(t, write(&got))
		path := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(path, got.Bytes(), 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(want), got.String(), "run with -update if this is right")
	}
}

// What is in the file of the package can be read, and is what a plan takes if nothing else is given.
func TestDefaultCanBeRead(t *testing.T) {
	require.NoError(t, capacity.Default().Validate())
	var written bytes.Buffer
	require.NoError(t, capacity.Default().WriteJSON(&written))
	again, err := capacity.ReadMeasured(&written)
	require.NoError(t, err)
	require.Equal(t, capacity.Default(), again)
}

// statistics returns the attributes of rows as a scenario has them, and the mean length of an id.
func statistics(t *testing.T, path, id string) (list []capacity.Attribute, idBytes float64) {
	r, err := tower.Open(t.Context(), tower.Options{Paths: []string{path}, IDColumn: id})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	rows := 0.0
	values := make([]map[string]bool, r.Schema().Len())
	for i, f := range r.Schema().Fields() {
		list = append(list, capacity.Attribute{Name: f.Name, Type: f.Type})
		values[i] = map[string]bool{}
	}
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		rows++
		idBytes += float64(len(row.ID))
		for i, v := range row.Attributes {
			if v.Absent() {
				continue
			}
			list[i].Present++
			texts := v.Keywords()
			if v.Type() == attribute.Keyword {
				texts = []string{v.Keyword()}
			}
			list[i].Each += float64(len(texts))
			for _, s := range texts {
				values[i][s] = true
			}
		}
	}
	for i := range list {
		a := &list[i]
		a.Each /= a.Present
		a.Present /= rows
		for s := range values[i] {
			a.Bytes += float64(len(s)) / float64(len(values[i]))
		}
		if a.Type == attribute.Keyword || a.Type == attribute.KeywordList {
			a.Values = int64(len(values[i]))
		}
		if a.Type != attribute.KeywordList {
			a.Each = 0
		}
	}
	return list, idBytes / rows
}

// Files of real shards are as large as reckoned, but for some percents.
func TestSizesAreThoseOfFiles(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	const apps, users = 12_000, 3000
	require.NoError(t, synthetic.Write(ctx, dir, synthetic.Options{Apps: apps, Users: users, Dim: 48, Seed: 3}, nil))
	store, err := snapshots.CreateStore(ctx, filepath.Join(dir, "store"), snapshots.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 8, 40
	appPath, userPath := filepath.Join(dir, synthetic.AppsFile), filepath.Join(dir, synthetic.UsersFile)
	report, err := builder.Build(ctx, store, builder.Options{
		Model: "test", ModelVersion: "1", Params: params, Threads: 2,
		Apps:  builder.TowerOptions{Input: tower.Options{Paths: []string{appPath}, IDColumn: synthetic.AppIDColumn}, Shards: 2},
		Users: builder.TowerOptions{Input: tower.Options{Paths: []string{userPath}, IDColumn: synthetic.UserIDColumn}, Shards: 2},
	})
	require.NoError(t, err)
	s := catalogue()
	s.Apps, s.Users, s.Dim, s.Degree, s.Shards, s.UserShards, s.Segments = apps, users, 48, 8, 2, 2, 0
	var ids float64
	s.AppAttributes, ids = statistics(t, appPath, synthetic.AppIDColumn)
	s.UserAttributes, _ = statistics(t, userPath, synthetic.UserIDColumn)
	r, err := capacity.Plan(s, capacity.Options{Measured: measured(t), Assume: map[string]float64{"id_bytes": ids}, Brief: true})
	require.NoError(t, err)
	app, user := float64(report.Manifest.Apps.Shards[0].Size), float64(report.Manifest.Users.Shards[0].Size)
	t.Logf("apps: reckoned %.0f, built %.0f; users: %.0f and %.0f", r.AppShard.All(), app, r.UserShard.All(), user)
	require.InEpsilon(t, app, r.AppShard.All(), 0.1)
	// Sections begin on pages, of which a small file has many that are hardly used.
	require.InDelta(t, user, r.UserShard.All(), 0.1*user+60*4096)
}

// drawScenario draws what may be planned.
func drawScenario(t *rapid.T) *capacity.Scenario {
	s := catalogue()
	s.Apps = rapid.Int64Range(1000, 200_000_000).Draw(t, "apps")
	s.Users = rapid.Int64Range(1000, 200_000_000).Draw(t, "users")
	s.Dim = rapid.IntRange(1, 512).Draw(t, "dim")
	s.Shards, s.UserShards = rapid.IntRange(1, 8).Draw(t, "shards"), rapid.IntRange(1, 8).Draw(t, "user shards")
	s.QPS = float64(rapid.IntRange(1, 5000).Draw(t, "qps"))
	s.Replicas = rapid.IntRange(1, 3).Draw(t, "replicas")
	s.Zones = rapid.IntRange(1, 3).Draw(t, "zones")
	s.Queries = 100
	return s
}

func plan(t require.TestingT, s *capacity.Scenario, assume map[string]float64) *capacity.Report {
	r, err := capacity.Plan(s, capacity.Options{Measured: measured(t), Brief: true, Assume: assume})
	require.NoError(t, err)
	return r
}

// More of what is to be served never takes less.
func TestMoreTakesMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScenario(t)
		before := plan(t, s, nil)
		more := *s
		what := rapid.IntRange(0, 6).Draw(t, "what")
		switch what {
		case 0:
			more.Apps += rapid.Int64Range(1, 1_000_000_000).Draw(t, "more apps")
		case 1:
			more.Users += rapid.Int64Range(1, 1_000_000_000).Draw(t, "more users")
		case 2:
			more.Dim += rapid.IntRange(1, 100).Draw(t, "more dimensions")
		case 3:
			more.Replicas++
		case 4:
			more.AppAttributes = append(more.AppAttributes, capacity.Attribute{Name: "more", Type: attribute.Int, Present: 1})
		case 5:
			more.QPS *= 3
		case 6:
			more.K = 1000
		}
		after := plan(t, &more, nil)
		require.GreaterOrEqual(t, after.AppShard.All(), before.AppShard.All())
		require.GreaterOrEqual(t, after.UserShard.All(), before.UserShard.All())
		require.GreaterOrEqual(t, after.Replicated, before.Replicated)
		for i, f := range after.Fleets {
			b := before.Fleets[i]
			if b.Cannot != "" {
				require.NotEmpty(t, f.Cannot, "more of it can be served by %s", f.Instance.Name)
				continue
			}
			require.True(t, b.Fits)
			require.LessOrEqual(t, b.HeldBoth, b.Usable)
			if f.Cannot == "" && what < 5 && what != 3 { // another number of shards on a node changes what calls take
				require.GreaterOrEqual(t, f.ByMemory, b.ByMemory, f.Instance.Name)
			}
			if f.Cannot == "" && what == 5 {
				require.GreaterOrEqual(t, f.Nodes+f.Routers, b.Nodes+b.Routers, f.Instance.Name)
			}
		}
	})
}

// The cheapest instance that can do it is taken.
func TestTheCheapestIsTaken(t *testing.T) {
	r := plan(t, catalogue(), nil)
	for _, f := range r.Fleets {
		if f.Cannot == "" && f.Instance.Name != r.Best {
			require.GreaterOrEqual(t, f.Month, r.Machines)
		}
	}
	require.NotEmpty(t, r.Fleets[2].Cannot, "a shard is larger than the memory of the instance")
}

// So few nodes that a switch has no room are told so, and fewer still cannot be.
func TestASwitchThatDoesNotFit(t *testing.T) {
	s := catalogue()
	s.Instances = s.Instances[:1]
	need := plan(t, s, nil).Fleets[0]
	require.True(t, need.Fits)
	s.Nodes = need.ByMemory*2/3 + 1
	fewer := plan(t, s, nil).Fleets[0]
	require.False(t, fewer.Fits)
	require.Empty(t, fewer.Cannot)
	require.Greater(t, fewer.HeldBoth, fewer.Usable)
	var text bytes.Buffer
	require.NoError(t, plan(t, s, nil).WriteTable(&text))
	require.Contains(t, text.String(), "DOES NOT FIT")
	s.Nodes = 1
	require.Equal(t, "1 node cannot hold all copies of 40 shards of one snapshot", plan(t, s, nil).Fleets[0].Cannot)
}

// Each assumption changes something of the report, unless it says that it does not.
func TestEachAssumptionMatters(t *testing.T) {
	s := catalogue()
	s.Instances = s.Instances[:1]
	s.QPS = 20_000
	s.Recall, s.Dim = 0.95, 96
	assume := func(more map[string]float64) string {
		r, err := capacity.Plan(s, capacity.Options{Measured: measured(t), Brief: true, Assume: more})
		require.NoError(t, err, "%v", more)
		r.Assumptions = nil
		var text bytes.Buffer
		require.NoError(t, r.WriteJSON(&text))
		return text.String()
	}
	for _, a := range plan(t, s, nil).Assumptions {
		value := a.Value * 0.7
		switch a.Name {
		case "same_query":
			value = 0.5
		case "user_lookups":
			value = 0
		}
		require.NotEqual(t, assume(nil), assume(map[string]float64{a.Name: value}), a.Name)
	}
}

// Twice as fast processors take half of the time, and prices are reckoned with as they are given.
func TestUnits(t *testing.T) {
	s := catalogue()
	s.Instances = s.Instances[:1]
	before, after := plan(t, s, nil), plan(t, s, map[string]float64{"core_speed": 2})
	require.InEpsilon(t, before.Build.ShardsCPU, 2*after.Build.ShardsCPU, 1e-9)
	f := before.Fleets[0]
	require.InEpsilon(t, float64(f.Nodes+f.Routers)*2*730, f.Month, 1e-9, "2 an hour for 730 hours")
	require.InEpsilon(t, before.Release.Uploaded*2, before.Release.Loaded, 1e-9, "two replicas")
	looks := 86_400 * float64(f.Nodes+f.Routers) * (2.02*(1/0.315+1/1.05) + 1/(0.1+0.05))
	require.InEpsilon(t, looks, before.Live.Reads, 1e-9, "two logs, and entries of a twentieth of a second")
	require.InEpsilon(t, before.Live.Reads/1e3*0.0004+before.Live.Writes/1e3*0.005, before.Live.Cost, 1e-9)
}

func TestBadScenariosAreRefused(t *testing.T) {
	for want, change := range map[string]func(s *capacity.Scenario){
		"apps is 0, want 1":                                   func(s *capacity.Scenario) { s.Apps = 0 },
		"dim is 9000, want 1 to 8192":                         func(s *capacity.Scenario) { s.Dim = 9000 },
		"qps is NaN, want":                                    func(s *capacity.Scenario) { s.QPS = math.NaN() },
		"recall is 1, want 0.5 to":                            func(s *capacity.Scenario) { s.Recall = 1 },
		"replicas is 17, want 1 to 16":                        func(s *capacity.Scenario) { s.Replicas = 17 },
		`element is "int4", want float32`:                     func(s *capacity.Scenario) { s.Element = "int4" },
		"100000000 apps are in 100000 shards, want 1 to 4096": func(s *capacity.Scenario) { s.ShardRows = 1000 },
		"there are 0 instances, want 1":                       func(s *capacity.Scenario) { s.Instances = nil },
		`instance "large" has 0 vcpu, want 1`:                 func(s *capacity.Scenario) { s.Instances[0].VCPU = 0 },
		`instance "large" has 5 bytes of memory`:              func(s *capacity.Scenario) { s.Instances[0].Memory = 5 },
		`instance "large" costs 0 an hour, want more`:         func(s *capacity.Scenario) { s.Instances[0].Price = 0 },
		`instance "large" is there twice`:                     func(s *capacity.Scenario) { s.Instances[1] = s.Instances[0] },
		`attribute "country" has 0 values, want 1`:            func(s *capacity.Scenario) { s.AppAttributes[0].Values = 0 },
		`attribute "free" is of type bool, which has no`:      func(s *capacity.Scenario) { s.AppAttributes[2].Bytes = 3 },
		`attribute "free" is present in 2 of the rows`:        func(s *capacity.Scenario) { s.AppAttributes[2].Present = 2 },
		`a row has 7 values of attribute "platforms"`:         func(s *capacity.Scenario) { s.AppAttributes[1].Each = 7 },
	} {
		s := catalogue()
		change(s)
		_, err := capacity.Plan(s, capacity.Options{Measured: measured(t)})
		require.ErrorContains(t, err, want)
		require.Less(t, len(err.Error()), 300)
	}
	for want, assume := range map[string]map[string]float64{
		"assumption utilisation is 2, want 0.01 to 0.9":                       {"utilisation": 2},
		`there is no assumption "utilization", perhaps utilisation is meant`:  {"utilization": 0.4},
		"assumption core_speed is NaN, want":                                  {"core_speed": math.NaN()},
		"assumption user_lookups is 0.5, want 0 or 1":                         {"user_lookups": 0.5},
		`there is no assumption "` + strings.Repeat("x", 64) + `"; accepted:`: {strings.Repeat("x", 5000): 1},
	} {
		_, err := capacity.Plan(catalogue(), capacity.Options{Measured: measured(t), Assume: assume})
		require.ErrorContains(t, err, want)
		require.Less(t, len(err.Error()), 1000)
	}
}

func TestBadMeasurementsAreRefused(t *testing.T) {
	good, err := os.ReadFile("testdata/measured.json")
	require.NoError(t, err)
	for want, change := range map[string][2]string{
		"version is 2, want 1":                        {`"version": 1`, `"version": 2`},
		"unknown field":                               {`"version": 1`, `"version": 1, "more": 2`},
		"dim is 0, want 1 to 8192":                    {`"dim": 64`, `"dim": 0`},
		"search 0 is of 0 rows":                       {`"rows": 10000`, `"rows": 0`},
		"search 0: time 1 is 8 after 60":              {`[60, 80`, `[60, 8`},
		"steps 1 is of 1 a second, want ascending":    {`"rate": 1000`, `"rate": 1`},
		"wake: time 1 is -50, want a number":          {`[0, 50`, `[0, -50`},
		"build 0 is of 10000 apps and 0 users":        {`"users": 2000, "cpu": 4`, `"users": 0, "cpu": 4`},
		"beside is 1, want 0 to 0.9":                  {`"beside": 0.005`, `"beside": 1`},
		"it is no JSON that tandem bench capacity":    {`"version"`, `version`},
		"invalid character '{' after top-level value": {"700}]\n}", "700}]\n} {}"},
	} {
		text := strings.Replace(string(good), change[0], change[1], 1)
		require.NotEqual(t, string(good), text)
		_, err := capacity.ReadMeasured(strings.NewReader(text))
		require.ErrorContains(t, err, want)
		require.Less(t, len(err.Error()), 400)
	}
}

// Whatever is read is refused, or can be planned with.
func FuzzReadMeasured(f *testing.F) {
	good, err := os.ReadFile("testdata/measured.json")
	require.NoError(f, err)
	f.Add(string(good))
	f.Add(`{"version":1}`)
	f.Add(`{"version":1,"searches":[{"rows":1,"asked":1,"expected":1,"times":[1,2]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := capacity.ReadMeasured(strings.NewReader(text))
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		s := catalogue()
		s.Queries, s.Instances = 100, s.Instances[:1]
		s.Apps, s.Users, s.ShardRows = 1_000_000, 1_000_000, 500_000
		r, err := capacity.Plan(s, capacity.Options{Measured: m, Brief: true})
		require.NoError(t, err)
		require.NoError(t, r.WriteTable(io.Discard))
	})
}

func ExamplePlan() {
	r, err := capacity.Plan(&capacity.Scenario{
		Apps: 1_000_000, Users: 1_000_000, Dim: 64, Element: capacity.Float32, Degree: 16, ShardRows: 1_000_000,
		QPS: 10, K: 10, Recall: 0.99, Replicas: 1, Zones: 1, Queries: 1000,
		Instances: []capacity.Instance{{Name: "example", VCPU: 4, Memory: 16 << 30, Price: 0.2}},
	}, capacity.Options{Brief: true})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d shard, %.0f MB\n", r.Shards, r.Snapshot/1e6)
	// Output: 1 shard, 977 MB
}

// Processes that share one machine take what the same do that have one each, and wait for one another.
func TestPlanShared(t *testing.T) {
	s := catalogue()
	s.Apps, s.Users, s.Shards, s.UserShards, s.QPS, s.Queries = 4_000_000, 40_000, 4, 4, 50, 2000
	o := capacity.Options{Measured: measured(t), Assume: map[string]float64{"wake_factor": 0}}
	few, err := capacity.PlanShared(s, o, 2)
	require.NoError(t, err)
	s.QPS = 1.6e6 / (few.NodeCPU + few.RouterCPU + few.ClientCPU) // four fifths of two processors
	few, err = capacity.PlanShared(s, o, 2)
	require.NoError(t, err)
	many, err := capacity.PlanShared(s, o, 64)
	require.NoError(t, err)
	require.Equal(t, few.NodeCPU, many.NodeCPU)
	require.Greater(t, few.P50, many.P50, "searches of four shards wait for two processors")
	require.GreaterOrEqual(t, few.P99, few.P90)
	plan, err := capacity.Plan(s, capacity.Options{Measured: o.Measured, Brief: true})
	require.NoError(t, err)
	require.Equal(t, plan.AppShard, few.AppShard)
	require.InDelta(t, 3600*plan.Build.ShardsCPU, few.ShardsCPU, 1e-6)
	require.Greater(t, few.Memory, plan.Snapshot)
	s.UserShards = 3
	_, err = capacity.PlanShared(s, o, 2)
	require.ErrorContains(t, err, "there are 3 shards of users, want as many as of apps, 4")
}
