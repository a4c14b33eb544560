// Package judge says what is not good with a server, why, and what to do next: for tandem status,
// which asks from outside, and for the console, which asks the server itself. A finding says what
// the alert of the same name says.
package judge

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/shard/wording"
)

// runbook is the page that says what to do, with a heading for each alert.
const runbook = "docs/runbook.md"

// Finding is something that is not good.
type Finding struct {
	// Alert is the alert of deploy/prometheus/rules.yml that says the same, or a name that does
	// not begin with Tandem where only who asks can see it.
	Alert   string `json:"alert"`
	Why     string `json:"why"`
	Next    string `json:"next"`    // what to do
	Runbook string `json:"runbook"` // where more is said
}

// New returns a finding, whose runbook entry has the name of its alert. The format and its args say why.
func New(alert, next, format string, args ...any) Finding {
	return Finding{alert, fmt.Sprintf(format, args...), next, runbook + "#" + strings.ToLower(alert)}
}

// The shares from which something is not good, as in deploy/prometheus/rules.yml.
const (
	nearFence   = 0.5 // of the fence, the staleness of the live log
	nearFull    = 0.8 // of the fresh tier
	nearMemory  = 0.9 // of what may be mapped
	nearCrowd   = 0.9 // of the connections
	fewLife     = 0.1 // of the life of a certificate
	manyRefused = 0.01
	manyFailed  = 0.01
	fewQueries  = 20  // of fewer in a minute shares say nothing,
	fewAnswered = 100 // and of fewer the median does, but not the 99th percentile
	// recordsLost is for how long queries that were not recorded are told of.
	recordsLost = 15 * time.Minute
	// recallKnown is for how long a release answers before its recall should be known.
	recallKnown = time.Hour
	// farBehind is for how long there may be a newer position of the live log than a node has.
	farBehind = 2 * time.Second
)

// Expectations are what is good, where that is not the server's to say.
type Expectations struct {
	MaxP99         time.Duration // of the queries of the last minute, what 99 of 100 may take
	MaxStaleness   time.Duration // how long ago the server may have seen last what is released
	MaxSnapshotAge time.Duration // how old what answers may be
}

// Usual is what is expected where nobody says anything else.
var Usual = Expectations{MaxP99: 100 * time.Millisecond, MaxStaleness: time.Minute, MaxSnapshotAge: 48 * time.Hour}

// Server is what a server has said of itself.
type Server struct {
	Status *tandemv1.GetStatusResponse
	// Live is what it knows of the live log; nil if it has not said, for the reason LiveError.
	Live      *tandemv1.GetLiveStatusResponse
	LiveError string
}

// Judge returns what is not good with a server, at a time.
func (x *Expectations) Judge(s *Server, now time.Time) (list []Finding) {
	list = append(list, judgeReleases(s.Status, x.MaxStaleness)...)
	for _, a := range s.Status.Arms {
		list = append(list, judgeArm(a, now, x.MaxSnapshotAge)...)
	}
	list = append(list, judgeUnknown(s.Status, now)...)
	list = append(list, judgeLive(s)...)
	if limit := s.Status.MemoryLimit; limit < math.MaxInt64 && float64(s.Status.MappedBytes) > nearMemory*float64(limit) {
		list = append(list, New("TandemMemoryNearLimit", "give the server more memory, or raise --memory-limit, before the next release",
			"%s of %s are mapped: a release that needs more is refused", wording.Bytes(int64(s.Status.MappedBytes)), wording.Bytes(int64(limit))))
	}
	list = append(list, judgeSecrets(s.Status.Secrets, now)...)
	list = append(list, judgeCluster(s.Status.Cluster)...)
	return append(list, x.judgeLoad(s.Status, now)...)
}

// judgeUnknown returns the arms whose recall should be known by now, and is not.
func judgeUnknown(s *tandemv1.GetStatusResponse, now time.Time) (list []Finding) {
	known := s.GetLoad().GetLastMinute().GetAnswered() >= fewQueries && s.Since != nil && now.Sub(s.Since.AsTime()) > recallKnown
	for _, a := range s.Arms {
		switch all := a.Recall.GetAll(); {
		case all == nil || all.EnoughData:
		case a.Recall.Failure != "":
			list = append(list, New("TandemRecallUnknown", "give all nodes an --audit-cpu above 0, and a build that audits; or mend what it says",
				"the recall of arm %s is not known, since its queries cannot be audited: %s", a.Name, a.Recall.Failure))
		case known:
			list = append(list, New("TandemRecallUnknown", "raise --audit-cpu, or look what becomes of audits: tandem_audits_total in the metrics",
				"the recall of arm %s is not known: %s of its queries say too little", a.Name, wording.Plural(int64(all.Audits), "audit")))
		}
	}
	return list
}

