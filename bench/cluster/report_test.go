package cluster

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
)

// TestTally counts failures that the fence demands apart, and finds when latencies are back.
func TestTally(t *testing.T) {
	tally := newTally()
	at := time.Now()
	ask := func(after, took time.Duration) {
		tally.answered(tally.since.Add(after), tally.since.Add(after+took), right, "", 10)
	}
	for range 100 {
		ask(0, time.Millisecond)
	}
	tally.begin("store", true)
	tally.failed(at, at, "LIVE_STALE", "", noExcuse)
	tally.failed(at, at, "unavailable", "it is gone", noExcuse)
	tally.begin("kill", false)
	tally.failed(at, at, "LIVE_STALE", "", noExcuse)
	tally.failed(at, at, "LIVE_STALE", "", fullDisk)
	tally.failed(at, at, "unavailable", "", wasKilled)
	tally.begin(steadyPhase, false)
	ask(0, 2*time.Millisecond)
	tally.begin("stop", false)
	ask(0, 5*time.Millisecond)
	ask(300*time.Millisecond, time.Second)
	ask(900*time.Millisecond, time.Millisecond)
	tally.begin("slow", false)
	ask(0, time.Second)
	tally.answered(at, at, wrong, "another", 10)

	o := (&Options{Seed: 7}).withDefaults()
	w := &world{o: &o, tally: tally, begun: map[string]int{"kill": 1}, sender: &sender{registers: &registers{downs: 3, now: &history{}}}}
	r := w.report()
	require.EqualValues(t, 2, r.Failed)
	require.Equal(t, []string{"1 wrong", "2 failed"}, r.Broken())
	require.Equal(t, []string{"store: failed: unavailable: it is gone", "kill: failed: LIVE_STALE: ", "slow: wrong: another"}, r.Told)
	back := map[string]float64{}
	for _, p := range r.Phases {
		back[p.Name] = p.Back
		if p.Name == "kill" {
			require.Equal(t, []int64{1, 1}, []int64{p.Fenced, p.Killed})
		}
	}
	require.Equal(t, steadyPhase, r.Phases[0].Name)
	require.InDelta(t, 0.5, back["stop"], 1e-9)
	require.Negative(t, back["slow"])
	var table bytes.Buffer
	require.NoError(t, r.WriteTable(&table))
	require.Contains(t, table.String(), "wrong 1, mixed 0, late 0, older 0, failed 2")
}

// TestRowsJudge finds each bound of a fault that is broken.
func TestRowsJudge(t *testing.T) {
	kinds := []*fault{}
	for i := range faults {
		if name := faults[i].name; name == "kill" || name == "stop" || name == "restart" {
			kinds = append(kinds, &faults[i])
		}
	}
	for want, breaks := range map[string]func(phases map[string]*Phase, r *Report, hedges map[string]float64){
		"":        func(map[string]*Phase, *Report, map[string]float64) {},
		"kill":    func(p map[string]*Phase, _ *Report, _ map[string]float64) { p["kill"].Back = 2.5 },
		"stop":    func(p map[string]*Phase, _ *Report, _ map[string]float64) { p["stop"].P99 = 31 },
		"restart": func(p map[string]*Phase, _ *Report, _ map[string]float64) { p["restart"].Failed["unavailable"] = 1 },
		"stop ":   func(_ map[string]*Phase, _ *Report, h map[string]float64) { h["stop"] = 0.06 },
		"answers": func(_ map[string]*Phase, r *Report, _ map[string]float64) { r.Late = 1 },
	} {
		phases := map[string]*Phase{}
		for _, f := range kinds {
			phases[f.name] = &Phase{Name: f.name, P99: 20, Before: 10, Failed: map[string]int64{}, Queries: 100}
		}
		hedges := map[string]float64{"kill": -1, "stop": 0.01, "restart": 0}
		r := &RowsReport{Faults: &Report{}}
		breaks(phases, r.Faults, hedges)
		for _, p := range phases {
			r.Faults.Phases = append(r.Faults.Phases, *p)
		}
		r.judge(kinds, hedges)
		require.Len(t, r.Rows, 4)
		if want == "" {
			require.Empty(t, r.Broken())
			continue
		}
		require.Len(t, r.Broken(), 1, want)
		require.True(t, strings.HasPrefix(r.Broken()[0], strings.TrimSpace(want)+":"), r.Broken()[0])
	}
}

// TestExcuse forgives a router that is killed what it has not answered, and one whose disk is full
// no more than that the fence refuses.
func TestExcuse(t *testing.T) {
	r, process := &routing{}, &clients{}
	require.Equal(t, noExcuse, r.excuse(process, false, "unavailable"))
	process.killed.Store(true)
	require.Equal(t, wasKilled, r.excuse(process, false, "unavailable"))
	require.Equal(t, noExcuse, r.excuse(process, false, "COVERAGE_TOO_LOW"), "it has said so itself")
	require.Equal(t, fullDisk, r.excuse(&clients{}, true, stale))
	tally := newTally()
	tally.failed(time.Now(), time.Now(), "COVERAGE_TOO_LOW", "", fullDisk)
	require.EqualValues(t, 1, tally.phase().failed["COVERAGE_TOO_LOW"])

	process.answered(shard.Position{Log: "b", Sequence: 4})
	process.answered(shard.Position{Log: "a", Sequence: 9})
	require.Equal(t, shard.Position{Log: "b", Sequence: 4}, *process.newest.Load())
}

// TestDiskIsFull fills a disk of its own, where one may be mounted.
func TestDiskIsFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	if err := mountDisk(dir); err != nil {
		t.Skip(err)
	}
	defer func() { require.NoError(t, unmountDisk(dir)) }()
	file := filepath.Join(dir, "file")
	require.NoError(t, fillDisk(dir))
	require.Error(t, os.WriteFile(file, []byte("more"), 0o600))
	require.NoError(t, emptyDisk(dir))
	require.NoError(t, os.WriteFile(file, []byte("more"), 0o600))
}
