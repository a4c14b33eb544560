package builder_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// named returns towers that name training runs and have no other attribute; an empty name
// is none.
func named(t *testing.T, tw *towers, apps, users string) *towers {
	t.Helper()
	tw = tw.clone()
	tw.segments = ""
	for _, side := range []struct {
		rows   []tower.Row
		schema *attribute.Schema
		run    string
	}{{tw.apps, &tw.appSchema, apps}, {tw.users, &tw.userSchema, users}} {
		var fields []attribute.Field
		if side.run != "" {
			fields = append(fields, attribute.Field{Name: tower.RunKey, Type: attribute.Keyword})
		}
		var err error
		*side.schema, err = attribute.NewSchema(fields)
		require.NoError(t, err)
		for i := range side.rows {
			side.rows[i].Attributes = nil
			if side.run != "" {
				side.rows[i].Attributes = []attribute.Value{attribute.OfKeyword(side.run)}
			}
		}
	}
	return tw
}

// Towers that name one training run pass by that alone, those that name two are refused,
// and one that names none is said.
func TestTrainingRuns(t *testing.T) {
	base := syntheticTowers(t, 200, 100)
	row := func(apps, users string) (gates.Row, *manifest.Manifest) {
		_, report := build(t, named(t, base, apps, users).options(t, "1"))
		rows := report.Gates.Rows()
		return rows[slices.IndexFunc(rows, func(r gates.Row) bool { return r.Gate == gates.TrainingRun })], report.Manifest
	}
	got, m := row("run 7", "run 7")
	require.Equal(t, gates.Row{Gate: gates.TrainingRun, State: manifest.GatePassed, Checks: 1}, got)
	require.Equal(t, manifest.EvidenceVersion, m.Version)
	for _, in := range m.Inputs {
		require.Equal(t, "run 7", in.Run, in.Role)
	}
	require.Zero(t, m.Apps.Schema.Len(), "the column is no attribute")
	for _, c := range []struct{ apps, users, why string }{
		{"", "", "neither tower says which training run it is of: a trainer may write it as metadata or column tandem_run"},
		{"run 7", "", `apps are of the training run "run 7", and users do not say which they are of`},
		{"", "run 7", `users are of the training run "run 7", and apps do not say which they are of`},
	} {
		got, _ := row(c.apps, c.users)
		require.Equal(t, gates.Row{Gate: gates.TrainingRun, State: manifest.GateNotRun, Undecided: 1, Why: c.why}, got)
	}
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	_, err = builder.Build(t.Context(), store, named(t, base, "run 7", "run 8").options(t, "1"))
	require.EqualError(t, err, `apps are of the training run "run 7", users of "run 8", as tandem_run says: both towers must come from one`)
	require.ErrorAs(t, err, new(*builder.RefusedError), "doing it again gives the same")
}
