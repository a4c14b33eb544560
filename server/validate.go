package server

import (
	"context"
	"errors"
	"strings"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// validate checks a request against the rules of the contract. The error tells
// every broken rule in a line, and has them as a detail too.
func validate(m proto.Message) error {
	err := protovalidate.GlobalValidator.Validate(m)
	if err == nil {
		return nil
	}
	invalid, ok := errors.AsType[*protovalidate.ValidationError](err)
	if !ok {
		return err
	}
	texts := make([]string, len(invalid.Violations))
	for i, v := range invalid.Violations {
		texts[i] = violation(v)
	}
	coded := connect.NewError(connect.CodeInvalidArgument, errors.New(strings.Join(texts, "; ")))
	if detail, err := connect.NewErrorDetail(invalid.ToProto()); err == nil {
		coded.AddDetail(detail)
	}
	return coded
}

// violation is the text of one broken rule. The rules' own texts begin with the
// field's name; the path is added where it says more.
func violation(v *protovalidate.Violation) string {
	path, text := protovalidate.FieldPathString(v.Proto.GetField()), v.Proto.GetMessage()
	if path == "" || strings.HasPrefix(text, path+" ") {
		return text
	}
	return path + ": " + text
}

// prepareRules compiles the rules, so that the first request does not.
func prepareRules() {
	for _, m := range []proto.Message{&tandemv1.RetrieveRequest{}, &tandemv1.BatchRetrieveRequest{}, &tandemv1.GetEmbeddingsRequest{}} {
		_ = validate(m) // an empty request is wrong, which is what it says
	}
}

// validation rejects requests that break the rules before the method sees them.
func validation(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		if m, ok := r.Any().(proto.Message); ok {
			if err := validate(m); err != nil {
				return nil, err
			}
		}
		return next(ctx, r)
	}
}
