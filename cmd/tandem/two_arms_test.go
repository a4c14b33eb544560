package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var (
	twoArms = flag.String("two-arms", "", "two folders with apps.parquet and users.parquet and a CSV file of held-out pairs, FIRST,SECOND,FILE, for TestTwoArmsReported; default: towers that are made up")
	metric  = flag.String("two-arms-metric", "dot", "the metric of -two-arms")
)

// pair is what a user did that no tower has seen.
type pair struct{ user, app string }

// twoArmsData returns the folders of the towers of two arms, and held-out pairs.
func twoArmsData(t *testing.T, s *releasing) (dirs [2]string, held []pair) {
	if *twoArms != "" {
		names := strings.Split(*twoArms, ",")
		require.Len(t, names, 3, "-two-arms")
		data, err := os.ReadFile(names[2])
		require.NoError(t, err)
		rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
		require.NoError(t, err)
		for _, row := range rows[1:] {
			held = append(held, pair{row[0], row[1]})
		}
		return [2]string{names[0], names[1]}, held
	}
	for i := range dirs {
		dirs[i] = t.TempDir()
		s.run(t, "generate", "--out", dirs[i], "--apps", "300", "--users", "120", "--dim", "8", "--seed", fmt.Sprint(i+1), "--interactions-per-user", "0")
	}
	r := rand.New(rand.NewPCG(*trialSeed, 2))
	for user := range 120 {
		for range 6 {
			held = append(held, pair{fmt.Sprintf("user-%07d", user), appID(r.IntN(300))})
		}
	}
	return dirs, held
}

