package main

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/server/judge"
)

// noon is when servers are looked at.
var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func earlier(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(-d)) }

// goodServer is one with which nothing is wrong.
func goodServer() *serverStatus {
	recall := func(name string) *tandemv1.RecallStratum {
		return &tandemv1.RecallStratum{Name: name, Audits: 512, AuditsTotal: 9000, EnoughData: true, Recall: 0.9986, WorstDecile: 0.99, Reference: 0.9988, Low: 0.99, High: 0.9999, Floor: 0.9788}
	}
	return &serverStatus{
		Server: "a:1",
		Status: &tandemv1.GetStatusResponse{
			Phase: tandemv1.Phase_PHASE_SERVING, Generation: 3, TargetGeneration: 3, Hash: "aa", TargetHash: "aa", Since: earlier(time.Hour),
			MappedBytes: 1 << 30, MemoryLimit: 2 << 30, Staleness: durationpb.New(time.Second), LogState: tandemv1.LogState_LOG_STATE_FOLLOWED,
			Arms: []*tandemv1.ArmStatus{{
				Name: "control", Snapshot: "0123456789abcdef", Model: "feed", ModelVersion: "7", Weight: 1000, Apps: 2000, Users: 500, Published: earlier(2 * time.Hour),
				Recall: &tandemv1.ArmRecall{All: recall(""), Plans: []*tandemv1.RecallStratum{recall("graph_walk")}, Segments: []*tandemv1.RecallStratum{recall("teens")}},
			}},
			Load: &tandemv1.ServerLoad{
				Requests: 3, RequestsLimit: 128, RequestMemory: 1 << 20, RequestMemoryLimit: 64 << 20, Connections: 5, ConnectionsLimit: 4096,
				LastMinute: &tandemv1.RecentQueries{Answered: 3000, Refused: 30, Failed: 3, P50: durationpb.New(2 * time.Millisecond), P99: durationpb.New(9 * time.Millisecond), Window: durationpb.New(time.Minute)},
			},
			Cluster: &tandemv1.ClusterStatus{Replicas: 2, NodeCount: 2, ShardCount: 8, Nodes: []*tandemv1.ClusterNode{
				{Name: "b", Address: "b:1", Zone: "west", State: tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_READY, ReadyShards: 8},
				{Name: "c", Address: "c:1", Zone: "east", State: tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_READY, ReadyShards: 8, Position: &tandemv1.LivePosition{Sequence: 12}},
			}},
			Secrets:  &tandemv1.ServerSecrets{CertificateFrom: earlier(12 * time.Hour), CertificateUntil: earlier(-12 * time.Hour)},
			Failures: []*tandemv1.ServerFailure{{Time: earlier(time.Hour), Kind: tandemv1.FailureKind_FAILURE_KIND_RECORDING, Text: "it was full", Times: 2}},
		},
		Live: &tandemv1.GetLiveStatusResponse{
			Position: &tandemv1.LivePosition{Sequence: 12}, Staleness: durationpb.New(200 * time.Millisecond), Fence: durationpb.New(5 * time.Second),
			LogState: tandemv1.LogState_LOG_STATE_FOLLOWED, FreshBytes: 1 << 20, FreshBytesLimit: 1 << 30,
			Overlays: []*tandemv1.Overlay{{Snapshot: "0123456789abcdef", Apps: &tandemv1.OverlayTower{FreshRows: 10, FreshRowsLimit: 100}}},
		},
	}
}

var expected = expectations(judge.Usual)

// TestUsual holds that status expects what the console does, where it is told nothing else.
func TestUsual(t *testing.T) {
	var c cli
	k, err := kong.New(&c, vars())
	require.NoError(t, err)
	_, err = k.Parse([]string{"status"})
	require.NoError(t, err)
	require.Equal(t, expected, c.Status.expectations)
}

