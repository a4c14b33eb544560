package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
)

// small is an oracle of one user, 40 apps and two snapshots: app i has score 100-i in the first
// and 200-2i in the second. One filter leaves the even ones.
func small() *Oracle {
	var apps []string
	for i := range 40 {
		apps = append(apps, fmt.Sprintf("app-%02d", i))
	}
	o := newOracle([]string{"u"}, apps, nil)
	for n, snapshot := range []string{"first", "second"} {
		k := &known{version: snapshot, only: map[string]map[int32]bool{}, answers: map[question][][]int32{}}
		order, places, even := []entry{}, map[int32]int{}, map[int32]bool{}
		for i := range int32(40) {
			order, places[i] = append(order, entry{i, float32((n + 1) * (100 - int(i)))}), int(i)
			if i%2 == 0 {
				even[i] = true
			}
		}
		k.orders, k.places, k.only[question{Filter: "even"}.limited()] = [][]entry{order}, []map[int32]int{places}, even
		k.answers[question{K: 3}] = [][]int32{{0, 1, 3}}
		o.snapshots[snapshot] = k
		o.released(uint64(n+1), snapshot)
	}
	return o
}

// answer is that of the first snapshot at a position with some apps.
func answer(at uint64, apps ...int) *tandemv1.RetrieveResponse {
	a := &tandemv1.RetrieveResponse{
		Snapshot: "first", ModelVersion: "first", Generation: 1, Live: &tandemv1.LivePosition{Log: "l", Sequence: at},
		Coverage: &tandemv1.Coverage{Shards: 2, ShardsAnswered: 2},
	}
	for _, i := range apps {
		a.Candidates = append(a.Candidates, &tandemv1.Candidate{Id: fmt.Sprintf("app-%02d", i), Score: float32(100 - i)})
	}
	return a
}

// TestJudge finds each thing that can be wrong, and nothing in what is right.
func TestJudge(t *testing.T) {
	start := time.Now()
	after := func(d time.Duration) time.Time { return start.Add(d) }
	// App 2 is down from position 5 on, acknowledged after a second; app 4 was down from 2 to 6.
	// Of app 6 a takedown was sent at position 6 that nobody has acknowledged.
	writes := func() *registers {
		r := newRegisters("l")
		down := r.issue(4, true, start)
		r.ack(down, 2, start)
		w := r.issue(2, true, start)
		r.ack(w, 5, after(time.Second))
		r.ack(r.issue(4, false, after(time.Second)), 6, after(2*time.Second))
		r.issue(6, true, after(2*time.Second))
		return r
	}
	exact, fast := question{K: 4, Exact: true}, question{K: 3}
	for _, c := range []struct {
		name   string
		answer *tandemv1.RetrieveResponse
		q      question
		came   time.Duration
		want   finding
	}{
		{"nothing was written yet", answer(0, 0, 1, 2, 3), exact, 0, right},
		{"before the takedown counts", answer(2, 0, 1, 2, 3), exact, time.Second, right},
		{"a newer takedown is refused at once", answer(2, 0, 1, 3, 5), exact, time.Second, right},
		{"between what was known and the acknowledgement", answer(4, 0, 1, 2, 3), exact, time.Second, right},
		{"down at the position", answer(5, 0, 1, 2, 3), exact, 2 * time.Second, wrong},
		{"missing, and down", answer(5, 0, 1, 3, 5), exact, 2 * time.Second, right},
		{"not restored at that position yet", answer(5, 0, 1, 3, 4), exact, 2 * time.Second, wrong},
		{"restored", answer(6, 0, 1, 3, 4), exact, 3 * time.Second, right},
		{"restored, and missing", answer(6, 0, 1, 3, 5), exact, 3 * time.Second, wrong},
		{"an old position, in its bound", answer(2, 0, 1, 2, 3), exact, 10 * time.Second, right},
		{"an old position, out of its bound", answer(2, 0, 1, 2, 3), exact, 12 * time.Second, late},
		{"one is missing", answer(2, 0, 2, 3, 5), exact, time.Second, wrong},
		{"one is twice", answer(2, 0, 0, 1, 2), exact, time.Second, wrong},
		{"the order", answer(2, 1, 0, 2, 3), exact, time.Second, wrong},
		{"too few", answer(2, 0, 1, 2), exact, time.Second, wrong},
		{"too many", answer(2, 0, 1, 2, 3, 5), exact, time.Second, wrong},
		{"unknown, and either", answer(7, 0, 1, 3, 4, 5, 7, 8), question{K: 7, Exact: true}, 4 * time.Second, right},
		{"unknown, or the other", answer(7, 0, 1, 3, 4, 5, 6, 7), question{K: 7, Exact: true}, 4 * time.Second, right},
		{"filtered", answer(2, 0, 2, 6, 8), question{K: 4, Exact: true, Filter: "even"}, time.Second, right},
		{"not eligible", answer(2, 0, 1, 2, 6), question{K: 4, Exact: true, Filter: "even"}, time.Second, wrong},
		{"as fast as before", answer(0, 0, 1, 3), fast, -time.Second, right},
		{"not as before", answer(0, 0, 1, 2), fast, -time.Second, wrong},
		{"fast, and one is down", answer(5, 0, 1, 3), fast, 2 * time.Second, right},
	} {
		got, text := small().judge(c.answer, c.q, 0, after(c.came), writes(), 10*time.Second)
		require.Equal(t, c.want, got, "%s: %s", c.name, text)
		require.Equal(t, c.want == right, text == "", "%s: %s", c.name, text)
	}
}