// judgeSecrets returns what is not good with files of tokens and certificates.
func judgeSecrets(s *tandemv1.ServerSecrets, now time.Time) (list []Finding) {
	for _, name := range s.GetStale() {
		list = append(list, New("TandemSecretsStale", "look in the server's log why, and put files in place that can be used",
			"it cannot use the %s that its files have now, and goes on with those from before", name))
	}
	if s.GetCertificateUntil() == nil {
		return list
	}
	from, until := s.CertificateFrom.AsTime(), s.CertificateUntil.AsTime()
	if left := until.Sub(now); float64(left) < fewLife*float64(until.Sub(from)) {
		list = append(list, New("TandemCertificateExpires", "put a new certificate and its key in place: the server reads them by itself",
			"its certificate ends at %s: once it has, no caller connects", until.Format(time.RFC3339)))
	}
	return list
}

// judgeCluster returns what is not good with the nodes of a router, nothing of other servers.
func judgeCluster(c *tandemv1.ClusterStatus) (list []Finding) {
	if c == nil {
		return nil
	}
	short := ShortShards(c, 1)
	switch {
	case c.UncoveredCount > 0:
		list = append(list, New("TandemShardsUncovered", "start the nodes that are gone, or look in their logs why they do not load: queries fail until then",
			"no node is ready for %d of %s: %s", c.UncoveredCount, wording.Plural(int64(c.ShardCount), "shard"), short))
	case c.ShortCount > 0:
		list = append(list, New("TandemShardsShort", "start the nodes that are gone, or add some: others load what is missing if they have the memory; with fewer nodes than --replicas there is nothing to load, and if none is gone, compare --replicas and names of all nodes",
			"%d of %s have fewer than %s ready: %s", c.ShortCount, wording.Plural(int64(c.ShardCount), "shard"), wording.Plural(int64(c.Replicas), "node"), short))
	}
	if c.MembersError != "" {
		list = append(list, New("TandemMembersFailing", "mend what --nodes names: those that are known are asked, and who starts now knows none",
			"who lists the nodes cannot be asked: %s", c.MembersError))
	}
	var out, behind, differ []string
	for _, n := range c.Nodes {
		if n.Replicas > 0 && n.Replicas != c.Replicas {
			differ = append(differ, fmt.Sprintf("%s %d", n.Address, n.Replicas))
		}
		switch n.State {
		case tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_LOST:
			out = append(out, n.Address+" cannot be asked"+Because(n.Error))
		case tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_OUT:
			out = append(out, n.Address+" failed several times in a row, and is left alone")
		}
		if n.Lag.AsDuration() > farBehind {
			behind = append(behind, fmt.Sprintf("%s by %s", n.Address, wording.Seconds(n.Lag.AsDuration())))
		}
	}
	if len(out) > 0 {
		list = append(list, New("TandemNodesOut", "go by what it says, as the runbook has it: whether the node runs, and its name, store, token and certificate; take it off --nodes if it is not to come back",
			"%s", few(out)))
	}
	if len(differ) > 0 {
		list = append(list, New("TandemShardsShort", "start them with the same --replicas: each loads what is to be its own by the number that it was told",
			"--replicas of the router is %d, and of nodes another: %s", c.Replicas, few(differ)))
	}
	if len(behind) > 0 {
		list = append(list, New("TandemNodesBehind", "look whether the store answers those nodes, and in their logs",
			"nodes have not read the live log as far as the router: %s", few(behind)))
	}
	return list
}

