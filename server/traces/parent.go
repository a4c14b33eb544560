package traces

import (
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/propagation"
)

// The headers of W3C Trace Context: of requests, and of answers that are traced.
const (
	ParentHeader   = "Traceparent"
	StateHeader    = "Tracestate"
	ResponseHeader = "Traceresponse"
)

// maxState is how many bytes of tracestate are passed on, as many as the standard asks for at
// least: each span has them.
const maxState = 512

// Parent is the span of a caller that a request belongs to.
type Parent struct {
	ID      string // of its trace, 32 hexadecimal digits; it aliases the header
	Sampled bool   // the caller has it traced
}

// ParentOf returns what the headers of a request say of its trace. Headers that are not as they
// should be say nothing.
func ParentOf(header http.Header) (p Parent, ok bool) {
	values := header[ParentHeader]
	if len(values) != 1 {
		return p, false
	}
	text := values[0]
	const length = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	switch {
	case len(text) < length || text[2] != '-' || text[35] != '-' || text[52] != '-':
		return p, false
	case len(text) > length && (text[:2] == "00" || text[length] != '-') || text[:2] == "ff":
		return p, false // versions to come may have more
	}
	version, id, span, flags := text[:2], text[3:35], text[36:52], text[53:55]
	if !isHex(version) || !isHex(id) || !isHex(span) || !isHex(flags) || isZero(id) || isZero(span) {
		return p, false
	}
	return Parent{ID: id, Sampled: strings.IndexByte("13579bdf", flags[1]) >= 0}, true
}

func isHex(text string) bool {
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isZero(text string) bool { return strings.Trim(text, "0") == "" }

// bounded returns the headers with what is taken over of them: a state that is too long is not.
func bounded(header http.Header) propagation.TextMapCarrier {
	out := propagation.HeaderCarrier{ParentHeader: header[ParentHeader]}
	if state := strings.Join(header[StateHeader], ","); state != "" && len(state) <= maxState {
		http.Header(out).Set(StateHeader, state)
	}
	return out
}
