package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/server/judge"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

// shownFailures is how many of its last failures a screen has of a server.
const shownFailures = 3

// write writes the screen.
func (f *fleetStatus) write(w io.Writer) error {
	for i := range f.Servers {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := f.Servers[i].write(w, f.Time); err != nil {
			return err
		}
	}
	if len(f.Findings) > 0 {
		fmt.Fprintln(w)
	}
	return writeFindings(w, f.Findings)
}

func writeFindings(w io.Writer, list []judge.Finding) error {
	for _, x := range list {
		if _, err := fmt.Fprintf(w, "! %s: %s\n    next: %s (%s)\n", x.Alert, release.Escape(x.Why), x.Next, x.Runbook); err != nil {
			return err
		}
	}
	return nil
}

func (s *serverStatus) write(w io.Writer, now time.Time) error {
	verdict := "good"
	if n := len(s.Findings); n > 0 {
		verdict = "NOT GOOD: " + wording.Plural(n, "thing")
	}
	fmt.Fprintf(w, "%s  %s\n", s.Server, verdict)
	if s.Status != nil {
		for _, line := range s.lines(now) {
			fmt.Fprintf(w, "  %-9s %s\n", line[0], release.Escape(line[1]))
		}
	}
	return writeFindings(w, s.Findings)
}

// lines are what there is to see of a server that has answered, each with its name.
func (s *serverStatus) lines(now time.Time) (list [][2]string) {
	add := func(name, text string) { list = append(list, [2]string{name, text}) }
	add("serves", servesText(s.Status, now))
	for _, a := range s.Status.Arms {
		add("arm", armText(a, now))
		add("recall", recallText(a.Recall))
		for _, x := range judge.Strata(a.Recall) {
			if x.Kind != "" && x.Alarm != nil {
				add("", fmt.Sprintf("%s %s: %s", x.Kind, x.Name, stratumText(x.RecallStratum)))
			}
		}
		if text := a.Recall.GetFailure(); text != "" {
			add("", "not audited: "+text)
		}
		if text := a.Recall.GetRollback(); text != "" {
			add("", "rollback: "+text)
		}
	}
	list = append(list, clusterLines(s.Status.Cluster)...)
	add("latency", latencyText(s.Status.GetLoad().GetLastMinute()))
	add("load", loadText(s.Status.GetLoad()))
	add("releases", seenText(s.Status))
	add("live log", liveText(s.Live))
	add("memory", memoryText(s.Status))
	for i, f := range s.Status.Failures[:min(len(s.Status.Failures), shownFailures)] {
		name := ""
		if i == 0 {
			name = "failures"
		}
		add(name, failureText(f, now))
	}
	return list
}

func servesText(s *tandemv1.GetStatusResponse, now time.Time) string {
	phase := (&fleet.Answer{Status: s}).Phase()
	switch {
	case len(s.Arms) == 0:
		return "nothing, " + phase
	case s.Generation == 0:
		return fmt.Sprintf("a snapshot without a release, since %s, %s", ago(s.Since.AsTime(), now), phase)
	case s.Generation != s.TargetGeneration:
		phase += fmt.Sprintf(", and should serve generation %d", s.TargetGeneration)
	}
	return fmt.Sprintf("generation %d since %s, %s", s.Generation, ago(s.Since.AsTime(), now), phase)
}

// ago says when something was, and how long ago.
func ago(t, now time.Time) string {
	return fmt.Sprintf("%s (%s ago)", t.Format(time.RFC3339), wording.Seconds(max(now.Sub(t), 0)))
}

func armText(a *tandemv1.ArmStatus, now time.Time) string {
	text := fmt.Sprintf("%s %d per mille, %s at %s, snapshot %.12s, %s, %s", a.Name, a.Weight, a.Model, a.ModelVersion, a.Snapshot,
		wording.Plural(int64(a.Apps), "app"), wording.Plural(int64(a.Users), "user"))
	if a.Published != nil {
		text += fmt.Sprintf(", published %s ago", wording.Seconds(max(now.Sub(a.Published.AsTime()), 0)))
	}
	if n := a.UnreadableShards; n > 0 {
		text += fmt.Sprintf(", %s LOST", wording.Plural(int(n), "shard"))
	} else {
		text += ", all shards"
	}
	return text
}

