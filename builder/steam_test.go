package builder_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// steamData is where the optional real towers are, relative to this package.
const steamData = "../../shared/data"

var steamPart = flag.Int64("steam-part", 5, "one in how many rows of the real towers tests take; 1 adds cases, and takes minutes")

// steamTowers reads one in part of the apps of a real data set, and one in -steam-part of
// its users, or skips the test.
func steamTowers(t *testing.T, set string, part int64) *towers {
	dir := filepath.Join(steamData, set)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the optional data set %s is not here: %v", set, err)
	}
	if testing.Short() || raceEnabled {
		t.Skip("builds a real data set, which takes long")
	}
	tw := &towers{}
	for _, f := range []struct {
		name, column string
		part         int64
		rows         *[]tower.Row
		schema       *attribute.Schema
	}{
		{"apps.parquet", "app_id", part, &tw.apps, &tw.appSchema},
		{"users.parquet", "user_id", *steamPart, &tw.users, &tw.userSchema},
	} {
		r, err := tower.Open(t.Context(), tower.Options{Paths: []string{filepath.Join(dir, f.name)}, IDColumn: f.column})
		require.NoError(t, err)
		*f.schema = r.Schema()
		for i := range r.Rows() {
			row, err := r.Next()
			require.NoError(t, err)
			if i%f.part == 0 {
				*f.rows = append(*f.rows, tower.Row{ID: row.ID, Vector: slices.Clone(row.Vector), Attributes: slices.Clone(row.Attributes)})
			}
		}
		require.NoError(t, r.Close())
	}
	return tw
}

// steam builds a real data set, or skips the test.
func steam(t *testing.T, set string, part int64) *snapshots.Snapshot {
	o := steamTowers(t, set, part).options(t, "1")
	o.Apps.Shards = 4
	// TestSteamGates runs the gates on these towers.
	o.Gates = filepath.Join(t.TempDir(), "gates.yaml")
	off := "recall: off\nstructure: off\nconcentration: off\nlatency: off\n"
	require.NoError(t, os.WriteFile(o.Gates, []byte(off), 0o600))
	store, report := build(t, o)
	for _, r := range report.Manifest.Apps.Recall {
		require.GreaterOrEqual(t, r.Recall, r.Target-0.005, "recall@%d at target %v", r.K, r.Target)
	}
	return open(t, store, report.Digest)
}

func TestSteamSGD(t *testing.T) {
	tw := steam(t, "steam_sgd", 1).Tower(shard.Apps)
	require.Equal(t, 44428, tw.Rows())
	// Walks reach what they are asked for, however much it is and by themselves: nothing
	// of this nearly collapsed space is cut off from the rest.
	for _, s := range tw.Local() {
		x := s.Index()
		require.NoError(t, x.CheckGraph())
		k := min(10_000, x.Rows())
		hits, stats, err := x.Search(index.Query{Vector: x.Vector(0, nil), K: k, Ef: k, Plan: index.GraphWalk}, nil)
		require.NoError(t, err)
		require.Len(t, hits, k)
		require.Equal(t, index.GraphWalk, stats.Plan)
	}
}

// Each filter of the real data set finds exactly the apps that were found
// eligible independently, and the exact plan returns the best of those.
func TestSteamFilters(t *testing.T) {
	snapshot := steam(t, "steam", *steamPart)
	apps, users := snapshot.Tower(shard.Apps), snapshot.Tower(shard.Users)
	data, err := os.ReadFile(filepath.Join(steamData, "steam", "filters.json"))
	require.NoError(t, err)
	var list []struct {
		Name, Filter string
		Eligible     int
	}
	require.NoError(t, json.Unmarshal(data, &list))
	require.Len(t, list, 13)
	var queries [][]float32
	for _, s := range users.Local() {
		for i := range 5 {
			queries = append(queries, s.Index().Vector(uint32(i), nil))
		}
	}
	for _, f := range list {
		t.Run(f.Name, func(t *testing.T) {
			eligible := readLines(t, filepath.Join(steamData, "steam", "eligible", f.Name+".txt"))
			require.Len(t, eligible, f.Eligible)
			eligible = slices.DeleteFunc(eligible, func(id string) bool {
				_, has, err := apps.Vector(t.Context(), shard.Moment{}, id)
				require.NoError(t, err)
				return !has
			})
			require.NotEmpty(t, eligible)
			compiled, err := apps.Compile(f.Filter)
			require.NoError(t, err)
			bound, err := compiled.Bind(t.Context(), nil)
			require.NoError(t, err)
			for _, v := range queries {
				q := &shard.Query{Vectors: [][]float32{v}, K: 100, Target: 1, Filter: &bound, MinCoverage: 1}
				exact, err := apps.Search(context.Background(), q)
				require.NoError(t, err)
				require.Equal(t, len(eligible), exact.Eligible)
				want := bruteForce(t, apps, eligible, v)
				require.Len(t, exact.Candidates, min(100, len(eligible)))
				for i, c := range exact.Candidates {
					require.InDelta(t, want[i].score, c.Score, 1e-5)
					// A sum that cancels has no relative accuracy of its own; what is
					// summed has.
					require.InDelta(t, want[i].score, c.Score, 1e-6*want[i].scale)
					if i > 0 && want[i-1].score-want[i].score > 1e-6 && (i+1 == len(want) || want[i].score-want[i+1].score > 1e-6) {
						require.Equal(t, want[i].id, c.ID, "place %d", i)
					}
				}
				q.Target = 0.99
				walk, err := apps.Search(context.Background(), q)
				require.NoError(t, err)
				require.Len(t, walk.Candidates, len(exact.Candidates))
				for _, c := range walk.Candidates {
					_, ok := slices.BinarySearch(eligible, c.ID)
					require.True(t, ok, "%s is not eligible", c.ID)
				}
			}
		})
	}
}

type scoredID struct {
	id    string
	score float64
	scale float64 // the product of the two norms
}

// bruteForce scores the ids in float64, best first.
func bruteForce(t *testing.T, tw *shard.Tower, ids []string, query []float32) []scoredID {
	var out []scoredID
	for _, id := range ids {
		v, ok, err := tw.Vector(t.Context(), shard.Moment{}, id)
		require.NoError(t, err)
		require.True(t, ok)
		var sum, vv, qq float64
		for i := range v {
			sum += float64(v[i]) * float64(query[i])
			vv += float64(v[i]) * float64(v[i])
			qq += float64(query[i]) * float64(query[i])
		}
		out = append(out, scoredID{id, sum, math.Sqrt(vv * qq)})
	}
	slices.SortFunc(out, func(a, b scoredID) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
	})
	return out
}

// readLines returns the lines of a file, sorted.
func readLines(t *testing.T, path string) []string {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		lines = append(lines, s.Text())
	}
	slices.Sort(lines)
	return lines
}
