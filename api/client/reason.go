package client

import (
	"slices"

	"connectrpc.com/connect"
)

// Reason says to a program why a call failed. Those of servers are in the contract, and are
// never renamed. A Reason is an error, so that one can be asked for:
//
//	errors.Is(err, client.EntityUnknown)
type Reason string

// Error implements error.
func (r Reason) Error() string { return string(r) }

// The reasons that servers give.
const (
	// The request is wrong: sending it again gives the same error.
	RuleBroken         Reason = "RULE_BROKEN"
	VectorInvalid      Reason = "VECTOR_INVALID"
	IDInvalid          Reason = "ID_INVALID"
	AttributeInvalid   Reason = "ATTRIBUTE_INVALID"
	FilterInvalid      Reason = "FILTER_INVALID"
	BindingInvalid     Reason = "BINDING_INVALID"
	SegmentInvalid     Reason = "SEGMENT_INVALID"
	PageTokenInvalid   Reason = "PAGE_TOKEN_INVALID"
	AnswerTooLarge     Reason = "ANSWER_TOO_LARGE"
	MessageTooLarge    Reason = "MESSAGE_TOO_LARGE"
	MessageMalformed   Reason = "MESSAGE_MALFORMED"
	HeaderInvalid      Reason = "HEADER_INVALID"
	ContentTypeUnknown Reason = "CONTENT_TYPE_UNKNOWN"
	EventInvalid       Reason = "EVENT_INVALID"
	OutcomeInvalid     Reason = "OUTCOME_INVALID"
	SnapshotAmbiguous  Reason = "SNAPSHOT_AMBIGUOUS"
	PathUnknown        Reason = "PATH_UNKNOWN"
	MethodNotAllowed   Reason = "METHOD_NOT_ALLOWED"
	EncodingUnknown    Reason = "ENCODING_UNKNOWN"

	// There is no such user, app, snapshot or service.
	EntityUnknown   Reason = "ENTITY_UNKNOWN"
	SnapshotUnknown Reason = "SNAPSHOT_UNKNOWN"
	ServiceUnknown  Reason = "SERVICE_UNKNOWN"

	// What serves is not what the request asks for.
	ModelVersionNotServed Reason = "MODEL_VERSION_NOT_SERVED"
	FallbackUnavailable   Reason = "FALLBACK_UNAVAILABLE"
	PageTokenGone         Reason = "PAGE_TOKEN_GONE"
	LiveLogUnknown        Reason = "LIVE_LOG_UNKNOWN"
	GatesFailed           Reason = "GATES_FAILED"
	ChangeRefused         Reason = "CHANGE_REFUSED"
	NothingReleased       Reason = "NOTHING_RELEASED"
	ReleaseUnreadable     Reason = "RELEASE_UNREADABLE"
	ReleaseLogLost        Reason = "RELEASE_LOG_LOST"
	ReleaseLogBroken      Reason = "RELEASE_LOG_BROKEN"
	DiffUnavailable       Reason = "DIFF_UNAVAILABLE"
	EventConflict         Reason = "EVENT_CONFLICT"
	ReleaseConflict       Reason = "RELEASE_CONFLICT"

	// The caller may not ask that.
	TokenMissing       Reason = "TOKEN_MISSING"
	TokenInvalid       Reason = "TOKEN_INVALID"
	TokenExpired       Reason = "TOKEN_EXPIRED"
	CertificateInvalid Reason = "CERTIFICATE_INVALID"
	ScopeMissing       Reason = "SCOPE_MISSING"
	WritesOff          Reason = "WRITES_OFF"
	OutcomesOff        Reason = "OUTCOMES_OFF"

	// The server cannot answer now; another one may.
	CoverageTooLow      Reason = "COVERAGE_TOO_LOW"
	LiveStale           Reason = "LIVE_STALE"
	LiveBehind          Reason = "LIVE_BEHIND"
	LiveUnconfirmed     Reason = "LIVE_UNCONFIRMED"
	OutcomesUnconfirmed Reason = "OUTCOMES_UNCONFIRMED"
	LiveLogBroken       Reason = "LIVE_LOG_BROKEN"
	ReleaseUnconfirmed  Reason = "RELEASE_UNCONFIRMED"
	StoreUnavailable    Reason = "STORE_UNAVAILABLE"
	StoreBusy           Reason = "STORE_BUSY"
	NotReady            Reason = "NOT_READY"
	Stopping            Reason = "STOPPING"
	ShardUnreadable     Reason = "SHARD_UNREADABLE"
	SnapshotDamaged     Reason = "SNAPSHOT_DAMAGED"

	// There is too much to do. [Error.RetryAfter] says when to try again.
	Overloaded    Reason = "OVERLOADED"
	QuotaExceeded Reason = "QUOTA_EXCEEDED"
	FreshFull     Reason = "FRESH_FULL"

	// The time of the call is over, or its context was cancelled.
	DeadlineExceeded Reason = "DEADLINE_EXCEEDED"
	CallerGone       Reason = "CALLER_GONE"

	// A bug, of which the server's log tells more under [Error.RequestID].
	Internal Reason = "INTERNAL"
)

