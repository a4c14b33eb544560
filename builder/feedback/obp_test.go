package feedback_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

var obpDir = flag.String("obp", "", "write a dataset of the Open Bandit Pipeline to this folder, and the report on it")

// TestExport has the estimates of a report follow from the columns of an export, by their definitions.
// The step obp has the Open Bandit Pipeline itself do it, with what -obp writes.
func TestExport(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 22))
	releases := []exploring{{7, 0.25, 5, 2, 12}, {8, 0.1, 4, 1, 8}}
	var ids []string
	for i := range 20 {
		ids = append(ids, fmt.Sprint("a", i))
	}
	var list []answered
	for i := range 300 {
		a := answered{of: releases[i%2], user: fmt.Sprint("u", r.IntN(80)), arm: "x", opened: map[string]bool{}, plain: i%50 == 0}
		for _, n := range r.Perm(len(ids)) {
			a.ranks = append(a.ranks, ids[n])
		}
		if !a.plain && r.Float64() < a.of.share {
			for _, n := range r.Perm(a.of.pool - a.of.k)[:a.of.places] {
				a.draws = append(a.draws, a.of.k+n)
			}
		}
		for _, id := range a.shown() {
			a.opened[id] = r.Float64() < 0.3
		}
		list = append(list, a)
	}
	store := objectstest.NewFaults()
	explorationLogs(list).put(t, store)
	bucket := store.Bucket("x")
	_, err := feedback.Join(t.Context(), bucket, options())
	require.NoError(t, err)
	report, err := feedback.Measure(t.Context(), bucket, measureOptions())
	require.NoError(t, err)
	var rounds, items bytes.Buffer
	done, err := feedback.Export(t.Context(), bucket, feedback.ExportOptions{Days: measureOptions().Days, Hits: feedback.DefaultHits}, &rounds, &items)
	require.NoError(t, err)
	require.Equal(t, &feedback.Exported{Requests: 294, Rounds: report.OffPolicy.Policies[0].Exposures, Actions: 20, Without: 6}, done)

	lines, err := csv.NewReader(bytes.NewReader(rounds.Bytes())).ReadAll()
	require.NoError(t, err)
	require.Len(t, lines, int(done.Rounds)+1)
	at := map[string]int{}
	for i, name := range lines[0] {
		at[name] = i
	}
	number := func(line []string, name string) float64 {
		x, err := strconv.ParseFloat(line[at[name]], 64)
		require.NoError(t, err)
		return x
	}
	for _, policy := range []string{feedback.PolicyRanked, feedback.PolicyDrawn} {
		var n, ips, weights, dr float64
		for _, line := range lines[1:] {
			reward, w := number(line, "click"), number(line, policy+"_probability")/number(line, "propensity_score")
			n++
			ips, weights = ips+w*reward, weights+w
			dr += number(line, policy+"_expected") + w*(reward-number(line, "expected"))
		}
		for _, p := range report.OffPolicy.Policies {
			if p.Policy == policy && p.All {
				require.InDelta(t, ips/n, p.IPS.Value, 1e-9)
				require.InDelta(t, ips/weights, p.SNIPS.Value, 1e-9)
				require.InDelta(t, dr/n, p.DR.Value, 1e-9)
			}
		}
	}
	apps, err := csv.NewReader(bytes.NewReader(items.Bytes())).ReadAll()
	require.NoError(t, err)
	require.Len(t, apps, 21)
	require.Equal(t, []string{"", "item_id", "item_feature_0", "app_id"}, apps[0])
	require.NotContains(t, rounds.String(), "u1", "ids of users")
	if *obpDir == "" {
		return
	}
	told, err := json.Marshal(report)
	require.NoError(t, err)
	for name, data := range map[string][]byte{"bts/all/all.csv": rounds.Bytes(), "bts/all/item_context.csv": items.Bytes(), "report.json": told} {
		path := filepath.Join(*obpDir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
}

// TestNothingToExport has an export without propensities be an error that says so.
func TestNothingToExport(t *testing.T) {
	store := objectstest.NewFaults()
	many(10, 10).put(t, store)
	bucket := store.Bucket("x")
	o := feedback.ExportOptions{Days: measureOptions().Days, Hits: feedback.DefaultHits}
	var rounds, items bytes.Buffer
	_, err := feedback.Export(t.Context(), bucket, o, &rounds, &items)
	require.ErrorContains(t, err, "the day 2026-11-25 is not joined")
	_, err = feedback.Join(t.Context(), bucket, options())
	require.NoError(t, err)
	_, err = feedback.Export(t.Context(), bucket, o, &rounds, &items)
	require.ErrorIs(t, err, feedback.ErrNotLogged)
	require.ErrorContains(t, err, "without exploration an answer is always the same")
	require.Empty(t, rounds.String())
	o.Hits = []string{"Opened"}
	_, err = feedback.Export(t.Context(), bucket, o, &rounds, &items)
	require.ErrorContains(t, err, "hit: kind is \"Opened\"")
}
