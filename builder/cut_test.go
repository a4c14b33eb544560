package builder_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// A shard's file that is cut while gates or a comparison read it ends them with an
// error that names it, also where several goroutines read.
func TestShardCutAmidGates(t *testing.T) {
	apps, users := rows("app", 700, 20, 31), rows("user", 300, 20, 32)
	o := options(t, index.Dot, apps, users)
	o.Segments = segmentsFile(t, "free: free\n")
	store, report := build(t, o)
	thresholds := gates.DefaultThresholds()
	m, err := store.Manifest(t.Context(), report.Digest)
	require.NoError(t, err)
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, work := range []struct {
			name string
			do   func(whole, cut *snapshots.Snapshot) error
		}{
			{"gates", func(_, cut *snapshots.Snapshot) error {
				_, err := gate.Run(t.Context(), gate.Input{Thresholds: thresholds, Candidate: cut})
				return err
			}},
			{"gates with a previous snapshot", func(whole, cut *snapshots.Snapshot) error {
				_, err := gate.Run(t.Context(), gate.Input{Thresholds: thresholds, Candidate: whole, Previous: cut})
				return err
			}},
			{"latency", func(_, cut *snapshots.Snapshot) error {
				_, err := gate.Measure(t.Context(), cut, thresholds)
				return err
			}},
			{"compare", func(whole, cut *snapshots.Snapshot) error {
				_, err := compare.Compare(t.Context(), whole, cut, compare.Options{})
				return err
			}},
			{"exact answers", func(_, cut *snapshots.Snapshot) (err error) {
				queries := make([][]float32, 100)
				for i := range queries {
					queries[i] = users[i].vector
				}
				_, err = probe.Exact(t.Context(), cut.Tower(kind), queries, 10, nil)
				return err
			}},
		} {
			t.Run(string(kind)+" "+work.name, func(t *testing.T) {
				path := store.ShardPath(m.Tower(kind).Shards[0].Digest)
				data, err := os.ReadFile(path)
				require.NoError(t, err)
				cut, err := snapshots.Open(t.Context(), store, report.Digest)
				require.NoError(t, err)
				defer cut.Close()
				// Those who open it from now on have another file.
				require.NoError(t, os.Rename(path, path+".cut"))
				require.NoError(t, os.WriteFile(path, data, 0o600))
				whole := open(t, store, report.Digest)
				require.NoError(t, os.Truncate(path+".cut", 0))
				err = work.do(whole, cut)
				require.ErrorIs(t, err, sections.ErrUnreadable)
				require.NoError(t, work.do(whole, whole), "other files are whole")
			})
		}
	}
}