// The reasons that the client gives itself.
const (
	// Unreachable: no server is known, or the connection failed before there was an answer.
	Unreachable Reason = "UNREACHABLE"
	// AnswerMalformed: what came back is no answer of a Tandem server.
	AnswerMalformed Reason = "ANSWER_MALFORMED"
	// AnswerStale: the answer was older than the fence and the deadline, and was dropped.
	AnswerStale Reason = "ANSWER_STALE"
	// Unexplained: an error without a reason of Tandem, as proxies make them.
	Unexplained Reason = "UNEXPLAINED"
	// Closed: the client was closed.
	Closed Reason = "CLIENT_CLOSED"
)

// elsewhere has the reasons for which another server may have an answer where one has none.
var elsewhere = map[Reason]bool{
	Unreachable: true, AnswerMalformed: true, AnswerStale: true,
	CoverageTooLow: true, LiveStale: true, LiveLogBroken: true, StoreUnavailable: true, StoreBusy: true,
	NotReady: true, Stopping: true, ShardUnreadable: true, SnapshotDamaged: true,
	Overloaded: true, QuotaExceeded: true,
}

// faults has the reasons that count against the health of the server which gives them. Overload
// does not: a server that refuses what is too much is well.
var faults = map[Reason]bool{
	Unreachable: true, AnswerMalformed: true, AnswerStale: true,
	CoverageTooLow: true, LiveStale: true, LiveLogBroken: true,
	NotReady: true, Stopping: true, ShardUnreadable: true, SnapshotDamaged: true,
}

// codes has the code of each reason that servers give.
var codes = map[connect.Code][]Reason{
	connect.CodeInvalidArgument: {RuleBroken, VectorInvalid, IDInvalid, AttributeInvalid, FilterInvalid, BindingInvalid,
		SegmentInvalid, PageTokenInvalid, AnswerTooLarge, MessageTooLarge, MessageMalformed, HeaderInvalid,
		ContentTypeUnknown, EventInvalid, OutcomeInvalid, SnapshotAmbiguous},
	connect.CodeNotFound: {EntityUnknown, SnapshotUnknown, ServiceUnknown},
	connect.CodeFailedPrecondition: {ModelVersionNotServed, FallbackUnavailable, PageTokenGone, LiveLogUnknown, GatesFailed,
		ChangeRefused, NothingReleased, ReleaseUnreadable, ReleaseLogLost, ReleaseLogBroken, DiffUnavailable},
	connect.CodeAlreadyExists:    {EventConflict},
	connect.CodeAborted:          {ReleaseConflict},
	connect.CodeUnauthenticated:  {TokenMissing, TokenInvalid, TokenExpired, CertificateInvalid},
	connect.CodePermissionDenied: {ScopeMissing, WritesOff, OutcomesOff},
	connect.CodeUnimplemented:    {PathUnknown, MethodNotAllowed, EncodingUnknown},
	connect.CodeUnavailable: {CoverageTooLow, LiveStale, LiveBehind, LiveUnconfirmed, OutcomesUnconfirmed, LiveLogBroken, ReleaseUnconfirmed,
		StoreUnavailable, StoreBusy, NotReady, Stopping},
	connect.CodeDataLoss:          {ShardUnreadable, SnapshotDamaged},
	connect.CodeResourceExhausted: {Overloaded, QuotaExceeded, FreshFull},
	connect.CodeDeadlineExceeded:  {DeadlineExceeded},
	connect.CodeCanceled:          {CallerGone},
	connect.CodeInternal:          {Internal},
}

// Code returns the code that servers give with a reason, and that of unavailable, or of canceled for
// [Closed], for the client's own. Of a reason that this version does not know it is unknown.
func (r Reason) Code() connect.Code {
	switch r {
	case Unreachable, AnswerMalformed, AnswerStale, Unexplained:
		return connect.CodeUnavailable
	case Closed:
		return connect.CodeCanceled
	}
	for code, list := range codes {
		if slices.Contains(list, r) {
			return code
		}
	}
	return connect.CodeUnknown
}
