package server

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/querylog"
)

// RecordedQuery returns the query that a request and its answer are, as a recorder keeps
// it. It aliases the strings of both.
func RecordedQuery(at time.Time, latency time.Duration, r *tandemv1.RetrieveRequest, a *tandemv1.RetrieveResponse) (querylog.Query, error) {
	request, err := proto.Marshal(r)
	if err != nil {
		return querylog.Query{}, fmt.Errorf("record query: %w", err)
	}
	q := querylog.Query{
		Time: at.UTC().Truncate(time.Microsecond), RequestID: r.RequestId, Request: request,
		UserID: r.UserId, AppID: r.AppId, K: int64(r.K), Filter: r.Filter, Segment: r.Segment, Tower: kindOf(r.Target),
		Model: a.Model, ModelVersion: a.ModelVersion, Snapshot: a.Snapshot, Plan: a.Plan.String(),
		Eligible: int64(a.Eligible), Coverage: a.Coverage.GetEligibleShare(), ShardsCut: int64(a.Coverage.GetShardsCut()), LatencyUS: latency.Microseconds(),
		Candidates: make([]querylog.Candidate, len(a.Candidates)),
	}
	q.Experiment, q.Variant, q.Explored = r.Experiment, r.Variant, a.Explored
	if a.Live != nil {
		q.LiveLog, q.LiveSequence = a.Live.Log, int64(a.Live.Sequence)
	}
	if a.FallbackUsed != tandemv1.Fallback_FALLBACK_UNSPECIFIED {
		q.Fallback = a.FallbackUsed.String()
	}
	if r.Filter != "" {
		q.Bindings = bindingKinds(r.Bindings)
	}
	for i, c := range a.Candidates {
		q.Candidates[i] = querylog.Candidate{ID: c.GetId(), Score: c.GetScore(), Team: c.GetTeam(), Propensity: c.GetPropensity()}
	}
	return q, nil
}

// RecordedRequest returns the request of a query that [RecordedQuery] made, to be asked again:
// it demands no position of the live log that was followed then. An error is of class
// [querylog.ErrDamaged].
func RecordedRequest(q *querylog.Query) (*tandemv1.RetrieveRequest, error) {
	r := new(tandemv1.RetrieveRequest)
	if err := proto.Unmarshal(q.Request, r); err != nil {
		return nil, fmt.Errorf("request %q: %w: %w", q.RequestID, querylog.ErrDamaged, err)
	}
	r.MinLive = nil
	return r, nil
}

// bindingKinds returns the kinds of bindings.
func bindingKinds(in map[string]*structpb.Value) map[string]eligibility.Kind {
	out := make(map[string]eligibility.Kind, len(in))
	for name, v := range in {
		list, ok := v.GetKind().(*structpb.Value_ListValue)
		if !ok {
			out[name] = bindingKind(v)
			continue
		}
		var elements []eligibility.Kind
		for _, item := range list.ListValue.GetValues() {
			if kind := bindingKind(item); !slices.Contains(elements, kind) {
				elements = append(elements, kind)
			}
		}
		out[name] = eligibility.KindOfList(elements...)
	}
	return out
}

// bindingKind returns the kind of a value that is no list.
func bindingKind(v *structpb.Value) eligibility.Kind {
	value, err := bindingScalar(v)
	if err != nil {
		return eligibility.KindOther
	}
	return eligibility.KindOf(value)
}

// RecordedUsers returns every text of a request that [RecordedQuery] has kept which can be
// the id of a user: the user's own, keys, what filters compare with, of a search for users the
// ids that are named, that of a page token too, and whatever a later version of the contract has added. An error is of
// class [querylog.ErrDamaged].
func RecordedUsers(request []byte) ([]string, error) {
	r := new(tandemv1.RetrieveRequest)
	if err := proto.Unmarshal(request, r); err != nil {
		return nil, fmt.Errorf("request: %w: %w", querylog.ErrDamaged, err)
	}
	list := append(quotedIn(r.Filter), r.UserId, r.RequestKey, r.RequestId)
	if r.Experiment != "" {
		list = append(list, r.Experiment, r.Variant)
	}
	for _, v := range r.Bindings {
		list = textsOf(v, list)
	}
	if r.Target == tandemv1.Tower_TOWER_USERS {
		list = slices.Concat(list, r.IncludeIds, r.ExcludeIds, r.ExplainIds)
		if page, err := parseToken(r.PageToken); err == nil {
			list = append(list, page.id)
		}
	}
	return unknownTexts(r.ProtoReflect().GetUnknown(), list), nil
}

// textsOf adds the texts of a value to a list.
func textsOf(v *structpb.Value, list []string) []string {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		list = append(list, kind.StringValue)
	case *structpb.Value_ListValue:
		for _, item := range kind.ListValue.GetValues() {
			list = textsOf(item, list)
		}
	case *structpb.Value_StructValue:
		for _, item := range kind.StructValue.GetFields() {
			list = textsOf(item, list)
		}
	}
	return list
}

// unknownTexts adds the values of fields that this version does not know to a list, those
// that may be texts.
func unknownTexts(fields []byte, list []string) []string {
	for len(fields) > 0 {
		number, kind, n := protowire.ConsumeTag(fields)
		if n < 0 {
			break // it was decoded, so it is whole
		}
		fields = fields[n:]
		if text, n := protowire.ConsumeBytes(fields); kind == protowire.BytesType && n >= 0 {
			list = append(list, string(text))
		}
		if n = protowire.ConsumeFieldValue(number, kind, fields); n < 0 {
			break
		}
		fields = fields[n:]
	}
	return list
}

// quotedIn returns what is between two quotes in a filter, and what is outside of them: no
// literal is missed, and the others are of no id.
func quotedIn(filter string) []string {
	return strings.FieldsFunc(filter, func(c rune) bool { return c == '"' || c == '\'' })
}