// What is reported of two arms is, to the last digit, what a plain count of the answers finds that
// callers got: hit rates at each k of each arm, of interleaved answers and of all, and the verdict.
// Some answers explore.
func TestTwoArmsReported(t *testing.T) {
	const k = 20
	s := &releasing{location: filepath.Join(t.TempDir(), "store"), cache: t.TempDir()}
	dirs, held := twoArmsData(t, s)
	for i, dir := range dirs {
		// Gates of made up towers may fail; what they say does not matter here.
		_ = run(t.Context(), []string{"build", "--apps", filepath.Join(dir, "apps.parquet"), "--users", filepath.Join(dir, "users.parquet"),
			"--model", "feed", "--model-version", fmt.Sprint(i + 1), "--metric", *metric, "--store", s.location, "--cache", s.cache}, io.Discard, io.Discard)
	}
	store, err := snapshots.OpenStore(t.Context(), s.location, snapshots.Options{Cache: s.cache})
	require.NoError(t, err)
	defer store.Close()
	list, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)
	releases := release.New(store)
	for _, p := range list {
		_, err := releases.Start(t.Context(), release.StartOptions{Snapshot: p.Digest, Weight: 500, Change: release.Change{Override: "a test"}})
		require.NoError(t, err)
	}
	_, err = releases.Split(t.Context(), release.SplitOptions{
		Interleaving: &release.Interleaving{Arms: []string{"control", "candidate"}, Share: 400},
		Exploration:  &release.Exploration{Share: 200, Places: 2, Pool: 60},
		Change:       release.Change{Override: "a test"},
	})
	require.NoError(t, err)
	p := s.serve(t, "--record-share", "1", "--outcomes", "--outcome-interval", "10ms", "--drain-delay", "0s")
	defer p.kill()
	p.await(t, 3)

	of := map[string][]string{}
	var users []string
	for _, h := range held {
		if of[h.user] == nil {
			users = append(users, h.user)
		}
		of[h.user] = append(of[h.user], h.app)
	}
	client := tandemv1connect.NewRetrievalServiceClient(http.DefaultClient, "http://"+p.address)
	outcomes := tandemv1connect.NewFeedbackServiceClient(http.DefaultClient, "http://"+p.address)
	// What callers count themselves: requests and those with a hit among the first n, by arm.
	type rate struct{ requests, hits int64 }
	counted := map[string]map[int]*rate{}
	ks := []int{1, 5, 10, k}
	count := func(arm string, shown []string, bought []string) {
		if counted[arm] == nil {
			counted[arm] = map[int]*rate{}
		}
		for _, n := range ks {
			if counted[arm][n] == nil {
				counted[arm][n] = &rate{}
			}
			counted[arm][n].requests++
			if slices.ContainsFunc(shown[:min(n, len(shown))], func(id string) bool { return slices.Contains(bought, id) }) {
				counted[arm][n].hits++
			}
		}
	}
	credit := map[string]int64{} // hits of each team, in interleaved answers
	unknown, explored, paired := 0, 0, 0
	day := time.Now().UTC()
	for n, user := range users {
		got, err := client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: user, K: k, RequestId: fmt.Sprint("r", n)}))
		if connect.CodeOf(err) == connect.CodeNotFound {
			unknown++ // held out, too
			continue
		}
		require.NoError(t, err)
		arm := got.Msg.Arm
		if len(got.Msg.Interleaved) > 0 {
			arm, paired = "interleaved", paired+1
		}
		if got.Msg.Explored {
			explored++
		}
		var shown []string
		for _, c := range got.Msg.Candidates {
			shown = append(shown, c.Id)
			if c.Team != "" && slices.Contains(of[user], c.Id) {
				credit[c.Team]++
			}
		}
		count(arm, shown, of[user])
		count("", shown, of[user])
		message := &tandemv1.LogOutcomesRequest{}
		for _, app := range of[user] {
			message.Outcomes = append(message.Outcomes, &tandemv1.Outcome{Id: user + "/" + app, UserId: user, RequestId: fmt.Sprint("r", n), AppId: app, Kind: "open"})
		}
		for begin := 0; begin < len(message.Outcomes); begin += 1000 {
			_, err = outcomes.LogOutcomes(t.Context(), connect.NewRequest(&tandemv1.LogOutcomesRequest{Outcomes: message.Outcomes[begin:min(begin+1000, len(message.Outcomes))]}))
			require.NoError(t, err)
		}
	}
	require.NotZero(t, paired*explored, "there are some of each")
	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
	for range p.events { // until it ends, with what it has recorded written
	}

	var report bytes.Buffer
	days := []string{"--store", s.location, "--cache", s.cache, "--day", day.Format(time.DateOnly), "--until", time.Now().UTC().Format(time.DateOnly)}
	s.run(t, append([]string{"feedback", "join"}, slices.Concat(days[:2], days[4:])...)...)
	var stderr bytes.Buffer
	require.Zero(t, run(t.Context(), append([]string{"feedback", "report", "--json", "--k", "1,5,10,20"}, slices.Concat(days[:2], days[4:])...), &report, &stderr), "%s", &stderr)
	var got feedback.Report
	require.NoError(t, json.Unmarshal(report.Bytes(), &got))

	seen := 0
	for _, h := range got.HitRates {
		if h.By == "segment" {
			continue // none is named
		}
		want := counted[h.Name][h.K]
		require.NotNil(t, want, "%v", h)
		require.Equal(t, []int64{want.requests, want.hits}, []int64{h.Requests, h.Hits}, "%s %q at %d", h.By, h.Name, h.K)
		require.Equal(t, float64(want.hits)/float64(want.requests), h.Rate) //nolint:testifylint // to the last digit
		t.Logf("%s %s at %d: %d of %d", h.By, h.Name, h.K, h.Hits, h.Requests)
		seen++
	}
	require.Equal(t, len(counted)*len(ks), seen)
	teams := map[string]int64{}
	for _, g := range got.Groups {
		if g.By == "team" {
			teams[g.Name] = g.Hits
		}
	}
	for team, hits := range credit {
		require.Equal(t, hits, teams[team], team)
	}
	require.Len(t, got.Verdicts, 1)
	t.Logf("%d users, %d of them unknown, %d answers interleaved, %d explored; %s", len(users), unknown, paired, explored, fmt.Sprint(credit))
}