// judgeReleases returns what is not good with what serves.
func judgeReleases(s *tandemv1.GetStatusResponse, maxStaleness time.Duration) (list []Finding) {
	broken := s.LogState == tandemv1.LogState_LOG_STATE_FORKED || s.LogState == tandemv1.LogState_LOG_STATE_BEHIND || s.LogState == tandemv1.LogState_LOG_STATE_GAP
	switch {
	case broken:
		list = append(list, New("TandemReleasesBroken", "if the store was restored on purpose, release again with --restored; else find who has changed it",
			"it does not follow the log of releases: %s", s.LogError))
	case s.Phase == tandemv1.Phase_PHASE_FAILED:
		next := nextOfUnserved(s.Error)
		if s.Cluster != nil && strings.Contains(s.Error, notReady) {
			next = nextOfNotReady
		}
		list = append(list, New("TandemReleaseNotServed", next, "it does not serve generation %d: %s", s.TargetGeneration, s.Error))
	case s.Phase == tandemv1.Phase_PHASE_LOADING && s.TargetGeneration > 0 && s.Cluster != nil:
		list = append(list, New("TandemReleaseNotServed", nextOfNotReady, "it does not serve generation %d yet: it waits for nodes to be ready for each shard", s.TargetGeneration))
	case s.Phase == tandemv1.Phase_PHASE_LOADING && s.TargetGeneration > 0:
		list = append(list, New("TandemReleaseNotServed", "wait while it loads: tandem_snapshot_load_seconds in the metrics has what it took before", "it does not serve generation %d yet", s.TargetGeneration))
	case s.Phase == tandemv1.Phase_PHASE_DRAINING:
		list = append(list, New("TandemNotReady", "nothing, if it was told to stop", "it was told to stop, and takes no new callers"))
	case s.Unreleased:
		list = append(list, New("TandemNoRelease", "start it without a snapshot, so that it follows the releases",
			"it serves a snapshot whatever is released: nobody has asked what its gates have found"))
	case s.Generation == 0:
		list = append(list, New("TandemNoRelease", "tandem release start --store STORE DIGEST", "nothing was released yet"))
	}
	if age := fleet.Staleness(s.GetStaleness()); age > maxStaleness {
		list = append(list, New("TandemReleasesStale", "look whether the store answers: tandem release status --store STORE --store-timeout 2s",
			"it has not seen for %s what is released%s", wording.Seconds(age), Because(s.LogError)))
	}
	return list
}

// notReady is in the errors of a router that waited in vain, and nextOfNotReady what to do about it.
const (
	notReady       = "ready for each shard"
	nextOfNotReady = "wait up to 30s for --replicas nodes of each shard, then for one; if that goes on, look at nodes: start those that are lost; one with no shards follows another store, or is none of --nodes, as its log has it"
)

// namedSnapshot finds the snapshot that an error of a server is about.
var namedSnapshot = regexp.MustCompile(`snapshot ([0-9a-f]{12})[0-9a-f]*:`)

// nextOfUnserved is what to do about a release that a server cannot serve for some reason.
func nextOfUnserved(why string) string {
	m := namedSnapshot.FindStringSubmatch(why)
	if m == nil {
		return "go by what it says, as the runbook has it; the server tries again by itself"
	}
	return fmt.Sprintf("tandem snapshot verify --store STORE %s; if that finds something, repair it (--repair OTHER_STORE), or tandem release rollback --store STORE --away-from %s", m[1], m[1])
}

