package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	rules "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/shard"
)

// ErrorDomain is the domain of the reasons of errors.
const ErrorDomain = "tandem"

// reason says to a program why a request failed. The contract lists them: one that was
// ever sent is not renamed.
type reason string

const (
	reasonRule         reason = "RULE_BROKEN"
	reasonVector       reason = "VECTOR_INVALID"
	reasonID           reason = "ID_INVALID"
	reasonEntity       reason = "ENTITY_UNKNOWN"
	reasonFallback     reason = "FALLBACK_UNAVAILABLE"
	reasonAttribute    reason = "ATTRIBUTE_INVALID"
	reasonFilter       reason = "FILTER_INVALID"
	reasonBinding      reason = "BINDING_INVALID"
	reasonSegment      reason = "SEGMENT_INVALID"
	reasonPageToken    reason = "PAGE_TOKEN_INVALID"
	reasonPageGone     reason = "PAGE_TOKEN_GONE"
	reasonModelVersion reason = "MODEL_VERSION_NOT_SERVED"
	reasonAnswer       reason = "ANSWER_TOO_LARGE"
	reasonMessage      reason = "MESSAGE_TOO_LARGE"
	reasonMalformed    reason = "MESSAGE_MALFORMED"
	reasonHeader       reason = "HEADER_INVALID"
	reasonPath         reason = "PATH_UNKNOWN"
	reasonMethod       reason = "METHOD_NOT_ALLOWED"
	reasonContentType  reason = "CONTENT_TYPE_UNKNOWN"
	reasonEncoding     reason = "ENCODING_UNKNOWN"
	reasonService      reason = "SERVICE_UNKNOWN"
	reasonEvent        reason = "EVENT_INVALID"
	reasonConflict     reason = "EVENT_CONFLICT"
	reasonFull         reason = "FRESH_FULL"
	reasonWrites       reason = "WRITES_OFF"
	reasonNoToken      reason = "TOKEN_MISSING"
	reasonToken        reason = "TOKEN_INVALID"
	reasonExpired      reason = "TOKEN_EXPIRED"
	reasonCertificate  reason = "CERTIFICATE_INVALID"
	reasonScope        reason = "SCOPE_MISSING"
	reasonQuota        reason = "QUOTA_EXCEEDED"
	reasonUnconfirmed  reason = "LIVE_UNCONFIRMED"
	reasonOutcome      reason = "OUTCOME_INVALID"
	reasonOutcomes     reason = "OUTCOMES_OFF"
	reasonBroken       reason = "LIVE_LOG_BROKEN"
	reasonStale        reason = "LIVE_STALE"
	reasonBehind       reason = "LIVE_BEHIND"
	reasonLogUnknown   reason = "LIVE_LOG_UNKNOWN"
	reasonNoSnapshot   reason = "SNAPSHOT_UNKNOWN"
	reasonAmbiguous    reason = "SNAPSHOT_AMBIGUOUS"
	reasonNoRelease    reason = "NOTHING_RELEASED"
	reasonGates        reason = "GATES_FAILED"
	reasonChange       reason = "CHANGE_REFUSED"
	reasonDiff         reason = "DIFF_UNAVAILABLE"
	reasonStore        reason = "STORE_UNAVAILABLE"
	reasonStoreBusy    reason = "STORE_BUSY"

	reasonOutcomesUnconfirmed reason = "OUTCOMES_UNCONFIRMED"

	reasonSnapshotDamaged    reason = "SNAPSHOT_DAMAGED"
	reasonReleaseConflict    reason = "RELEASE_CONFLICT"
	reasonReleaseUnconfirmed reason = "RELEASE_UNCONFIRMED"
	reasonReleaseUnreadable  reason = "RELEASE_UNREADABLE"
	reasonReleasesLost       reason = "RELEASE_LOG_LOST"
	reasonReleasesBroken     reason = "RELEASE_LOG_BROKEN"

	reasonOverloaded reason = "OVERLOADED"
	reasonNotReady   reason = "NOT_READY"
	reasonStopping   reason = "STOPPING"
	reasonCoverage   reason = "COVERAGE_TOO_LOW"
	reasonUnreadable reason = "SHARD_UNREADABLE"
	reasonDeadline   reason = "DEADLINE_EXCEEDED"
	reasonGone       reason = "CALLER_GONE"
	reasonInternal   reason = "INTERNAL"
)

// errorf returns an error that the caller sees, with its code and its reason.
func errorf(code connect.Code, why reason, format string, args ...any) *connect.Error {
	text := fmt.Errorf(format, args...)
	if !utf8.ValidString(text.Error()) {
		text = printable{text}
	}
	err := connect.NewError(code, text)
	addDetail(err, &errdetails.ErrorInfo{Reason: string(why), Domain: ErrorDomain})
	return err
}

