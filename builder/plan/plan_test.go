package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

func some(files int) *plan.Plan {
	of := func(format input.Format) plan.Tower {
		t := plan.Tower{Shards: 2, Survey: &tower.Survey{Format: format}}
		for i := range files {
			t.Rows = append(t.Rows, plan.File{Place: fmt.Sprint("p", i), Name: "n", Size: int64(10 * i), Fingerprint: strings.Repeat("0", 64)})
			t.Survey.Rows = append(t.Survey.Rows, int64(i))
		}
		return t
	}
	p := &plan.Plan{
		Version: plan.Version, Builder: "b", Model: "m", ModelVersion: "1", Metric: index.Dot, Params: index.DefaultParams(index.Dot).String(),
		Dim: 2, Parameters: &manifest.Parameters{}, Apps: of(input.Parquet), Users: of(input.Npy),
	}
	p.Split(25)
	return p
}

// Tasks are consecutive files of some size, and files of plain numbers are one.
func TestSplit(t *testing.T) {
	p := some(6)
	require.Equal(t, []plan.Task{
		{Tower: shard.Apps, Reads: plan.Rows, First: 0, Files: 3, Bytes: 30},
		{Tower: shard.Apps, Reads: plan.Rows, First: 3, Files: 1, Bytes: 30},
		{Tower: shard.Apps, Reads: plan.Rows, First: 4, Files: 1, Bytes: 40},
		{Tower: shard.Apps, Reads: plan.Rows, First: 5, Files: 1, Bytes: 50},
		{Tower: shard.Users, Reads: plan.Rows, First: 0, Files: 6, Bytes: 150},
	}, p.Tasks)
	many := some(3 * plan.MaxTasks)
	require.LessOrEqual(t, len(many.Tasks), plan.MaxTasks+1)
	data, err := many.Encode()
	require.NoError(t, err)
	_, err = plan.Decode(data)
	require.NoError(t, err)
}

// What is wrong in a plan is an error when it is read.
func TestDecodeRefuses(t *testing.T) {
	for text, change := range map[string]func(*plan.Plan){
		"version 2":           func(p *plan.Plan) { p.Version = 2 },
		"dimension 0":         func(p *plan.Plan) { p.Dim = 0 },
		"0 shards":            func(p *plan.Plan) { p.Apps.Shards = 0 },
		"not what was surv":   func(p *plan.Plan) { p.Users.Survey.Rows = nil },
		"files are in a task": func(p *plan.Plan) { p.Tasks = p.Tasks[:1] },
		"files 2 to":          func(p *plan.Plan) { p.Tasks[0].First = 2 },
	} {
		p := some(6)
		change(p)
		_, err := p.Encode()
		require.ErrorContains(t, err, text)
	}
	_, err := plan.Decode([]byte(`{"version": 9}`))
	require.ErrorContains(t, err, "it is of version 9")
}

// A plan that is read is one that is written.
func FuzzPlan(f *testing.F) {
	data, err := some(3).Encode()
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := plan.Decode(data)
		if err != nil {
			return
		}
		_, err = p.Encode()
		require.NoError(t, err)
	})
}
