package builder_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// axesOf returns what the gate axes came to, of towers that are built after previous, and
// the snapshot.
func axesOf(t *testing.T, tw *towers, metric index.Metric, store *snapshots.Store, previous manifest.Digest) (gates.Row, *snapshots.Store, manifest.Digest) {
	t.Helper()
	o := tw.options(t, "1")
	o.Params.Metric, o.Previous = metric, previous
	if store == nil {
		var err error
		store, err = snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
		require.NoError(t, err)
	}
	report, err := builder.Build(t.Context(), store, o)
	require.NoError(t, err)
	rows := report.Gates.Rows()
	return rows[slices.IndexFunc(rows, func(r gates.Row) bool { return r.Gate == gates.Axes })], store, report.Digest
}

// rotated turns the space of rows at random, in one plane after the other.
func rotated(rows []tower.Row, seed uint64) []tower.Row {
	r := rand.New(rand.NewPCG(seed, 1))
	dim := len(rows[0].Vector)
	type plane struct {
		i, j     int
		sin, cos float64
	}
	var planes []plane
	for range 4 * dim {
		order := r.Perm(dim)
		for k := 0; k+1 < dim; k += 2 {
			s, c := math.Sincos(2 * math.Pi * r.Float64())
			planes = append(planes, plane{order[k], order[k+1], s, c})
		}
	}
	rows = slices.Clone(rows)
	for n := range rows {
		v := slices.Clone(rows[n].Vector)
		for _, p := range planes {
			x, y := float64(v[p.i]), float64(v[p.j])
			v[p.i], v[p.j] = float32(p.cos*x-p.sin*y), float32(p.sin*x+p.cos*y)
		}
		rows[n].Vector = v
	}
	return rows
}

// shuffled gives the columns of rows another order.
func shuffled(rows []tower.Row, seed uint64) []tower.Row {
	order := rand.New(rand.NewPCG(seed, 2)).Perm(len(rows[0].Vector))
	rows = slices.Clone(rows)
	for n := range rows {
		v := make([]float32, len(order))
		for i, from := range order {
			v[i] = rows[n].Vector[from]
		}
		rows[n].Vector = v
	}
	return rows
}

// Towers that belong together pass without any interactions, and those of two models, of
// which one was turned or has its columns in another order, do not.
func TestAxes(t *testing.T) {
	base := syntheticTowers(t, 800, 500)
	row, store, first := axesOf(t, base, index.Dot, nil, "")
	require.Equal(t, gates.Row{Gate: gates.Axes, State: manifest.GatePassed, Checks: 1, Undecided: 1}, row)

	both := base.clone()
	both.apps, both.users = rotated(both.apps, 1), rotated(both.users, 1)
	row, _, _ = axesOf(t, both, index.Dot, store, first)
	assert.Equal(t, manifest.GatePassed, row.State, "a retrain may have turned the whole space: %s", row.Why)
	row, _, _ = axesOf(t, both, index.Cosine, nil, "")
	assert.Equal(t, manifest.GatePassed, row.State, row.Why)
	row, _, _ = axesOf(t, base, index.L2, nil, "")
	assert.Equal(t, gates.Row{Gate: gates.Axes, State: manifest.GateNotRun, Undecided: 1,
		Why: "the metric is l2, and only models that score by inner products are known to give their towers the same axes"}, row)

	for name, change := range map[string]func(*towers){
		"users turned":               func(tw *towers) { tw.users = rotated(tw.users, 2) },
		"apps turned":                func(tw *towers) { tw.apps = rotated(tw.apps, 2) },
		"columns in another order":   func(tw *towers) { tw.users = shuffled(tw.users, 2) },
		"turned in different ways":   func(tw *towers) { tw.apps, tw.users = rotated(tw.apps, 3), rotated(tw.users, 4) },
		"turned, and in other order": func(tw *towers) { tw.apps, tw.users = rotated(tw.apps, 3), shuffled(tw.users, 4) },
	} {
		tw := base.clone()
		change(tw)
		row, _, _ := axesOf(t, tw, index.Dot, store, first)
		assert.Equal(t, manifest.GateFailed, row.State, "%s: %s", name, row.Why)
		assert.Contains(t, row.Why, "the towers do not belong together: they may be of different model versions", name)
		row, _, _ = axesOf(t, tw, index.Dot, nil, "")
		assert.NotEqual(t, manifest.GatePassed, row.State, "%s, with nothing to compare with: %s", name, row.Why)
	}
}

// The pairs of two real models: each by itself passes. Mixed they do not, and fail beside
// what serves.
func TestSteamAxes(t *testing.T) {
	one, other := steamTowers(t, "steam", *steamPart), steamTowers(t, "steam_sgd", *steamPart)
	row, store, first := axesOf(t, one, index.Dot, nil, "")
	assert.Equal(t, manifest.GatePassed, row.State, row.Why)
	row, _, _ = axesOf(t, other, index.Dot, nil, "")
	assert.Equal(t, manifest.GatePassed, row.State, row.Why)
	for name, tw := range map[string]*towers{
		"apps of the other":  {apps: other.apps, users: one.users, appSchema: other.appSchema, userSchema: one.userSchema},
		"users of the other": {apps: one.apps, users: other.users, appSchema: one.appSchema, userSchema: other.userSchema},
	} {
		row, _, _ := axesOf(t, tw, index.Dot, nil, "")
		assert.NotEqual(t, manifest.GatePassed, row.State, "%s: %s", name, row.Why)
		row, _, _ = axesOf(t, tw, index.Dot, store, first)
		assert.Equal(t, manifest.GateFailed, row.State, "%s, after what serves: %s", name, row.Why)
	}
}