// TestJudge makes one thing bad after another, and holds that it alone is found, and that the
// runbook has an entry for it.
func TestJudge(t *testing.T) {
	page, err := os.ReadFile("../../docs/runbook.md")
	require.NoError(t, err)
	entries := anchors(string(page))
	for _, c := range []struct {
		alert string
		why   string
		bad   func(s *serverStatus)
	}{
		{"", "", func(*serverStatus) {}},
		{"TandemDown", "nobody listens", func(s *serverStatus) { s.Status, s.Error = nil, "nobody listens" }},
		{"TandemReleasesBroken", "another entry 3", func(s *serverStatus) {
			s.Status.Phase, s.Status.LogState, s.Status.LogError = tandemv1.Phase_PHASE_FAILED, tandemv1.LogState_LOG_STATE_FORKED, "another entry 3"
		}},
		{"TandemReleaseNotServed", "it does not serve generation 4: no room", func(s *serverStatus) {
			s.Status.Phase, s.Status.TargetGeneration, s.Status.Error = tandemv1.Phase_PHASE_FAILED, 4, "no room"
		}},
		{"TandemReleaseNotServed", "it does not serve generation 4 yet", func(s *serverStatus) {
			s.Status.Phase, s.Status.TargetGeneration = tandemv1.Phase_PHASE_LOADING, 4
		}},
		{"TandemNotReady", "it was told to stop", func(s *serverStatus) { s.Status.Phase = tandemv1.Phase_PHASE_DRAINING }},
		{"TandemNoRelease", "nothing was released yet", func(s *serverStatus) {
			s.Status.Phase, s.Status.Generation, s.Status.TargetGeneration, s.Status.Arms = tandemv1.Phase_PHASE_LOADING, 0, 0, nil
		}},
		{"TandemNoRelease", "whatever is released", func(s *serverStatus) { s.Status.Unreleased, s.Status.Generation = true, 0 }},
		{"TandemReleasesStale", "it has not seen for 2m0s what is released: no answer", func(s *serverStatus) {
			s.Status.Staleness, s.Status.LogState, s.Status.LogError = durationpb.New(2*time.Minute), tandemv1.LogState_LOG_STATE_UNREAD, "no answer"
		}},
		{"TandemShardsLost", "2 shards of arm control", func(s *serverStatus) { s.Status.Arms[0].UnreadableShards, s.Status.Error = 2, "apps-0 cannot be read" }},
		{"TandemRecallLow", "recall of arm control, segment teens is below its floor of 0.9788: it fell", func(s *serverStatus) {
			s.Status.Arms[0].Recall.Segments[0].Alarm = &tandemv1.RecallAlarm{Since: earlier(time.Minute), Onset: earlier(2 * time.Minute), Why: "it fell"}
		}},
		{"TandemNodeRecallLow", "what arm control, node b:1 finds is below the floor of 0.9788: it fell", func(s *serverStatus) {
			s.Status.Arms[0].Recall.Nodes = []*tandemv1.RecallStratum{{Name: "b:1", Floor: 0.9788, Alarm: &tandemv1.RecallAlarm{Why: "it fell"}}, {Name: "c:1", Floor: 0.9788}}
		}},
		{"TandemSnapshotOld", "is 72h0m0s old", func(s *serverStatus) { s.Status.Arms[0].Published = earlier(72 * time.Hour) }},
		{"TandemMemoryNearLimit", "1.9 GiB of 2.0 GiB are mapped", func(s *serverStatus) { s.Status.MappedBytes = 19 << 30 / 10 }},
		{"TandemLiveStale", "it does not say", func(s *serverStatus) { s.Live, s.live = nil, fleet.LiveAnswer{Err: errors.New("no answer within 5s")} }},
		{"TandemLiveStale", "it has not read the live log: no answer", func(s *serverStatus) { s.Live.Staleness, s.Live.LogError = nil, "no answer" }},
		{"TandemLiveStale", "ends is of an age that no clock tells, beyond the fence of 5.0s", func(s *serverStatus) { s.Live.Staleness = durationpb.New(-time.Second) }},
		{"TandemLiveStale", "6.0s old, beyond the fence of 5.0s: queries are refused", func(s *serverStatus) { s.Live.Staleness = durationpb.New(6 * time.Second) }},
		{"TandemLiveStale", "answers are marked as stale", func(s *serverStatus) {
			s.Live.Staleness, s.Live.AnswersStale = durationpb.New(6*time.Second), true
		}},
		{"TandemLiveNearFence", "3.0s old, and queries are refused from 5.0s on", func(s *serverStatus) { s.Live.Staleness = durationpb.New(3 * time.Second) }},
		{"TandemLiveBroken", "an entry is missing", func(s *serverStatus) {
			s.Live.LogState, s.Live.LogError = tandemv1.LogState_LOG_STATE_GAP, "an entry is missing"
		}},
		{"TandemFreshNearFull", "900.0 MiB of 1.0 GiB", func(s *serverStatus) { s.Live.FreshBytes = 900 << 20 }},
		{"TandemFreshNearFull", "81 of 100 apps", func(s *serverStatus) { s.Live.Overlays[0].Apps.FreshRows = 81 }},
		{"TandemMisfits", "2 app events", func(s *serverStatus) { s.Live.Overlays[0].Apps.MisfitCount = 2 }},
		{"TandemLatencyHigh", "took up to 101ms, want 100ms", func(s *serverStatus) { s.Status.Load.LastMinute.P99 = durationpb.New(101 * time.Millisecond) }},
		{"TandemLatencyHigh", "half of 58 queries of the last minute took more than 354ms, want 99 of 100 within 100ms", func(s *serverStatus) {
			s.Status.Load.LastMinute = &tandemv1.RecentQueries{Answered: 58, P50: durationpb.New(354 * time.Millisecond), P99: durationpb.New(3 * time.Second)}
		}},
		{"TandemOverloaded", "40 of 3,043 queries", func(s *serverStatus) { s.Status.Load.LastMinute.Refused = 40 }},
		{"TandemQuotaRefusals", "40 of 3,053 queries of the last minute were refused for the quotas", func(s *serverStatus) {
			s.Status.Load.LastMinute.Refused, s.Status.Load.LastMinute.RefusedForQuota = 50, 40
		}},
		{"TandemConnectionsNearLimit", "3,700 of 4,096 connections", func(s *serverStatus) { s.Status.Load.Connections = 3700 }},
		{"TandemSecretsStale", "it cannot use the tokens", func(s *serverStatus) { s.Status.Secrets.Stale = []string{"tokens"} }},
		{"TandemCertificateExpires", "ends at 2026-11-30T13:00:00Z", func(s *serverStatus) {
			s.Status.Secrets.CertificateUntil = earlier(-time.Hour)
		}},
		{"TandemRecallUnknown", "the recall of arm control is not known: 3 audits", func(s *serverStatus) {
			s.Status.Since, s.Status.Arms[0].Recall.All = earlier(61*time.Minute), &tandemv1.RecallStratum{Audits: 3}
		}},
		{"TandemRecallUnknown", "cannot be audited: no node audits apps shard 1", func(s *serverStatus) {
			s.Status.Arms[0].Recall = &tandemv1.ArmRecall{All: &tandemv1.RecallStratum{Audits: 3}, Failure: "no node audits apps shard 1"}
		}},
		{"TandemShardsUncovered", "no node is ready for 1 of 8 shards: users 2 of snapshot 0123456789ab has 0 (b:1: loading)", func(s *serverStatus) {
			s.Status.Cluster.ShortCount, s.Status.Cluster.UncoveredCount = 2, 1
			s.Status.Cluster.Short = []*tandemv1.ClusterShard{{Snapshot: "0123456789abcdef", Tower: tandemv1.Tower_TOWER_USERS, Number: 2, Why: "b:1: loading"}, {Snapshot: "0123456789abcdef", Ready: 1}}
		}},
		{"TandemShardsShort", "1 of 8 shards have fewer than 2 nodes ready: apps 0 of snapshot 0123456789ab has 1", func(s *serverStatus) {
			s.Status.Cluster.ShortCount = 1
			s.Status.Cluster.Short = []*tandemv1.ClusterShard{{Snapshot: "0123456789abcdef", Ready: 1}}
		}},
		{"TandemNodesOut", "b:1 cannot be asked: nobody listens; c:1 failed several times in a row, and is left alone", func(s *serverStatus) {
			s.Status.Cluster.Nodes[0].State, s.Status.Cluster.Nodes[0].Error = tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_LOST, "nobody listens"
			s.Status.Cluster.Nodes[1].State = tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_OUT
		}},
		{"TandemShardsShort", "--replicas of the router is 2, and of nodes another: c:1 3", func(s *serverStatus) {
			s.Status.Cluster.Nodes[0].Replicas, s.Status.Cluster.Nodes[1].Replicas = 2, 3
		}},
		{"TandemNodesBehind", "c:1 by 3.0s", func(s *serverStatus) { s.Status.Cluster.Nodes[1].Lag = durationpb.New(3 * time.Second) }},
		{"TandemMembersFailing", "no such file", func(s *serverStatus) { s.Status.Cluster.MembersError = "no such file" }},
		{"TandemErrors", "40 of 3,070 queries", func(s *serverStatus) { s.Status.Load.LastMinute.Failed = 40 }},
		{"TandemRecordsDropped", "it was full", func(s *serverStatus) { s.Status.Failures[0].Time = earlier(time.Minute) }},
		{"TandemReleaseNotServed", "it does not serve generation 8 yet: it waits for nodes", func(s *serverStatus) {
			s.Status.Phase, s.Status.TargetGeneration = tandemv1.Phase_PHASE_LOADING, 8
		}},
	} {
		s := goodServer()
		c.bad(s)
		s.Findings = expected.judge(s, noon)
		if c.alert == "" {
			require.Empty(t, s.Findings)
			continue
		}
		require.Len(t, s.Findings, 1, "%s: %v", c.alert, s.Findings)
		require.Equal(t, c.alert, s.Findings[0].Alert)
		require.Contains(t, s.Findings[0].Why, c.why)
		require.NotEmpty(t, s.Findings[0].Next)
		_, anchor, _ := strings.Cut(s.Findings[0].Runbook, "#")
		require.Contains(t, entries, anchor, "entries of docs/runbook.md")
		var out bytes.Buffer
		require.NoError(t, s.write(&out, noon))
		require.Contains(t, out.String(), "a:1  NOT GOOD: 1 thing\n")
	}
}

