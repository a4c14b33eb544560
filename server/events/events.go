package events

import (
	"net"
	"time"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Listener is told of events. A function is called where and when the event happens, by
// any number of goroutines at a time, some of them in the midst of a request: it must not
// wait, and must not call the server. It is not to keep what it is given but values. A nil
// function is not called.
type Listener struct {
	// Listening is called when health can be asked, and AdminListening when those who operate
	// the server can ask.
	Listening, AdminListening func(net.Addr)
	// Console is called with the address of the console, once it can be opened.
	Console func(url string)
	// MemoryLimit is called once it is known how much may be mapped.
	MemoryLimit func(MemoryLimit)
	// Unreleased is called when a snapshot is to be served that no release does.
	Unreleased func(Unreleased)
	// LoadBegin is called before a snapshot is opened, and LoadEnd when it can answer, or
	// is known not to.
	LoadBegin, LoadEnd func(Load)
	// Switched is called when something else answers than before.
	Switched func(Switch)
	// NotServed is called when a release cannot be served; what answered goes on.
	NotServed func(NotServed)
	// ArmKept is called when an arm goes on with a snapshot of which shards are lost, since
	// opening it again failed.
	ArmKept func(Load)
	// Closing is called when a snapshot is no longer held open, but by requests on it, and
	// Closed when the last of those has ended.
	Closing func(manifest.Digest)
	Closed  func(Closed)
	// ShardLost is called once for each shard that can no longer be read while it answers.
	ShardLost func(ShardLost)
	// Releases is called when what is known of the log of releases changes.
	Releases func(Releases)
	// Live is called when what is known of the live log changes, or what is laid over
	// snapshots.
	Live func(Live)
	// Arms is called before what answers changes, with what is to answer, and once more, Done,
	// when nothing else does.
	Arms func(Arms)
	// RPCBegin is called with the path of each request that is meant for a method, whatever
	// that is, and RPCEnd once for each of them, however it ends. A batch is one.
	RPCBegin func(procedure string)
	RPCEnd   func(RPC)
	// Answered is called for each query that was answered, and each item of a batch that was,
	// when the answer is encoded; not for those whose answer did not pass the fence.
	Answered func(*Answer)
	// NotFound is called for each query by an id that its tower does not have and that has no
	// fallback.
	NotFound func(NotFound)
	// RequestEnd is called at the end of each request, and of each item of a batch.
	RequestEnd func(Request)
	// AdminRefused is called for each request that the listener for those who operate the
	// server refuses since nobody knows its caller, or who may not, or was meant for another host.
	AdminRefused func(Request)
	// Connections is called for what becomes of connections, some of them together.
	Connections func(Connections)
	// ConnectionFailed is called with what net/http says is wrong with a connection.
	ConnectionFailed func(text string)
	// Recording is called for what becomes of queries that are recorded.
	Recording func(Recording)
	// Outcomes is called for what becomes of outcomes that were to be kept.
	Outcomes func(Outcomes)
	// Secrets is called when files of tokens or certificates have changed.
	Secrets func(Secrets)
	// Recall is called when the recall of live queries is found to be below its floor, or no
	// more, and for what becomes of rollbacks because of that.
	Recall func(Recall)
	// Nodes is called when a router's knowledge of nodes, or of who lists them, changes.
	Nodes func(Nodes)
	// Traced is called for what becomes of traces of requests.
	Traced func(Traced)
	// Held is called for what becomes of the shards of a node of a cluster.
	Held func(Held)
	// Draining is called when the server is told to stop.
	Draining func(Draining)
}

// MemoryLimit is how many bytes may be mapped.
type MemoryLimit struct {
	Bytes int64  // [math.MaxInt64] if there is no limit
	Of    int64  // bytes of memory that it is a share of; 0 if it was given
	From  string // where that is known from
	Err   error  // why it is not known for sure; nil if it is
}

// Unreleased is a snapshot that is served by its name.
type Unreleased struct {
	Snapshot manifest.Digest
	// Unprotected is why it may be collected meanwhile; nil if it may not.
	Unprotected error
}

// Load is a snapshot that is opened.
type Load struct {
	Generation   uint64 // of the release; 0 without
	Arm          string // "" without a release
	Snapshot     manifest.Digest
	Model        string
	ModelVersion string
	Bytes        int64 // of its files
	// Took is how long opening and warming took, and Err why it cannot answer; of
	// LoadEnd.
	Took time.Duration
	Err  error
}

// Switch says what answers from now on.
type Switch struct {
	Generation   uint64 // of the release; 0 without
	Kind, Author string // of the release
	Arms         []Arm
	Opened       int           // snapshots that were opened for it
	Took         time.Duration // since its loading began
	// Snapshot describes what answers without a release.
	Snapshot *manifest.Manifest
}

// Arm is one snapshot that answers.
type Arm struct {
	Name     string
	Weight   int // of 1,000
	Snapshot manifest.Digest
}

// NotServed is a release that cannot be served.
type NotServed struct {
	Generation uint64
	Err        error
	Retry      time.Duration // when it is tried again
}

// Closed is a snapshot whose files are closed.
type Closed struct {
	Snapshot manifest.Digest
	Err      error
}

// ShardLost is a shard that can no longer be read.
type ShardLost struct {
	Snapshot manifest.Digest
	Shard    string
	Err      error
}

// ReleasesChange is what has changed in what is known of the log of releases.
type ReleasesChange uint8

// The changes.
const (
	Unreadable      ReleasesChange = iota + 1 // the store does not answer
	Readable                                  // it does again
	Broken                                    // the log is not the one that was followed
	Mended                                    // it is again
	Restored                                  // a person has accepted one that was restored; Err says what it was
	EntryUnreadable                           // the newest entry is no release
	Unfollowed                                // nobody follows it any more, because of a mistake of ours
	Stale                                     // it was not seen for long
	Seen                                      // it is seen again
)

// Releases says what has changed in what is known of the log of releases.
type Releases struct {
	Change     ReleasesChange
	Err        error
	Generation uint64        // of Restored
	Staleness  time.Duration // now, or before it was seen
}

// LiveChange is what has changed in what is known of the live log, or in what is laid over
// snapshots.
type LiveChange uint8

// The changes.
const (
	LiveRead       LiveChange = iota + 1 // it was read to its end, for the first time
	LiveNotRead                          // it could not be, and nothing is served before it is
	LiveUnreadable                       // the store does not answer
	LiveReadable                         // it does again
	LiveBroken                           // the log is not the one that was followed
	LiveMended                           // it is again
	LiveAccepted                         // a person has accepted one that was restored
	LiveUnfollowed                       // nobody follows it any more, because of a mistake of ours
	LivePast                             // the last proof of its end is older than the fence
	LiveWithin                           // it is not any more
	LiveCheckpoint                       // it was summed up, or could not be
	LiveNotLaid                          // an entry could not be laid over a snapshot
	LiveLaid                             // it is now
	LiveMisfits                          // more of it does not fit a snapshot, and does not count there
	LiveFull                             // there is no room for what was to be upserted
	LivePassed                           // a checkpoint is damaged, and entries were read in its place
)

// Live says what has changed in what is known of the live log, or in what is laid over
// snapshots.
type Live struct {
	Change   LiveChange
	Log      string // the position that was read, accepted or summed up
	Sequence uint64
	Err      error         // why; nil if there is no more to say
	Took     time.Duration // of LiveRead and LiveCheckpoint
	Bytes    int           // of LiveCheckpoint
	Retry    time.Duration // when it is tried again, of LiveNotRead
	// Staleness is the age of the proof, of LivePast; of LiveWithin what it was at most.
	Staleness time.Duration
	Refused   bool // whether answers are refused, of LivePast; else they are flagged
	Unfenced  bool // or, of a node, routers ask others, of LivePast
	// NoTimeTravel is by what it is known that the log is no older copy, of LiveRead; empty
	// for nothing.
	NoTimeTravel string
	Snapshot     manifest.Digest // of LiveNotLaid, LiveLaid and LiveMisfits
	Shard        string          // of the same, where it is laid over a shard by itself
	Misfits      int             // how many there are
	Misfit       string          // the first
}

// Request is a request that has ended.
type Request struct {
	Procedure string
	ID        string
	Code      string // of Connect; "ok" without an error
	Duration  time.Duration
	// Err is what its caller is told; nil if it did not fail.
	Err error
	// Cause is more than the caller is told, and set if the server is at fault.
	Cause error
	// Overload is whether it was refused because there is too much to do, or because its caller
	// has taken its quota, and Shed what there is too much of, if that was found before it was
	// worked on.
	Overload bool
	Shed     Shed

	// Caller is who has sent it, by its token or its certificate; empty where that is not
	// asked, or not known.
	Caller string
	// Trace is the id of the trace that it belongs to, whether or not that is told; empty for
	// none. Arm is what answered it, or would have; empty where that is not known.
	Trace, Arm string

	// What follows is empty for an item of a batch that is not of an exchange by HTTP.
	Peer     string // its address
	Protocol string // connect, grpc or grpcweb
	HTTP     string // HTTP/1.1 or HTTP/2.0
	Bytes    int64  // that arrived of its body
	Length   int64  // bytes that its body was to have, if not all has arrived; else 0
}

// ConnectionsChange is what became of connections.
type ConnectionsChange uint8

// The changes.
const (
	Refused ConnectionsChange = iota + 1 // as many as are accepted are open, and none is idle
	Flooded                              // closed, for floods of frames
)

// Connections says what became of connections since it was told last.
type Connections struct {
	Change ConnectionsChange
	N      int
	Most   int   // that are accepted, of Refused
	Err    error // of Flooded
}

// RecordingChange is what became of queries that were to be recorded.
type RecordingChange uint8

// The changes.
const (
	Written RecordingChange = iota + 1
	Late                    // they could not be written yet
	Dropped                 // they came faster than they could be written
	Lost
)

// Recording says what became of queries that were to be recorded.
type Recording struct {
	Change    RecordingChange
	Queries   int
	Object    string // of Written and Late
	Bytes     int    // of Written
	RequestID string // of one that was lost by itself
	Err       error
}

// Outcomes says what became of outcomes that were to be kept, of some calls together.
type Outcomes struct {
	Outcomes int    // that were to be written
	Object   string // that has them; empty if there were none
	Bytes    int    // of it
	Took     time.Duration
	// Err is why it is not known whether they are in the store; nil if they are.
	Err error
	// Forgotten is how many others there were, of users who are forgotten, which are not kept.
	Forgotten int
}

// Secrets says what became of files that have changed.
type Secrets struct {
	Name string // "tokens" or "certificates"
	Err  error  // why they cannot be used; what was in use stays
	// Before and After are how many tokens there were and are, if Name is tokens.
	Before, After int
}

// NodesChange is what a router has found out about nodes.
type NodesChange uint8

// The changes.
const (
	NodeWatched   NodesChange = iota + 1 // it says what it has
	NodeLost                             // it does not any more, or could never be asked; Err says why
	NodeEjected                          // it failed several times in a row, and is left alone
	NodeBack                             // it is asked again
	MembersFailed                        // who lists the nodes cannot be asked; those known stay
	MembersBack                          // it can be again
)

// Nodes says what a router has found out about a node, or about who lists them.
type Nodes struct {
	Change  NodesChange
	Node    string // its name, where that is known
	Address string // of its shard RPC
	Err     error
}

// RecallChange is what has become of the recall of live queries.
type RecallChange uint8

// The changes.
const (
	RecallAlarm      RecallChange = iota + 1 // it is below its floor
	RecallCleared                            // it is not any more
	RecallRolledBack                         // its snapshot was taken off traffic
	RecallKept                               // it could not be, or was not to be; Err says why
	RecallUnaudited                          // it is not known, since queries cannot be audited; Err says why
)

// Recall says what has become of the recall of live queries of an arm.
type Recall struct {
	Change     RecallChange
	Generation uint64 // of the release; 0 without one
	Arm        string
	Snapshot   manifest.Digest
	// Stratum says which queries: all, or those of a plan or a segment, which Name is, or that it
	// is of what a node has found, whose address Name is.
	Stratum, Name string

	// What follows is of RecallAlarm.

	Recall      float64 // the mean since Onset
	High        float64 // what it is below for sure
	WorstDecile float64 // the mean of the lowest tenth
	Floor       float64
	Audits      int // since Onset
	Onset       time.Time

	To  uint64 // the generation that came back, of RecallRolledBack
	Err error  // of RecallKept and RecallUnaudited
}

// TraceOutcome is what became of traces of requests, or of spans of them.
type TraceOutcome uint8

// The outcomes.
const (
	SpansSent    TraceOutcome = iota + 1 // the collector has them
	SpansDropped                         // as many waited to be sent as may wait
	SpansFailed                          // they could not be sent
	TraceLimited                         // a request was not traced: too much was of late
)

// Traced says what became of traces of requests.
type Traced struct {
	Outcome TraceOutcome
	N       int   // spans, or requests that were not traced
	Err     error // of SpansFailed
	// Turned is whether spans are lost now and were not before, or are sent again, and Lost
	// how many were in between.
	Turned bool
	Lost   int
}

// HeldChange is what has become of a shard that a node holds, or is to.
type HeldChange uint8

// The changes.
const (
	HeldReady    HeldChange = iota + 1 // it can be asked
	HeldNot                            // it could not be loaded, or it is not known what is to be
	HeldLetGo                          // it is closed, but for queries on it
	HeldShort                          // fewer nodes are to hold shards than should, for want of room or of nodes
	HeldAll                            // all can be asked that the newest release needs
	HeldNoMember                       // the node is none of the members, and is to hold nothing
	HeldAway                           // members are not listed any more; what they hold stays theirs for a time
)

// Held says what has become of a shard that a node holds, or is to.
type Held struct {
	Change   HeldChange
	Snapshot manifest.Digest // empty of HeldAll and HeldNoMember, and where placing has failed
	Shard    string          // empty where it is about more than one
	Bytes    int64           // of its file, or of all
	Took     time.Duration   // of HeldReady
	Err      error           // of HeldNot, of HeldShort why it is so of the first, and of HeldNoMember who the members are
	Retry    time.Duration   // likewise: when it is tried again; of HeldAway how long they are waited for

	Shards     int    // of HeldShort and HeldAll: how many
	Generation uint64 // of HeldAll
	Node       string // of HeldNoMember: the name that no member has; of HeldAway that of the first
	Nodes      int    // of HeldAway: how many members are not listed any more
}

// Draining says how a server stops.
type Draining struct {
	Delay   time.Duration // for which it goes on as before, but for readiness
	Timeout time.Duration // that requests have to end after that
}
