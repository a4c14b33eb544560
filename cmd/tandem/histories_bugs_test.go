package main

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var seededBugs = flag.Bool("bugs", false, "have TestHistoriesFindBugs also build servers with bugs, by go build")

// bugs are changes of one line of the code, each of which makes servers wrong in a way that
// histories must find.
var bugs = []struct{ name, file, old, new string }{
	{
		"the fence is not looked at", "server/fence.go",
		"if age := v.Proof.Age(); age > s.live.Fence() {", "if age := v.Proof.Age(); age > 1000*s.live.Fence() {",
	},
	{
		"the fence is twice as long", "server/fence.go",
		"if age := v.Proof.Age(); age > s.live.Fence() {", "if age := v.Proof.Age(); age > 2*s.live.Fence() {",
	},
	{
		"min_live is not waited for", "server/reach.go",
		"if s.live.Wait(ended, position) == nil {", "if err := s.live.Wait(ended, position); err == nil || !errors.Is(err, live.ErrOtherLog) {",
	},
	{
		"what is laid over a snapshot is not swapped", "server/livelog/layer.go",
		"l.now.Store(&Laid{now, v})", "if l.now.Load() != nil && v.Position.Sequence%5 == 0 { now = l.now.Load().Overlaid }; l.now.Store(&Laid{now, v})",
	},
	{
		"a snapshot that is switched to lacks the log", "server/livelog/layer.go",
		"}, state)\n", "}, live.NewState())\n",
	},
	{
		"what a server remembers is not looked at", "shard/live/replica.go",
		"sure, err := r.state.reaches(s.at)", "sure, err := r.state.reaches(s.at); err = nil",
	},
}

// TestHistoriesFindBugs has servers with a bug go through histories, which must find it: a
// judge that finds nothing shows nothing. One of them takes no other program: servers that
// are told to answer however old what they know is.
//
//	go test ./cmd/tandem -run '^TestHistoriesFindBugs$' -v -timeout 0 -bugs -history 1m -seed 1
func TestHistoriesFindBugs(t *testing.T) {
	t.Parallel() // it waits
	t.Run("answers that may be stale", func(t *testing.T) {
		s := newLiveSite(t, filepath.Join(t.TempDir(), "store"), 3, historyFence)
		s.more = []string{"--live-stale", "answer"}
		findsBug(t, s)
	})
	if !*seededBugs {
		return
	}
	for _, bug := range bugs {
		t.Run(bug.name, func(t *testing.T) {
			s := newLiveSite(t, filepath.Join(t.TempDir(), "store"), 3, historyFence)
			s.program = withBug(t, bug.file, bug.old, bug.new)
			findsBug(t, s)
		})
	}
}

// findsBug goes through a history until something is found.
func findsBug(t *testing.T, s *liveSite) {
	w := newHistoryWorld(t, s)
	for began := time.Now(); time.Since(began) < 5**historyTime && !t.Failed(); {
		if wrong := w.round(t, roundTime); len(wrong) > 0 {
			t.Logf("found after %d rounds and %s; %d things are wrong, such as:\n%s", w.rounds, time.Since(began).Round(time.Second), len(wrong), firstLines(wrong[len(wrong)-1], 12))
			return
		}
	}
	t.Errorf("nothing is found, in %s", w)
}

// firstLines returns the first lines of a text.
func firstLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[:min(len(lines), n)], "\n")
}

// withBug builds the command with a text of one file of the module replaced.
func withBug(t *testing.T, file, old, replaced string) string {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	dir := t.TempDir()
	path := filepath.Join(root, file)
	code, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(code), old), "%s has %q not once", file, old)
	changed := filepath.Join(dir, filepath.Base(file))
	require.NoError(t, os.WriteFile(changed, []byte(strings.Replace(string(code), old, replaced, 1)), 0o644))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644))
	program := filepath.Join(dir, "tandem")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./cmd/tandem")
	cmd.Dir = root
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
	return program
}
