package events

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Log writes events to a log. Each request is told at debug level, those that fail at info
// level, or warn where there is too much to do, a few each second of them, as are slow
// queries, and what must not happen at error level. Nothing is told of what requests ask with, unless IDs says so.
type Log struct {
	Listener
	// IDs has the texts of all errors told, those too that name what a caller has sent. It is
	// set before anything happens. Default: of those the reason and the fields.
	IDs bool
	// Slow is how long a query may take until it is told how it was answered; 0 is for ever. It
	// is set before anything happens.
	Slow time.Duration

	logger      *slog.Logger
	requests    sample // that failed
	connections sample // likewise
	slow        sample // queries
}

// NewLog returns what writes events to a log.
func NewLog(logger *slog.Logger) *Log {
	l := &Log{logger: logger}
	l.Listener = Listener{
		Listening:      func(a net.Addr) { logger.Info("listening", "address", a.String()) },
		AdminListening: func(a net.Addr) { logger.Info("listening for admin", "address", a.String()) },
		Console:        func(url string) { logger.Info("console", "url", url) },
		MemoryLimit:    l.memoryLimit,
		Unreleased:     l.unreleased,
		LoadBegin:      l.loadBegin,
		Switched:       l.switched,
		NotServed: func(e NotServed) {
			logger.Error("release is not served", "generation", e.Generation, "error", e.Err, "retry", e.Retry)
		},
		ArmKept: func(e Load) {
			logger.Error("arm goes on without shards that cannot be read", "generation", e.Generation, "arm", e.Arm, "error", e.Err)
		},
		Closing: func(d manifest.Digest) { logger.Info("closing", "snapshot", d.Short()) },
		Closed: func(e Closed) {
			if e.Err != nil {
				logger.Error("close snapshot", "snapshot", e.Snapshot, "error", e.Err)
			}
		},
		ShardLost: func(e ShardLost) {
			logger.Error("shard no longer answers", "snapshot", e.Snapshot, "shard", e.Shard, "error", e.Err)
		},
		Releases:     l.releases,
		Live:         l.live,
		RequestEnd:   l.requestEnd,
		AdminRefused: l.requestEnd,
		Connections:  l.changed,
		ConnectionFailed: func(text string) {
			if leftOut, ok := l.connections.take(time.Now()); ok {
				logger.Warn("connection failed", withLeftOut([]any{"error", text}, leftOut)...)
			}
		},
		Recording: l.recording,
		Outcomes: func(e Outcomes) {
			if e.Err != nil {
				logger.Warn("outcomes could not be kept for sure: their senders are to send them again", "outcomes", e.Outcomes, "object", e.Object, "took", e.Took, "error", e.Err)
				return
			}
			logger.Debug("kept outcomes", "outcomes", e.Outcomes, "object", e.Object, "bytes", e.Bytes, "took", e.Took, "forgotten", e.Forgotten)
		},
		Secrets: func(e Secrets) {
			switch {
			case e.Err != nil:
				logger.Error("CHANGED FILES CANNOT BE USED: what was read before stays in use", "files", e.Name, "error", e.Err)
			case e.Name == "tokens":
				logger.Info("changed files are in use", "files", e.Name, "tokens_before", e.Before, "tokens", e.After)
			default:
				logger.Info("changed files are in use", "files", e.Name)
			}
		},
		Recall:   l.recall,
		Nodes:    l.nodes,
		Traced:   l.traced,
		Answered: l.answered,
		Held:     l.held,
		Draining: func(e Draining) { logger.Info("draining", "delay", e.Delay, "timeout", e.Timeout) },
	}
	return l
}

func (l *Log) memoryLimit(e MemoryLimit) {
	if e.Err != nil {
		l.logger.Warn("memory limit is not known for sure", "error", e.Err)
	}
	switch {
	case e.Bytes == math.MaxInt64:
		l.logger.Warn("no memory limit", "from", e.From)
	case e.Of == 0:
		l.logger.Info("memory limit", "bytes", e.Bytes, "from", e.From)
	default:
		l.logger.Info("memory limit", "bytes", e.Bytes, "of", e.Of, "from", e.From)
	}
}

func (l *Log) unreleased(e Unreleased) {
	if e.Unprotected != nil {
		l.logger.Warn("what is served may be collected", "snapshot", e.Snapshot.Short(), "error", e.Unprotected)
	}
	l.logger.Warn("SERVING A SNAPSHOT WHATEVER IS RELEASED: nobody asks what its gates have found, and no release takes its place",
		"snapshot", e.Snapshot.Short())
}

