package builder_test

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/interval"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

var (
	tryTargets = flag.Bool("targets", false, "measure whether recall targets hold, which takes minutes")
	targetData = flag.String("target-data", "", "a folder of real sets to measure recall targets on too")
)

// unseen is how many users a set is asked with that its build has not seen.
const unseen = 2000

// targetKs are the numbers of candidates that are asked for: some that a calibration
// measures, and some between them.
var targetKs = []int{1, 3, 10, 20, 50, 100, 200, 500, 1000}

// cell is what was measured of one number of candidates and one recall target.
type cell struct {
	k      int
	target float64
	exact  bool    // all shards were scanned, so that there was nothing to measure
	recall float64 // mean
	upper  float64 // bound of 99% confidence
	worst  float64 // mean of the worst percent
	scored float64 // mean distance computations
}

func (c cell) short() bool { return !c.exact && c.upper < c.target }

// Recall targets hold for users that no part of a build has seen.
func TestTargets(t *testing.T) {
	if !*tryTargets {
		t.Skip("takes minutes: -targets runs it")
	}
	sets := madeSets()
	if *targetData == "" {
		fmt.Println("LEFT OUT: the real sets, since -target-data names no folder")
	} else {
		sets = append(sets, realSets(t, *targetData)...)
	}
	fmt.Println("upper is the bound that the recall is below with a confidence of 99%")
	measured, walks, below, short := 0, 0, 0, 0
	for _, s := range sets {
		t.Run(s.name, func(t *testing.T) {
			start := time.Now()
			cells := s.measure(t)
			measured++
			fmt.Printf("\n%s, in %.1f s\n%s", s.name, time.Since(start).Seconds(), table(cells))
			for _, c := range cells {
				if c.exact {
					continue
				}
				walks++
				if c.recall < c.target {
					below++
				}
				if c.short() {
					short++
				}
				assert.GreaterOrEqual(t, c.recall, c.target-0.01, "k %d", c.k)
			}
		})
	}
	fmt.Printf("\n%d cells of %d of %d sets: the mean is below the target in %d, and its upper bound in %d\n", walks, measured, len(sets), below, short)
	if measured == len(sets) {
		require.GreaterOrEqual(t, walks, 200, "cells that are no exact scans")
	}
	assert.LessOrEqual(t, short, walks/100, "cells whose upper bound is below their target")
}

func table(cells []cell) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "k\ttarget\trecall\tupper\tworst 1%\tscored\t")
	for _, c := range cells {
		if c.exact {
			fmt.Fprintf(w, "%d\t%v\t\t\t\texact scan\t\n", c.k, c.target)
			continue
		}
		verdict := ""
		if c.short() {
			verdict = "  SHORT"
		}
		fmt.Fprintf(w, "%d\t%v\t%.5f\t%.5f\t%.3f\t%.0f\t%s\n", c.k, c.target, c.recall, c.upper, c.worst, c.scored, verdict)
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

// measure builds a set and asks it.
func (s targetSet) measure(t *testing.T) []cell {
	users := numbered("u", s.users())
	o := options(t, s.metric, nil, nil)
	o.Apps.Input.Paths = []string{write(t, "apps.parquet", "app_id", attribute.Schema{}, numbered("a", s.apps()))}
	o.Users.Input.Paths = []string{write(t, "users.parquet", "user_id", attribute.Schema{}, users)}
	o.Apps.Shards, o.Users.Shards = s.shards, 1
	o.Gates = filepath.Join(t.TempDir(), "gates.yaml")
	require.NoError(t, os.WriteFile(o.Gates, []byte("recall: off\nstructure: off\nconcentration: off\nlatency: off\n"), 0o600))
	store, report := build(t, o)
	apps := open(t, store, report.Digest).Tower(shard.Apps)

	slices.SortFunc(users, func(a, b row) int { return cmp.Compare(shard.SampleKey(b.id), shard.SampleKey(a.id)) })
	asking := users[:unseen]
	exact := make([][]shard.Candidate, len(asking))
	largest := min(targetKs[len(targetKs)-1], apps.Rows())
	require.NoError(t, probe.Each(t.Context(), len(asking), func(i int) error {
		a, err := apps.Search(t.Context(), &shard.Query{Vectors: [][]float32{asking[i].vector}, K: largest, Target: 1, MinCoverage: 1})
		if err == nil {
			exact[i] = a.Candidates
		}
		return err
	}))
	var cells []cell
	for _, k := range targetKs {
		for _, target := range index.Targets {
			cells = append(cells, measureCell(t, apps, asking, exact, k, math.Round(float64(target)*1e6)/1e6))
		}
	}
	return cells
}

// measureCell asks for k candidates at a target.
func measureCell(t *testing.T, apps *shard.Tower, asking []row, exact [][]shard.Candidate, k int, target float64) cell {
	c := cell{k: k, target: target, exact: true}
	k = min(k, apps.Rows())
	recalls, scored := make([]float64, len(asking)), make([]int, len(asking))
	ask := func(i int) (walked bool, err error) {
		a, err := apps.Search(t.Context(), &shard.Query{Vectors: [][]float32{asking[i].vector}, K: k, Target: target, MinCoverage: 1})
		if err != nil {
			return false, err
		}
		scored[i] = 0
		recalls[i] = shard.RecallOf(apps.Metric(), exact[i][:k], a.Candidates)
		for _, s := range a.Shards {
			scored[i] += s.Scored
			walked = walked || s.Plan != index.ExactScan
		}
		return walked, nil
	}
	// Without a filter the plan is that of any query.
	walked, err := ask(0)
	require.NoError(t, err)
	if !walked {
		require.Equal(t, 1.0, recalls[0], "k %d: an exact scan misses nothing", k)
		return c
	}
	c.exact = false
	require.NoError(t, probe.Each(t.Context(), len(asking), func(i int) error {
		_, err := ask(i)
		return err
	}))
	c.recall, c.worst = shard.MeanRecall(recalls)
	trials, squares := float64(len(asking)*k), 0.0
	for i, r := range recalls {
		squares += math.Pow((r-c.recall)*float64(k), 2)
		c.scored += float64(scored[i]) / float64(len(asking))
	}
	c.upper = interval.Upper(c.recall, interval.Effective(c.recall, trials, squares, len(asking)), interval.Z99)
	return c
}