func recallText(r *tandemv1.ArmRecall) string {
	if r.GetAll() == nil {
		return "not measured"
	}
	return stratumText(r.All)
}

func stratumText(s *tandemv1.RecallStratum) string {
	audits := wording.Plural(int64(s.Audits), "audit")
	if s.Audits == 0 {
		return "not enough data: 0 audits"
	}
	if !s.EnoughData {
		return fmt.Sprintf("not enough data: %s; for sure %.4f to %.4f, floor %.4f", audits, s.Low, s.High, s.Floor)
	}
	text := fmt.Sprintf("%.4f, for sure %.4f to %.4f, worst tenth %.4f, floor %.4f, of %s", s.Recall, s.Low, s.High, s.WorstDecile, s.Floor, audits)
	if s.Alarm != nil {
		text = "BELOW THE FLOOR: " + text
	}
	return text
}

func latencyText(q *tandemv1.RecentQueries) string {
	if q == nil {
		return "not told: it is of an earlier version"
	}
	over := "the last " + wording.Seconds(q.Window.AsDuration())
	if q.Answered == 0 {
		return fmt.Sprintf("no query was answered in %s%s", over, notAnswered(q))
	}
	return fmt.Sprintf("half within %s, 99 of 100 within %s, of %s answered in %s%s", wording.Round(q.P50.AsDuration()), wording.Round(q.P99.AsDuration()),
		wording.Count(int64(q.Answered)), over, notAnswered(q))
}

func notAnswered(q *tandemv1.RecentQueries) string {
	return fmt.Sprintf("; %s refused, %s failed", wording.Count(int64(q.Refused)), wording.Count(int64(q.Failed)))
}

func loadText(l *tandemv1.ServerLoad) string {
	if l.GetRequestsLimit() == 0 {
		return "not told"
	}
	return fmt.Sprintf("%d of %s, %s of %s for them, %d of %s", l.Requests, wording.Plural(int(l.RequestsLimit), "request"),
		wording.Bytes(int64(l.RequestMemory)), wording.Bytes(int64(l.RequestMemoryLimit)), l.Connections, wording.Plural(int(l.ConnectionsLimit), "connection"))
}

func seenText(s *tandemv1.GetStatusResponse) string {
	if s.Staleness == nil {
		return "follows none"
	}
	text := "seen " + agoText(fleet.Staleness(s.Staleness))
	if s.LogError != "" {
		text += "; its last look failed: " + s.LogError
	}
	return text
}

func liveText(l *tandemv1.GetLiveStatusResponse) string {
	if l == nil {
		return "not told"
	}
	return fmt.Sprintf("position %s, proved %s, fence %s, %s taken down, %s of %s upserted", wire.Position(l.Position), provedText(l), fenceText(l),
		wording.Plural(int64(l.Takedowns), "app"), wording.Bytes(int64(l.FreshBytes)), wording.Bytes(int64(l.FreshBytesLimit)))
}

func memoryText(s *tandemv1.GetStatusResponse) string {
	limit := "no limit"
	if s.MemoryLimit < math.MaxInt64 {
		limit = "of " + wording.Bytes(int64(s.MemoryLimit))
	}
	return fmt.Sprintf("%s mapped, %s, %s kept for a rollback", wording.Bytes(int64(s.MappedBytes)), limit, wording.Plural(len(s.KeptSnapshots), "snapshot"))
}

func failureText(f *tandemv1.ServerFailure, now time.Time) string {
	kind := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(f.Kind.String(), "FAILURE_KIND_")), "_", " ")
	text := fmt.Sprintf("%s: %s: %s", ago(f.Time.AsTime(), now), kind, f.Text)
	if f.Times > 1 {
		text += fmt.Sprintf(" (%s times)", wording.Count(int64(f.Times)))
	}
	return text
}

// sortedKeys returns the keys of a map, ascending.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