// printable is an error whose text is UTF-8, whatever a caller has sent that it names: over
// gRPC an error with another text is an internal one.
type printable struct{ error }

// Error implements [error].
func (p printable) Error() string { return strings.ToValidUTF8(p.error.Error(), "\ufffd") }

// Unwrap returns the error as it is.
func (p printable) Unwrap() error { return p.error }

// invalidf returns an error about a field of a request, which is given as its path, or
// about the whole request, with an empty path. The text names the field, the value and
// what is accepted.
func invalidf(why reason, field, format string, args ...any) *connect.Error {
	err := errorf(connect.CodeInvalidArgument, why, format, args...)
	addDetail(err, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{
		Field: strings.ToValidUTF8(excerpt(field), "\ufffd"), Description: shortened(err.Message(), maxDescription),
	}}})
	return err
}

// notFoundf returns the error of a request for what there is not, of a type and with a name.
func notFoundf(why reason, kind, name, format string, args ...any) *connect.Error {
	err := errorf(connect.CodeNotFound, why, format, args...)
	addDetail(err, &errdetails.ResourceInfo{ResourceType: kind, ResourceName: strings.ToValidUTF8(shortened(name, maxDescription), "\ufffd")})
	return err
}

// maxDescription is how many bytes of an error's text its details repeat.
const maxDescription = 512

// addDetail adds a detail to an error that the caller sees.
func addDetail(err *connect.Error, detail proto.Message) {
	if packed, packErr := connect.NewErrorDetail(detail); packErr == nil { // it fails for invalid UTF-8 only
		err.AddDetail(packed)
	}
}

// withMetadata returns an error with metadata beside its reason.
func withMetadata(err *connect.Error, metadata map[string]string) *connect.Error {
	out := connect.NewError(err.Code(), errors.New(err.Message()))
	for key, values := range err.Meta() {
		out.Meta()[key] = values
	}
	for _, d := range err.Details() {
		if m, valueErr := d.Value(); valueErr == nil {
			if info, ok := m.(*errdetails.ErrorInfo); ok {
				info.Metadata = metadata
				addDetail(out, info)
				continue
			}
		}
		out.AddDetail(d)
	}
	return out
}

// maxErrorBytes is how many bytes the text and the details of an error take at most,
// whatever the protocol. Over gRPC they are trailers, and clients fail on long ones, or
// hang.
const maxErrorBytes = 4 << 10

// How many bytes of an error's text are worth more than its details, and than the first.
const (
	keptText  = 768
	leastText = 128
)

// bounded returns an error of at most maxErrorBytes: err itself, or err with the beginning
// of its text, and without the details that are too large beside that, the last first.
func bounded(err *connect.Error) *connect.Error {
	text, details := err.Message(), err.Details()
	for n := len(details); ; {
		size := errorBytes(err.Code(), text, details[:n])
		switch {
		case size <= maxErrorBytes && n == len(details) && text == err.Message():
			return err
		case size <= maxErrorBytes:
			out := connect.NewError(err.Code(), errors.New(text))
			for _, d := range details[:n] {
				out.AddDetail(d)
			}
			for key, values := range err.Meta() {
				out.Meta()[key] = values
			}
			return out
		case n > 1 && len(text) <= keptText, n == 1 && len(text) <= leastText:
			n--
		default:
			text = cut(strings.TrimSuffix(text, "..."), min(len(text)*3/4, maxErrorBytes)) + "..."
		}
	}
}

// debugBytes is about how many times as long as a detail its form in JSON is at most,
// which Connect sends beside it.
const debugBytes = 6

// errorBytes returns how many bytes an error takes, if that may be too many: as trailers
// of gRPC, where the text is there twice if there are details, or as JSON of Connect.
func errorBytes(code connect.Code, text string, details []*connect.ErrorDetail) int {
	bytes := 3 * len(text)
	for _, d := range details {
		bytes += len(d.Type()) + debugBytes*len(d.Bytes())
	}
	if bytes <= maxErrorBytes/2 {
		return bytes // it takes less than twice that, if only about that
	}
	escaped := 0
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '%' {
			escaped += 3
		} else {
			escaped++
		}
	}
	quoted, _ := json.Marshal(text) // a string
	trailers, body := escaped, len(`{"code":"","message":}`)+len(code.String())+len(quoted)
	packed := len(text) + 16
	for _, d := range details {
		packed += len(d.Bytes()) + len(d.Type()) + 48
		body += len(`{"type":"","value":"","debug":},`) + len(d.Type()) + base64.RawStdEncoding.EncodedLen(len(d.Bytes()))
		if m, err := d.Value(); err == nil {
			debug, _ := protojson.Marshal(m)
			body += len(debug) * 6 / 5 // it has a space after some commas and colons
		}
	}
	if len(details) > 0 {
		trailers += base64.RawStdEncoding.EncodedLen(packed)
	}
	return max(trailers, body)
}