func (l *Log) loadBegin(e Load) {
	if e.Arm == "" {
		return // of one without a release it says what it serves
	}
	l.logger.Info("loading", "generation", e.Generation, "arm", e.Arm, "snapshot", e.Snapshot.Short(),
		"model_version", e.ModelVersion, "bytes", e.Bytes)
}

func (l *Log) switched(e Switch) {
	took := e.Took.Round(time.Microsecond)
	if m := e.Snapshot; m != nil {
		l.logger.Info("ready", "model", m.Model, "model_version", m.ModelVersion, "snapshot", e.Arms[0].Snapshot.Short(),
			"apps", m.Apps.Rows, "app_shards", len(m.Apps.Shards), "users", m.Users.Rows, "user_shards", len(m.Users.Shards),
			"load_time", took)
		return
	}
	var arms []string
	for _, a := range e.Arms {
		arms = append(arms, fmt.Sprintf("%s %d %s", a.Name, a.Weight, a.Snapshot.Short()))
	}
	l.logger.Info("serving", "generation", e.Generation, "kind", e.Kind, "author", e.Author, "arms", strings.Join(arms, ", "),
		"opened", e.Opened, "load_time", took)
}

func (l *Log) releases(e Releases) {
	switch e.Change {
	case Unreadable:
		l.logger.Warn("releases cannot be read; what answers goes on", "error", e.Err)
	case Readable:
		l.logger.Info("releases can be read again")
	case Broken:
		l.logger.Error("the log of releases is not the one that was followed; what answers goes on", "error", e.Err)
	case Mended:
		l.logger.Info("the log of releases is followed again")
	case Restored:
		l.logger.Warn("a restored log of releases was accepted", "generation", e.Generation, "was", e.Err)
	case EntryUnreadable:
		l.logger.Error("read releases", "error", e.Err)
	case Unfollowed:
		l.logger.Error("releases are no longer followed", "error", e.Err)
	case Stale:
		attrs := []any{"staleness", e.Staleness.Round(time.Second)}
		if e.Err != nil {
			attrs = append(attrs, "error", e.Err)
		}
		l.logger.Warn("what is released was not seen for long", attrs...)
	case Seen:
		l.logger.Info("what is released is seen again", "staleness_was", e.Staleness.Round(time.Second))
	}
}

func (l *Log) live(e Live) {
	position := []any{"sequence", e.Sequence}
	if e.Log != "" {
		position = append(position, "log", e.Log)
	}
	over := withNames([]any{"snapshot", e.Snapshot.Short()}, "shard", e.Shard)
	switch e.Change {
	case LiveRead:
		position = append(position, "load_time", e.Took.Round(time.Microsecond))
		switch {
		case e.NoTimeTravel != "":
			l.logger.Info("live log is read", append(position, "no_older_copy_by", e.NoTimeTravel)...)
		case e.Sequence == 0:
			l.logger.Info("live log is read, and is empty", position...)
		default:
			l.logger.Warn("live log is read, and nothing tells that it is no older copy", position...)
		}
	case LiveNotRead:
		l.logger.Error("live log cannot be read; nothing is served before it is", "error", e.Err, "retry", e.Retry)
	case LiveUnreadable:
		l.logger.Warn("live log cannot be read; what answers grows stale", "error", e.Err)
	case LiveReadable:
		l.logger.Info("live log can be read again")
	case LiveBroken:
		l.logger.Error("the live log is not the one that was followed; what answers grows stale", "error", e.Err)
	case LiveMended:
		l.logger.Info("the live log is followed again")
	case LiveAccepted:
		l.logger.Warn("a restored live log was accepted", position...)
	case LiveUnfollowed:
		l.logger.Error("the live log is no longer followed", "error", e.Err)
	case LivePast:
		text := "beyond the fence: answers are flagged as stale"
		switch {
		case e.Unfenced:
			text = "beyond the fence: routers ask other nodes"
		case e.Refused:
			text = "beyond the fence: queries are refused"
		}
		args := []any{"staleness", e.Staleness.Round(time.Millisecond)}
		if e.Err != nil {
			args = append(args, "error", e.Err)
		}
		l.logger.Warn(text, args...)
	case LiveWithin:
		l.logger.Info("within the fence again", "staleness_was", e.Staleness.Round(time.Millisecond))
	case LiveCheckpoint:
		if e.Err != nil {
			l.logger.Warn("live log could not be summed up", "error", e.Err)
		} else {
			l.logger.Info("live log is summed up", append(position, "bytes", e.Bytes, "took", e.Took.Round(time.Millisecond))...)
		}
	case LiveNotLaid:
		l.logger.Error("live log cannot be laid over a snapshot, which grows stale", append(over, "error", e.Err)...)
	case LiveLaid:
		l.logger.Info("live log is laid over a snapshot again", over...)
	case LiveMisfits:
		l.logger.Warn("live events do not fit a snapshot, and do not count in it", append(over, "misfits", e.Misfits, "first", e.Misfit)...)
	case LivePassed:
		l.logger.Error("a checkpoint of the live log is damaged and was passed over; its entries were read, and the next takes its place", "error", e.Err)
	case LiveFull:
		l.logger.Error("upserts are refused for want of room: a rebuild is due", "error", e.Err)
	}
}

