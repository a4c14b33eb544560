package clienttest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	rules "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tandem-ann/tandem/api/client"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// Refuse returns an error with a reason as a server sends it, for [Server.Before]: with the code of the
// reason, and with the hint of overloaded servers, a second, if it is one of those.
func Refuse(why client.Reason, format string, args ...any) error {
	err := refuse(why, format, args...)
	if err.Code() == connect.CodeResourceExhausted {
		detail(err, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
		err.Meta().Set("Retry-After", "1")
	}
	return err
}

func refuse(why client.Reason, format string, args ...any) *connect.Error {
	err := connect.NewError(why.Code(), fmt.Errorf(format, args...))
	detail(err, &errdetails.ErrorInfo{Reason: string(why), Domain: client.Domain})
	return err
}

// invalid is the error of a field.
func invalid(why client.Reason, field, format string, args ...any) error {
	err := refuse(why, format, args...)
	detail(err, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: err.Message()}}})
	return err
}

func detail(err *connect.Error, m proto.Message) {
	if d, packErr := connect.NewErrorDetail(m); packErr == nil { // it fails for invalid UTF-8 only
		err.AddDetail(d)
	}
}

// told is how many broken rules an error tells.
const told = 10

// check returns the error of a message that breaks rules of the contract.
func check(m proto.Message) error {
	err := protovalidate.Validate(m)
	if err == nil {
		return nil
	}
	broken, ok := errors.AsType[*protovalidate.ValidationError](err)
	if !ok {
		return refuse(client.Internal, "%w", err)
	}
	list := broken.ToProto().GetViolations()
	first := list[:min(len(list), told)]
	texts := make([]string, len(first))
	fields := make([]*errdetails.BadRequest_FieldViolation, len(first))
	for i, v := range first {
		path := protovalidate.FieldPathString(v.GetField())
		texts[i] = v.GetMessage()
		if path != "" && !strings.HasPrefix(texts[i], path+" ") {
			texts[i] = path + ": " + texts[i]
		}
		fields[i] = &errdetails.BadRequest_FieldViolation{Field: path, Description: texts[i]}
	}
	text := strings.Join(texts, "; ")
	if more := len(list) - len(first); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	out := refuse(client.RuleBroken, "%s", text)
	detail(out, &rules.Violations{Violations: first})
	detail(out, &errdetails.BadRequest{FieldViolations: fields})
	return out
}

// item returns the error of a query of a batch.
func item(err error, id string) *tandemv1.ItemError {
	of, ok := errors.AsType[*connect.Error](err)
	if !ok {
		of = refuse(client.Internal, "%w", err)
	}
	e := &tandemv1.ItemError{Code: of.Code().String(), Message: of.Message(), RequestId: id}
	for _, d := range of.Details() {
		m, err := d.Value()
		if err != nil {
			continue // it was made here
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			e.Info = m
		case *errdetails.BadRequest:
			e.BadRequest = m
		case *errdetails.ResourceInfo:
			e.Resource = m
		case *errdetails.RetryInfo:
			e.Retry = m
		}
	}
	return e
}
