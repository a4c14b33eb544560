package server

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// validate checks a request against the rules of the contract, the lengths of lists
// first: no rule is evaluated for each element of a list that is too long. The error
// tells broken rules in a line, and has them as a detail too.
func validate(m proto.Message) error {
	if r, ok := m.(*tandemv1.RetrieveRequest); ok && keepsRules(r) {
		return nil
	}
	if long := longLists(m); len(long) > 0 {
		return violationsError(long)
	}
	broken, err := brokenRules(m)
	if err != nil {
		return err
	}
	if len(broken) > 0 {
		return violationsError(broken)
	}
	return nil
}

// keepsRules reports whether a request keeps every rule of the contract. The rules
// themselves, in CEL, cost more than a small search; they are asked only for what
// is wrong and how to say it. A test compares the two.
func keepsRules(r *tandemv1.RetrieveRequest) bool {
	queries := 0
	for _, set := range [...]bool{len(r.Vector) > 0, len(r.Vectors) > 0, r.UserId != "", r.AppId != ""} {
		if set {
			queries++
		}
	}
	if len(r.Vectors) > maxVectors || len(r.AtMost) > maxLimits {
		return false
	}
	for _, v := range r.Vectors {
		if len(v.GetValues()) == 0 {
			return false
		}
	}
	for _, most := range r.AtMost {
		if n := most.GetN(); n < 1 || n > 10_000 {
			return false
		}
	}
	return queries == 1 && (r.Ef == nil || r.RecallTarget == nil) &&
		len(r.UserId) <= 256 && len(r.AppId) <= 256 &&
		r.Target >= tandemv1.Tower_TOWER_UNSPECIFIED && r.Target <= tandemv1.Tower_TOWER_USERS &&
		r.K >= 1 && r.K <= 10_000 &&
		len(r.Filter) <= 16<<10 && len(r.Bindings) <= 256 &&
		len(r.IncludeIds) <= 100_000 && len(r.ExcludeIds) <= 100_000 && len(r.ExplainIds) <= 100 &&
		len(r.ModelVersion) <= 256 && len(r.Attributes) <= 256 && len(r.RequestId) <= 128 &&
		len(r.Segment) <= 64 && len(r.RequestKey) <= 256 && len(r.GetMinLive().GetLog()) <= 256 && len(r.PageToken) <= 512 &&
		len(r.Experiment) <= 128 && len(r.Variant) <= 128 && (r.Experiment == "") == (r.Variant == "") &&
		r.Fallback >= tandemv1.Fallback_FALLBACK_UNSPECIFIED && r.Fallback <= tandemv1.Fallback_FALLBACK_MEAN_USER &&
		(r.Fallback != tandemv1.Fallback_FALLBACK_MEAN_USER || r.UserId != "") &&
		(r.RecallTarget == nil || *r.RecallTarget > 0 && *r.RecallTarget <= 1) &&
		(r.Ef == nil || *r.Ef >= 1 && *r.Ef <= 1_000_000) &&
		(r.MinCoverage == nil || *r.MinCoverage >= 0 && *r.MinCoverage <= 1)
}

// How many vectors a query may have, and attributes that at_most names.
const (
	maxVectors = 32
	maxLimits  = 8
)

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