// TestJudgeRestored judges answers by the log that they are of, once a person has accepted
// another one.
func TestJudgeRestored(t *testing.T) {
	start := time.Now()
	after := func(d time.Duration) time.Time { return start.Add(d) }
	r := newRegisters("l")
	r.ack(r.issue(0, true, start), 3, start)                            // lost, and written again
	r.ack(r.issue(1, true, start), 4, start)                            // likewise, and so
	r.ack(r.issue(1, false, after(time.Second)), 5, after(time.Second)) // is this
	pending := r.issue(2, true, after(time.Second))                     // nobody knows
	require.Error(t, r.accept(func([]int32, []int32) (shard.Position, error) { return shard.Position{}, errors.New("it is away") }))
	require.NoError(t, r.accept(func(down, up []int32) (shard.Position, error) {
		require.Equal(t, [][]int32{{0}, {1}}, [][]int32{down, up})
		return shard.Position{Log: "m", Sequence: 4}, nil
	}))
	for _, c := range []struct {
		name string
		log  string
		at   uint64
		apps []int
		came time.Duration
		want finding
	}{
		{"as it was written again", "m", 4, []int{1, 2, 3}, 2 * time.Second, right},
		{"or with what nobody knows", "m", 4, []int{1, 3, 4}, 2 * time.Second, right},
		{"without what was written again", "m", 4, []int{0, 1, 2}, 2 * time.Second, wrong},
		{"without it, for too long", "m", 4, []int{0, 1, 2}, 12 * time.Second, late},
		{"without what is up again", "m", 4, []int{2, 3, 4}, 2 * time.Second, wrong},
		{"of the log before", "l", 4, []int{2, 3, 4}, 2 * time.Second, right},
		{"of the log before, wrongly", "l", 5, []int{2, 3, 4}, 2 * time.Second, wrong},
		{"of the log before the takedown, for too long", "l", 2, []int{0, 1, 2}, 12 * time.Second, late},
		{"of no log", "n", 4, []int{1, 2, 3}, 2 * time.Second, wrong},
	} {
		a := answer(c.at, c.apps...)
		a.Live.Log = c.log
		got, text := small().judge(a, question{K: 3, Exact: true}, 0, after(c.came), r, 10*time.Second)
		require.Equal(t, c.want, got, "%s: %s", c.name, text)
	}
	r.ack(pending, 6, after(3*time.Second))
	a := answer(6, 1, 2, 3)
	a.Live.Log = "m"
	got, _ := small().judge(a, question{K: 3, Exact: true}, 0, after(4*time.Second), r, 10*time.Second)
	require.Equal(t, wrong, got, "it is known now")
	a.Live = &tandemv1.LivePosition{Log: "l", Sequence: 6}
	got, text := small().judge(a, question{K: 3, Exact: true}, 0, after(4*time.Second), r, 10*time.Second)
	require.Equal(t, right, got, text)
}

// TestJudgeMixed finds answers that are of several snapshots.
func TestJudgeMixed(t *testing.T) {
	for name, breaks := range map[string]func(*tandemv1.RetrieveResponse){
		"a score of the other snapshot": func(a *tandemv1.RetrieveResponse) { a.Candidates[1].Score = 198 },
		"a snapshot that is none":       func(a *tandemv1.RetrieveResponse) { a.Snapshot = "third" },
		"the other generation":          func(a *tandemv1.RetrieveResponse) { a.Generation = 2 },
		"a generation that is none":     func(a *tandemv1.RetrieveResponse) { a.Generation = 3 },
		"the other version":             func(a *tandemv1.RetrieveResponse) { a.ModelVersion = "second" },
	} {
		a := answer(0, 0, 1, 2)
		breaks(a)
		got, text := small().judge(a, question{K: 3, Exact: true}, 0, time.Now(), newRegisters("l"), time.Second)
		require.Equal(t, mixed, got, "%s: %s", name, text)
	}
	a := answer(0, 0, 1, 2)
	a.Candidates[1].Score = 98.5 // of nothing
	got, _ := small().judge(a, question{K: 3, Exact: true}, 0, time.Now(), newRegisters("l"), time.Second)
	require.Equal(t, wrong, got)
	a = answer(0, 0, 1, 2)
	a.Coverage.ShardsAnswered = 1
	got, _ = small().judge(a, question{K: 3, Exact: true}, 0, time.Now(), newRegisters("l"), time.Second)
	require.Equal(t, wrong, got)
}
