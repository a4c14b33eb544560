package events

import (
	"errors"
	"regexp"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
)

// ofCaller are the codes of errors whose texts name what a caller has sent: vectors, values of
// bindings, ids of users.
var ofCaller = map[connect.Code]bool{
	connect.CodeInvalidArgument: true, connect.CodeNotFound: true, connect.CodeAlreadyExists: true,
	connect.CodeFailedPrecondition: true, connect.CodeOutOfRange: true, connect.CodeUnknown: true,
}

// tellable returns what a log may have of an error that a caller is told: all of it where that
// is about the server, and else its reason and the fields that it is about, but no value.
func tellable(err error) []any {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return []any{"error", err}
	}
	var out []any
	madeUp := false // fields are whatever the caller calls so; the reason comes first
	if !ofCaller[coded.Code()] {
		out = append(out, "error", err)
	}
	for _, d := range coded.Details() {
		detail, err := d.Value()
		if err != nil {
			continue // it is of a type of our own making
		}
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			out, madeUp = append(out, "reason", detail.Reason), detail.Reason == "MESSAGE_MALFORMED"
		case *errdetails.BadRequest:
			var fields []string
			for _, v := range detail.FieldViolations {
				if v.Field != "" && !madeUp && len(fields) < maxFields {
					fields = append(fields, keys.ReplaceAllString(v.Field, "[...]"))
				}
			}
			if len(fields) > 0 {
				out = append(out, "fields", fields)
			}
		}
	}
	return out
}

// keys are those of a map in the path of a field, which a caller has chosen.
var keys = regexp.MustCompile(`\["(?:[^"\\]|\\.)*"\]`)

// maxFields is how many fields of an error are told.
const maxFields = 10