// cut returns the beginning of a text, of at most so many bytes, whole characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// violationsTold is how many broken rules an error tells.
const violationsTold = 10

// violationsError returns the error of a request that breaks rules, which tells the first
// of them, and has as many as fit as a detail too.
func violationsError(list []*rules.Violation) *connect.Error {
	told := list[:min(len(list), violationsTold)]
	texts := make([]string, len(told))
	for i, v := range told {
		texts[i] = violation(v)
	}
	text := strings.Join(texts, "; ")
	if more := len(list) - len(told); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	err := errorf(connect.CodeInvalidArgument, reasonRule, "%s", text)
	info := err.Details()
	for ; len(told) > 0; told = told[:len(told)-1] {
		fields := make([]*errdetails.BadRequest_FieldViolation, len(told))
		for i, v := range told {
			fields[i] = &errdetails.BadRequest_FieldViolation{Field: protovalidate.FieldPathString(v.GetField()), Description: texts[i]}
		}
		full := connect.NewError(err.Code(), errors.New(text))
		addDetail(full, &rules.Violations{Violations: told})
		full.AddDetail(info[0])
		addDetail(full, &errdetails.BadRequest{FieldViolations: fields})
		if errorBytes(full.Code(), text, full.Details()) <= maxErrorBytes {
			return full
		}
	}
	return err
}

// violation is the text of one broken rule. The rules' own texts begin with the
// field's name; the path is added where it says more.
func violation(v *rules.Violation) string {
	path, text := protovalidate.FieldPathString(v.GetField()), v.GetMessage()
	if path == "" || strings.HasPrefix(text, path+" ") {
		return text
	}
	return path + ": " + text
}

// searchError gives the error of a search its code. ctx is the caller's.
func searchError(ctx context.Context, err error) error {
	short, ok := errors.AsType[*shard.CoverageError](err)
	if !ok {
		if errors.Is(err, index.ErrQuery) {
			return invalidf(reasonVector, "", "%w", err)
		}
		return err
	}
	cut := ""
	if short.Cut > 0 {
		cut = fmt.Sprintf(", %d of them not with all that they have of the best", short.Cut)
	}
	based := fmt.Sprintf("%d of %d shards had answered%s; coverage is %.3g, min_coverage is %g",
		short.Answered, short.Shards, cut, short.Coverage, short.MinCoverage)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return errorf(connect.CodeCanceled, reasonGone, "the caller went away when %s", based)
	case errors.Is(short.Err, context.DeadlineExceeded):
		return errorf(connect.CodeDeadlineExceeded, reasonDeadline, "the deadline passed when %s", based)
	}
	return lostError(short.Err, "%d of %d shards answered; coverage is %.3g, min_coverage is %g: %w",
		short.Answered, short.Shards, short.Coverage, short.MinCoverage, short.Err)
}

// lostError returns the error of a request that lacks a shard for an error, with a text. Shards of
// which all nodes are behind the live log are beyond the fence, and nodes that have too much to do
// are not lost: callers are to come again.
func lostError(err error, format string, args ...any) *connect.Error {
	none, ok := errors.AsType[*router.NoReplicaError](err)
	if ok && none.Behind {
		stale := errorf(connect.CodeUnavailable, reasonStale, format, args...)
		retryLater(stale)
		return stale
	}
	if refused, is := errors.AsType[*remote.Refusal](err); ok && is && refused.Reason == remote.Overloaded {
		return overloaded(events.ShedNodes, format, args...)
	}
	return errorf(connect.CodeUnavailable, reasonCoverage, format, args...)
}

// callerError returns err as the caller sees it, of bounded size: every error that we
// make leaves through here. An error without a code is ours to mend: its text goes to the
// log, the caller gets the request's id.
func callerError(err error, id string) *connect.Error {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		return bounded(coded)
	}
	if lost, ok := errors.AsType[*shard.UnreadableError](err); ok {
		return bounded(errorf(connect.CodeDataLoss, reasonUnreadable, "%w", lost))
	}
	switch {
	case errors.As(err, new(*router.NoReplicaError)):
		return bounded(lostError(err, "%w", err))
	case errors.Is(err, context.Canceled):
		return errorf(connect.CodeCanceled, reasonGone, "the caller went away")
	case errors.Is(err, context.DeadlineExceeded):
		return errorf(connect.CodeDeadlineExceeded, reasonDeadline, "the deadline passed before there was an answer")
	}
	return errorf(connect.CodeInternal, reasonInternal, "internal error; the server's log tells more about request %s", id)
}