func (l *Log) requestEnd(e Request) {
	ctx, text := context.Background(), "request failed"
	var level slog.Level
	switch {
	case e.Err == nil:
		level, text = slog.LevelDebug, "request"
	case e.Cause != nil:
		level = slog.LevelError
	case e.Overload:
		level = slog.LevelWarn
	default:
		level = slog.LevelInfo
	}
	leftOut, ok := l.mayTell(ctx, level)
	if !ok {
		return
	}
	args := []any{"procedure", e.Procedure, "request_id", e.ID, "code", e.Code, "duration", e.Duration}
	args = withNames(args, "caller", e.Caller, "trace_id", e.Trace, "arm", e.Arm)
	if e.Peer != "" {
		args = append(args, "peer", e.Peer, "protocol", e.Protocol, "http", e.HTTP, "bytes", e.Bytes)
		if e.Length > 0 {
			args = append(args, "content_length", e.Length)
		}
	}
	switch {
	case e.Cause != nil:
		args = append(args, "error", e.Cause)
	case e.Err != nil && l.IDs:
		args = append(args, "error", e.Err)
	case e.Err != nil:
		args = append(args, tellable(e.Err)...)
	}
	l.logger.Log(ctx, level, text, withLeftOut(args, leftOut)...)
}

// withNames adds those names to the attributes of a line that are known.
func withNames(args []any, names ...string) []any {
	for i := 0; i < len(names); i += 2 {
		if names[i+1] != "" {
			args = append(args, names[i], names[i+1])
		}
	}
	return args
}

// mayTell reports whether the log is to tell of one more request, and how many it has left
// out before. What is the server's fault is told always, else only as much as does not flood
// the log, unless every request is to be told.
func (l *Log) mayTell(ctx context.Context, level slog.Level) (leftOut int, ok bool) {
	switch {
	case !l.logger.Enabled(ctx, level):
		return 0, false
	case level == slog.LevelError || l.logger.Enabled(ctx, slog.LevelDebug):
		return 0, true
	}
	return l.requests.take(time.Now())
}

func (l *Log) changed(e Connections) {
	switch e.Change {
	case Refused:
		l.logger.Warn("connections were refused: as many as are accepted are open, and none is idle", "accepted", e.Most, "refused", e.N)
	case Flooded:
		l.logger.Warn("connections are closed: their "+e.Err.Error(), "closed", e.N)
	}
}

func (l *Log) recording(e Recording) {
	switch e.Change {
	case Written:
		l.logger.Debug("recorded queries", "queries", e.Queries, "object", e.Object, "bytes", e.Bytes)
	case Late:
		l.logger.Warn("recorded queries could not be written yet", "queries", e.Queries, "object", e.Object, "error", e.Err)
	case Dropped:
		l.logger.Warn("queries to record were dropped: they came faster than they could be written", "queries", e.Queries)
	case Lost:
		switch {
		case e.RequestID != "":
			l.logger.Error("a query was not recorded", "request_id", e.RequestID, "error", e.Err)
		case e.Err != nil:
			l.logger.Error("recorded queries were lost", "queries", e.Queries, "error", e.Err)
		default:
			l.logger.Error("recorded queries were lost", "queries", e.Queries)
		}
	}
}

func (l *Log) nodes(e Nodes) {
	args := withNames([]any{"address", e.Address}, "node", e.Node)
	switch e.Change {
	case NodeWatched:
		l.logger.Info("a node says what it has", args...)
	case NodeLost:
		l.logger.Warn("a node cannot be watched, and is not asked until it can", append(args, "error", e.Err)...)
	case NodeEjected:
		l.logger.Warn("a node failed several times in a row, and is left alone until it answers", append(args, "error", e.Err)...)
	case NodeBack:
		l.logger.Info("a node that was left alone is asked again", args...)
	case MembersFailed:
		l.logger.Warn("who lists the nodes cannot be asked; those that are known stay", "error", e.Err)
	case MembersBack:
		l.logger.Info("who lists the nodes can be asked again")
	}
}

