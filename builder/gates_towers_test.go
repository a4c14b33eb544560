package builder_test

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// towers are both towers of one model version in memory, as a trainer has them.
type towers struct {
	apps, users  []tower.Row
	appSchema    attribute.Schema
	userSchema   attribute.Schema
	interactions string // path
	segments     string // path
}

const rareSegment = "blocked" // about one app in fifty

// syntheticTowers generates towers of which one app in a hundred is in a segment.
func syntheticTowers(t testing.TB, apps, users int) *towers {
	o := synthetic.Options{Apps: int64(apps), Users: int64(users), Dim: 24, Seed: 5, Interactions: 12}
	dir := t.TempDir()
	require.NoError(t, synthetic.Write(t.Context(), dir, o, nil))
	g, err := synthetic.New(o)
	require.NoError(t, err)
	tw := &towers{
		appSchema: synthetic.AppSchema(), userSchema: synthetic.UserSchema(),
		interactions: filepath.Join(dir, synthetic.InteractionsFile),
		segments:     segmentsFile(t, rareSegment+": moderation == \"blocked\"\nmobile: '\"ios\" in platforms || \"android\" in platforms'\n"),
	}
	for i := range apps {
		var row tower.Row
		g.App(int64(i), &row)
		tw.apps = append(tw.apps, row)
	}
	for i := range users {
		var row tower.Row
		g.User(int64(i), &row)
		tw.users = append(tw.users, row)
	}
	return tw
}

// clone returns towers whose vectors may be changed.
func (tw *towers) clone() *towers {
	c := *tw
	for _, list := range []*[]tower.Row{&c.apps, &c.users} {
		*list = slices.Clone(*list)
		for i := range *list {
			(*list)[i].Vector = slices.Clone((*list)[i].Vector)
		}
	}
	return &c
}

// options writes the towers and returns how to build them.
func (tw *towers) options(t testing.TB, version string) builder.Options {
	write := func(name, column string, s attribute.Schema, rows []tower.Row) tower.Options {
		path := filepath.Join(t.TempDir(), name)
		w, err := tower.CreateParquet(path, tower.ParquetOptions{IDColumn: column, EmbeddingColumn: tower.DefaultEmbeddingColumn, Schema: s})
		require.NoError(t, err)
		for i := range rows {
			require.NoError(t, w.Append(&rows[i]))
		}
		require.NoError(t, w.Close())
		return tower.Options{Paths: []string{path}, IDColumn: column}
	}
	return builder.Options{
		Apps:  builder.TowerOptions{Input: write("apps.parquet", "app_id", tw.appSchema, tw.apps), Shards: 1},
		Users: builder.TowerOptions{Input: write("users.parquet", "user_id", tw.userSchema, tw.users), Shards: 1},
		Model: "feed", ModelVersion: version, Params: index.DefaultParams(index.Dot), Threads: 2, Segments: tw.segments,
	}
}

// rotation returns a random orthogonal matrix, by Gram and Schmidt.
func rotation(r *rand.Rand, dim int) [][]float64 {
	m := make([][]float64, dim)
	for i := range m {
		m[i] = make([]float64, dim)
		for j := range m[i] {
			m[i][j] = r.NormFloat64()
		}
		for _, other := range m[:i] {
			along := 0.0
			for j := range other {
				along += other[j] * m[i][j]
			}
			for j := range other {
				m[i][j] -= along * other[j]
			}
		}
		norm := 0.0
		for _, x := range m[i] {
			norm += x * x
		}
		for j := range m[i] {
			m[i][j] /= math.Sqrt(norm)
		}
	}
	return m
}

func rotate(m [][]float64, rows []tower.Row) {
	for i := range rows {
		v := rows[i].Vector
		out := make([]float32, len(v))
		for j, axis := range m {
			sum := 0.0
			for k, x := range axis {
				sum += x * float64(v[k])
			}
			out[j] = float32(sum)
		}
		rows[i].Vector = out
	}
}

// perturb moves each vector by a share of its length in a random direction, as a model
// that was trained for another day has.
func perturb(r *rand.Rand, rows []tower.Row, by float64) {
	for i := range rows {
		v := rows[i].Vector
		norm := 0.0
		for _, x := range v {
			norm += float64(x) * float64(x)
		}
		step := by * math.Sqrt(norm/float64(len(v)))
		for j := range v {
			v[j] += float32(step * r.NormFloat64())
		}
	}
}

// shuffle exchanges the vectors of a share of the rows among their ids.
func shuffle(r *rand.Rand, rows []tower.Row, share float64) {
	exchange(rows, r.Perm(len(rows))[:int(share*float64(len(rows)))])
}

// exchange gives each of some rows the vector of the next.
func exchange(rows []tower.Row, some []int) {
	first := rows[some[0]].Vector
	for i, at := range some[:len(some)-1] {
		rows[at].Vector = rows[some[i+1]].Vector
	}
	rows[some[len(some)-1]].Vector = first
}