// That nodes are not ready says nothing against the snapshot.
func TestRouterWaitsForNodes(t *testing.T) {
	s := goodServer()
	s.Status.Phase, s.Status.TargetGeneration = tandemv1.Phase_PHASE_FAILED, 8
	s.Status.Error = "arm control, snapshot 0123456789ab: snapshot 0123456789ab: want 1 nodes ready for each shard: apps 0 of 4: 0 ready"
	findings := expected.judge(s, noon)
	require.Len(t, findings, 1)
	require.Equal(t, "TandemReleaseNotServed", findings[0].Alert)
	require.NotContains(t, findings[0].Next, "snapshot verify")
	require.Contains(t, findings[0].Next, "start those that are lost")
	s.Status.Cluster = nil
	require.Contains(t, expected.judge(s, noon)[0].Next, "snapshot verify")
}

// TestAlerts holds that status says what each alert says, and has no finding by the name of one
// that there is not: nothing of them is beyond what one server tells of itself.
func TestAlerts(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/rules.yml")
	require.NoError(t, err)
	names := func(pattern string, texts ...[]byte) (list []string) {
		for _, text := range texts {
			for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
				list = append(list, string(m[1]))
			}
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	judged, err := os.ReadFile("../../server/judge/judge.go")
	require.NoError(t, err)
	silence, err := os.ReadFile("status_silence.go")
	require.NoError(t, err)
	require.Equal(t, names(`(?m)^ +- alert: (\w+)$`, rules), names(`\bNew\("(Tandem\w+)"`, judged, silence))
}

// TestNext holds that what is to be done next leads on from what is known.
func TestNext(t *testing.T) {
	unserved := func(why string) func(*serverStatus) {
		return func(s *serverStatus) {
			s.Status.Phase, s.Status.TargetGeneration, s.Status.Error = tandemv1.Phase_PHASE_FAILED, 4, why
		}
	}
	const digest = "b27c5ab3d2041e6f88a1c2d3e4f5061728394a5b6c7d8e9f00112233445566aa"
	verify := []string{"tandem snapshot verify --store STORE b27c5ab3d204;", "tandem release rollback --store STORE --away-from b27c5ab3d204"}
	for _, c := range []struct {
		bad  func(s *serverStatus)
		want []string
	}{
		{unserved("arm control, snapshot b27c5ab3d204: open shard file store/shards/8d7f.shard: checksum is 1, want 2: corrupt"), verify},
		{unserved("store s3://b: snapshot " + digest + ": there is no such snapshot"), verify},
		{unserved("not admitted: it takes 3000 bytes beside the 1000 that answer, and 2000 may be mapped"), []string{"go by what it says"}},
		{func(s *serverStatus) { s.Status.Load.LastMinute.P99 = durationpb.New(time.Second) }, []string{"tandem_cpu_wait_seconds_total", "tandem_cpu_throttled_seconds_total", "tandem_query_stage_seconds"}},
		{func(s *serverStatus) { s.Status.Staleness = durationpb.New(time.Hour) }, []string{"--store-timeout 2s"}},
		{func(s *serverStatus) { s.Live.Staleness = durationpb.New(time.Hour) }, []string{"--store-timeout 2s"}},
	} {
		s := goodServer()
		c.bad(s)
		list := expected.judge(s, noon)
		require.Len(t, list, 1)
		for _, want := range c.want {
			require.Contains(t, list[0].Next, want, list[0].Why)
		}
	}
}

// TestFewQueries holds that a handful of queries is not judged by shares.
func TestFewQueries(t *testing.T) {
	s := goodServer()
	s.Status.Load.LastMinute = &tandemv1.RecentQueries{Answered: 13, Refused: 3, Failed: 3, P50: durationpb.New(time.Second), P99: durationpb.New(time.Second)}
	require.Empty(t, expected.judge(s, noon))
	s.Status.Load.LastMinute = &tandemv1.RecentQueries{Answered: 58, P50: durationpb.New(time.Millisecond), P99: durationpb.New(3 * time.Second)}
	require.Empty(t, expected.judge(s, noon), "one of them was slow")
}

// TestDifferences has servers that do not serve the same, with which nothing else is wrong.
func TestDifferences(t *testing.T) {
	a, b, c := goodServer(), goodServer(), goodServer()
	b.Server, c.Server, c.Status, c.Good = "b:1", "c:1", nil, false
	require.Empty(t, differences([]serverStatus{*a, *b, *c}), "who does not answer says nothing")
	b.Status.Generation, b.Status.Hash = 2, "bb"
	list := differences([]serverStatus{*a, *b, *c})
	require.Len(t, list, 1)
	require.Contains(t, list[0].Why, "generation 2 (bb) by b:1; generation 3 (aa) by a:1")

	a.Good, b.Good = true, true
	err := (&fleetStatus{Servers: []serverStatus{*a, *b}, Findings: list}).err()
	require.EqualError(t, err, "the servers do not serve the same")
	require.Equal(t, exitFailure, report(t.Context(), &bytes.Buffer{}, "tandem status", err))
	err = (&fleetStatus{Servers: []serverStatus{*a, *c}}).err()
	require.Equal(t, exitUnreachable, report(t.Context(), &bytes.Buffer{}, "tandem status", err))
	require.NoError(t, (&fleetStatus{Good: true, Servers: []serverStatus{*a}}).err())
}

// TestScreen holds what a person sees of one server.
func TestScreen(t *testing.T) {
	s := goodServer()
	s.Status.Arms[0].Recall.Plans[0].Alarm = &tandemv1.RecallAlarm{Why: "the mean is 0.91"}
	s.Status.Arms[0].Recall.Failure = "no node audits apps shard 1"
	s.Findings = expected.judge(s, noon)
	var out bytes.Buffer
	require.NoError(t, s.write(&out, noon))
	require.Equal(t, `a:1  NOT GOOD: 1 thing
  serves    generation 3 since 2026-11-30T11:00:00Z (1h0m0s ago), serving
  arm       control 1000 per mille, feed at 7, snapshot 0123456789ab, 2,000 apps, 500 users, published 2h0m0s ago, all shards
  recall    0.9986, for sure 0.9900 to 0.9999, worst tenth 0.9900, floor 0.9788, of 512 audits
            plan graph_walk: BELOW THE FLOOR: 0.9986, for sure 0.9900 to 0.9999, worst tenth 0.9900, floor 0.9788, of 512 audits
            not audited: no node audits apps shard 1
  shards    8, 0 with fewer than 2 nodes ready, 0 with none; asked at the newest position
  requests  beside one to each shard: 0 retried, 0 not for want of a budget, 0 hedged, 0 of them faster; nodes left alone 0 times
  nodes     b:1 b in west, ready, 8 shards ready, 0 B of 0 B mapped, 0 requests
            c:1 c in east, ready, 8 shards ready, position 12, 0 B of 0 B mapped, 0 requests
  latency   half within 2ms, 99 of 100 within 9ms, of 3,000 answered in the last 1m0s; 30 refused, 3 failed
  load      3 of 128 requests, 1.0 MiB of 64.0 MiB for them, 5 of 4,096 connections
  releases  seen 1.0s ago
  live log  position 12, proved 0.2s ago, fence 5.0s, 0 apps taken down, 1.0 MiB of 1.0 GiB upserted
  memory    1.0 GiB mapped, of 2.0 GiB, 0 snapshots kept for a rollback
  failures  2026-11-30T11:00:00Z (1h0m0s ago): recording: it was full (2 times)
! TandemRecallLow: recall of arm control, plan graph_walk is below its floor of 0.9788: the mean is 0.91
    next: tandem release rollback --store STORE --away-from 0123456789ab, if other arms are not as low (docs/runbook.md#tandemrecalllow)
`, out.String())
}