func (l *Log) recall(e Recall) {
	args := []any{"generation", e.Generation, "arm", e.Arm, "snapshot", e.Snapshot.Short()}
	if e.Stratum != "" {
		args = append(args, "queries", e.Stratum)
	}
	if e.Name != "" {
		args = append(args, "name", e.Name)
	}
	switch e.Change {
	case RecallAlarm:
		l.logger.Error("recall of live queries is below its floor", append(args,
			"recall", rounded(e.Recall), "below", rounded(e.High), "floor", rounded(e.Floor), "worst_decile", rounded(e.WorstDecile),
			"audits", e.Audits, "since", e.Onset.UTC().Format(time.RFC3339))...)
	case RecallCleared:
		l.logger.Info("recall of live queries is above its floor again", args...)
	case RecallRolledBack:
		l.logger.Error("a snapshot was taken off traffic for its recall", append(args, "back_to", e.To)...)
	case RecallUnaudited:
		l.logger.Warn("live queries cannot be audited: their recall is not known", append(args, "error", e.Err)...)
	case RecallKept:
		l.logger.Error("a snapshot is not taken off traffic for its recall, as its release says", append(args, "error", e.Err)...)
	}
}

// traced tells when spans begin to be lost, and when they are sent again.
func (l *Log) traced(e Traced) {
	switch {
	case !e.Turned:
	case e.Outcome == SpansFailed:
		l.logger.Warn("traces cannot be sent", "error", e.Err)
	case e.Outcome == SpansDropped:
		l.logger.Warn("traces are dropped: they come faster than they are sent")
	case e.Outcome == SpansSent:
		l.logger.Info("traces are sent again", "lost_spans", e.Lost)
	}
}

// held tells what becomes of the shards of a node.
func (l *Log) held(e Held) {
	var args []any
	if e.Snapshot != "" {
		args = append(args, "snapshot", e.Snapshot.Short())
	}
	args = withNames(args, "shard", e.Shard)
	switch e.Change {
	case HeldReady:
		l.logger.Info("shard is loaded", append(args, "bytes", e.Bytes, "load_time", e.Took.Round(time.Microsecond))...)
	case HeldNot:
		l.logger.Error("shards are not loaded", append(args, "error", e.Err, "retry", e.Retry)...)
	case HeldLetGo:
		l.logger.Info("shard is let go of", append(args, "bytes", e.Bytes)...)
	case HeldShort:
		l.logger.Warn("shards are to be on fewer nodes than they should", "shards", e.Shards, "first", e.Err)
	case HeldAll:
		l.logger.Info("all shards are loaded", "generation", e.Generation, "shards", e.Shards, "bytes", e.Bytes)
	case HeldNoMember:
		l.logger.Warn("this node is none of the members, and is to hold nothing: it is not in --nodes, or there by another name",
			"node", e.Node, "error", e.Err)
	case HeldAway:
		l.logger.Info("members are not listed any more: others load what they hold unless they are back in time",
			"nodes", e.Nodes, "first", e.Node, "wait", e.Retry)
	}
}

// rounded returns a share as a person would write it.
func rounded(share float64) float64 { return math.Round(share*1e4) / 1e4 }

// withLeftOut adds how many lines were left out to the attributes of one.
func withLeftOut(args []any, leftOut int) []any {
	if leftOut > 0 {
		return append(args, "left_out", leftOut)
	}
	return args
}

// TellLeftOut tells of what the log has left out since it has told of a failure last.
func (l *Log) TellLeftOut() {
	if n := l.requests.rest(); n > 0 {
		l.logger.Info("requests failed that the log left out", "left_out", n)
	}
	if n := l.slow.rest(); n > 0 {
		l.logger.Info("queries were slow that the log left out", "left_out", n)
	}
	if n := l.connections.rest(); n > 0 {
		l.logger.Warn("connections failed that the log left out", "left_out", n)
	}
}

// How many failures of one kind, or slow queries, a [Log] tells of at once, and each second from then on.
const (
	FailuresAtOnce    = 100
	FailuresPerSecond = 10
)

// sample decides which failures of a kind the log tells of, and counts the others: the next
// that it tells of says how many were left out before it. The zero value is ready.
type sample struct {
	mu      sync.Mutex
	used    float64 // of FailuresAtOnce
	last    time.Time
	leftOut int
}

// take reports whether the log tells of one more, and how many were left out before it.
func (s *sample) take(now time.Time) (leftOut int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = max(s.used-max(now.Sub(s.last), 0).Seconds()*FailuresPerSecond, 0)
	s.last = now
	if s.used > FailuresAtOnce-1 {
		s.leftOut++
		return 0, false
	}
	s.used++
	leftOut, s.leftOut = s.leftOut, 0
	return leftOut, true
}

// rest returns how many were left out since the last that the log told of.
func (s *sample) rest() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.leftOut
	s.leftOut = 0
	return n
}