// Because is the text of an error behind what it is the reason of; empty if there is none.
func Because(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// judgeArm returns what is not good with a snapshot that answers.
func judgeArm(a *tandemv1.ArmStatus, now time.Time, maxAge time.Duration) (list []Finding) {
	if n := a.UnreadableShards; n > 0 {
		list = append(list, New("TandemShardsLost", fmt.Sprintf("tandem snapshot verify --store STORE %.12s --repair OTHER_STORE, or release another snapshot; the log has the file and the section", a.Snapshot),
			"%s of arm %s can no longer be read: queries fail, or lack its rows", wording.Plural(int(n), "shard"), a.Name))
	}
	for _, s := range Strata(a.Recall) {
		if s.Alarm != nil && s.Kind == "node" {
			list = append(list, New("TandemNodeRecallLow", "stop that node, and start it with an empty --cache; if all nodes are as low, it is the snapshot",
				"what %s finds is below the floor of %.4f: %s", ofStratum(a.Name, s), s.Floor, s.Alarm.Why))
		} else if s.Alarm != nil {
			list = append(list, New("TandemRecallLow", fmt.Sprintf("tandem release rollback --store STORE --away-from %.12s, if other arms are not as low", a.Snapshot),
				"recall of %s is below its floor of %.4f: %s", ofStratum(a.Name, s), s.Floor, s.Alarm.Why))
		}
	}
	if a.Published != nil {
		if age := now.Sub(a.Published.AsTime()); age > maxAge {
			list = append(list, New("TandemSnapshotOld", "look why no newer one was built or released: tandem snapshot ls --store STORE",
				"the snapshot of arm %s is %s old", a.Name, wording.Seconds(age)))
		}
	}
	return list
}

// Stratum is some queries of an arm, with which they are.
type Stratum struct {
	Kind string // "", "plan", "segment" or "node"
	*tandemv1.RecallStratum
}

// Strata are those of an arm that raise alarms, none if it is not audited.
func Strata(r *tandemv1.ArmRecall) (list []Stratum) {
	if r.GetAll() == nil {
		return nil
	}
	list = append(list, Stratum{"", r.All})
	for _, s := range r.Plans {
		list = append(list, Stratum{"plan", s})
	}
	for _, s := range r.Segments {
		list = append(list, Stratum{"segment", s})
	}
	for _, s := range r.Nodes {
		list = append(list, Stratum{"node", s})
	}
	return list
}

func ofStratum(arm string, s Stratum) string {
	text := "arm " + arm
	if s.Kind != "" {
		text += fmt.Sprintf(", %s %s", s.Kind, s.Name)
	}
	return text
}

// judgeLive returns what is not good with what a server knows of the live log.
func judgeLive(s *Server) (list []Finding) {
	l := s.Live
	if l == nil {
		return []Finding{New("TandemLiveStale", "tandem live status --server SERVER", "it does not say what it knows of the live log: %s", s.LiveError)}
	}
	next := "look whether the store answers, and how fast: tandem live status --store STORE --store-timeout 2s --server SERVER"
	age, fence := fleet.Staleness(l.GetStaleness()), l.Fence.AsDuration()
	switch broken := l.LogState == tandemv1.LogState_LOG_STATE_FORKED || l.LogState == tandemv1.LogState_LOG_STATE_BEHIND || l.LogState == tandemv1.LogState_LOG_STATE_GAP; {
	case broken:
		list = append(list, New("TandemLiveBroken", "if the store was restored on purpose, tandem live accept; see docs/live.md, After a restore",
			"it does not follow the live log: %s", l.LogError))
	case l.Staleness == nil:
		list = append(list, New("TandemLiveStale", next, "it has not read the live log%s", Because(l.LogError)))
	case age > fence:
		does := "queries are refused"
		if l.AnswersStale {
			does = "answers are marked as stale"
		}
		old := wording.Seconds(age) + " old"
		if age == math.MaxInt64 {
			old = "of an age that no clock tells"
		}
		list = append(list, New("TandemLiveStale", next, "its last proof of where the live log ends is %s, beyond the fence of %s: %s%s",
			old, wording.Seconds(fence), does, Because(l.LogError)))
	case age.Seconds() > nearFence*fence.Seconds():
		list = append(list, New("TandemLiveNearFence", next, "its last proof of where the live log ends is %s old, and queries are refused from %s on%s",
			wording.Seconds(age), wording.Seconds(fence), Because(l.LogError)))
	}
	return append(list, judgeFresh(l)...)
}

// judgeFresh returns what is not good with what was upserted: little room, or events that do
// not count.
func judgeFresh(l *tandemv1.GetLiveStatusResponse) (list []Finding) {
	next := "build with inputs that reflect the live log, and release: docs/live.md, Rebuild, and hand over"
	if limit := l.FreshBytesLimit; limit > 0 && float64(l.FreshBytes) > nearFull*float64(limit) {
		list = append(list, New("TandemFreshNearFull", next, "%s of %s are taken by what was upserted: more will be refused",
			wording.Bytes(int64(l.FreshBytes)), wording.Bytes(int64(limit))))
	}
	for _, o := range l.Overlays {
		for _, t := range []struct {
			name string
			*tandemv1.OverlayTower
		}{{"app", o.Apps}, {"user", o.Users}} {
			if t.GetFreshRowsLimit() > 0 && float64(t.GetFreshRows()) > nearFull*float64(t.GetFreshRowsLimit()) {
				list = append(list, New("TandemFreshNearFull", next, "%s of %s were upserted over snapshot %.12s: more will be refused",
					wording.Count(int64(t.GetFreshRows())), wording.Plural(int64(t.GetFreshRowsLimit()), t.name), o.Snapshot))
			}
			if n := t.GetMisfitCount(); n > 0 {
				list = append(list, New("TandemMisfits", "write them again as the snapshot has them; tandem live status --server SERVER names them",
					"%s of the live log do not fit snapshot %.12s, and do not count in it", wording.Plural(int64(n), t.name+" event"), o.Snapshot))
			}
		}
	}
	return list
}

// judgeLoad returns what is not good with what requests take, and with what becomes of them.
func (x *Expectations) judgeLoad(s *tandemv1.GetStatusResponse, now time.Time) (list []Finding) {
	q := s.GetLoad().GetLastMinute()
	all := float64(q.GetAnswered() + q.GetRefused() + q.GetFailed())
	list = append(list, x.judgeLatency(q)...)
	if shed := q.GetRefused() - q.GetRefusedForQuota(); all >= fewQueries && float64(shed) > manyRefused*all {
		list = append(list, New("TandemOverloaded", "look of what there is too much: tandem_shed_requests_total in the metrics, by reason",
			"%s of %s queries of the last minute were refused for load", wording.Count(int64(shed)), wording.Count(int64(all))))
	}
	if all >= fewQueries && float64(q.GetRefusedForQuota()) > manyRefused*all {
		list = append(list, New("TandemQuotaRefusals", "look in the server's log which callers, and tell who owns them; others are answered",
			"%s of %s queries of the last minute were refused for the quotas of their callers", wording.Count(int64(q.RefusedForQuota)), wording.Count(int64(all))))
	}
	if l := s.GetLoad(); float64(l.GetConnections()) > nearCrowd*float64(l.GetConnectionsLimit()) {
		list = append(list, New("TandemConnectionsNearLimit", "look which callers open so many: ss -tn; then raise --max-connections, or add servers",
			"%s of %s connections are open: more take the place of idle ones, or are refused", wording.Count(int64(l.Connections)), wording.Count(int64(l.ConnectionsLimit))))
	}
	if all >= fewQueries && float64(q.GetFailed()) > manyFailed*all {
		list = append(list, New("TandemErrors", "look at the codes in grpc_server_requests_total, and at the server's log",
			"%s of %s queries of the last minute failed", wording.Count(int64(q.Failed)), wording.Count(int64(all))))
	}
	for _, f := range s.Failures {
		if f.Kind == tandemv1.FailureKind_FAILURE_KIND_RECORDING && now.Sub(f.Time.AsTime()) < recordsLost {
			list = append(list, New("TandemRecordsDropped", "look whether the store takes writes, or lower --record-share", "%s", f.Text))
			break
		}
	}
	return list
}

// judgeLatency returns whether queries of the last minute were slow. A server that is starved
// answers few, of which half are told of.
func (x *Expectations) judgeLatency(q *tandemv1.RecentQueries) []Finding {
	why := ""
	switch p50, p99 := q.GetP50().AsDuration(), q.GetP99().AsDuration(); {
	case q.GetAnswered() >= fewAnswered && p99 > x.MaxP99:
		why = fmt.Sprintf("99 of 100 queries of the last minute took up to %s, want %s", wording.Round(p99), x.MaxP99)
	case q.GetAnswered() >= fewQueries && p50 > x.MaxP99:
		why = fmt.Sprintf("half of %s queries of the last minute took more than %s, want 99 of 100 within %s", wording.Count(int64(q.Answered)), wording.Round(p50), x.MaxP99)
	default:
		return nil
	}
	return []Finding{New("TandemLatencyHigh", "look in the metrics whether the machine is shared or throttled: tandem_cpu_wait_seconds_total, tandem_cpu_throttled_seconds_total; then which stage is slow: tandem_query_stage_seconds", "%s", why)}
}

// few is a list that is cut where it is long.
func few(list []string) string {
	const most = 3
	text := strings.Join(list[:min(len(list), most)], "; ")
	if more := len(list) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// ShortShards says which shards have too few nodes, up to most.
func ShortShards(c *tandemv1.ClusterStatus, most int) string {
	var texts []string
	for _, s := range c.Short[:min(len(c.Short), most)] {
		text := fmt.Sprintf("%s %d of snapshot %.12s has %d", towerText(s.Tower), s.Number, s.Snapshot, s.Ready)
		if s.Why != "" {
			text += " (" + s.Why + ")"
		}
		texts = append(texts, text)
	}
	if more := int(c.ShortCount) - len(texts); more > 0 && most > 1 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, ", ")
}

func towerText(t tandemv1.Tower) string {
	if t == tandemv1.Tower_TOWER_USERS {
		return "users"
	}
	return "apps"
}
