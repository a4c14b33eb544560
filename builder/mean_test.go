package builder_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// TestMeanUser: the manifest has the mean of the users that are in the snapshot, however
// many shards and threads there are.
func TestMeanUser(t *testing.T) {
	for _, metric := range []index.Metric{index.Dot, index.Cosine, index.L2} {
		t.Run(metric.String(), func(t *testing.T) {
			apps, users := rows("app", 300, 12, 31), rows("user", 200, 12, 32)
			want := make([]float64, 12)
			for _, u := range users {
				scale := 1.0
				if metric == index.Cosine {
					scale = 1 / length(u.vector)
				}
				for j, x := range u.vector {
					want[j] += scale * float64(x) / float64(len(users))
				}
			}
			o := options(t, metric, apps, append(slices.Clone(users), users[7])) // a repeated row is left out
			o.MaxRejected = 1
			store, report := build(t, o)
			m, err := store.Manifest(t.Context(), report.Digest)
			require.NoError(t, err)
			require.Equal(t, manifest.EvidenceVersion, m.Version)
			require.Equal(t, 1, m.Users.Rejected)
			require.Len(t, m.MeanUser, 12)
			for j, x := range m.MeanUser {
				require.InDelta(t, want[j], x, 1e-6)
			}
			o.Users.Shards = 5
			_, other := build(t, o)
			for j, x := range other.Manifest.MeanUser {
				require.InDelta(t, m.MeanUser[j], x, 1e-7*math.Abs(float64(x))+1e-12)
			}
		})
	}
}

func length(v []float32) float64 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

// TestNoMeanUser: directions that cancel out have no mean to ask with, and the build says
// so.
func TestNoMeanUser(t *testing.T) {
	users := rows("user", 200, 12, 33)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range users {
		scale := 1 + r.Float32()
		for j := range users[i].vector {
			users[i].vector[j] = 0
		}
		users[i].vector[i/2%12] = scale * float32(1-2*(i%2)) // each direction and its opposite
	}
	o := options(t, index.Cosine, rows("app", 300, 12, 34), users)
	notes := &recorder{}
	o.Progress = notes
	_, report := build(t, o)
	require.Nil(t, report.Manifest.MeanUser)
	require.Equal(t, manifest.EvidenceVersion, report.Manifest.Version)
	require.True(t, slices.ContainsFunc(notes.notes, func(note string) bool {
		return strings.HasPrefix(note, "users: the mean of their vectors cannot be asked with, so no query can fall back on it: norm is ") &&
			strings.HasSuffix(note, ": their directions cancel out")
	}), notes.notes)
}
