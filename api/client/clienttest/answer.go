package clienttest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/tandem-ann/tandem/api/client"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// snapshot is the digest that answers have.
const snapshot = "7465737474657374746573747465737474657374746573747465737474657374"

// maxPages is how many candidates all pages of an answer have.
const maxPages = 10_000

// name returns what a request is called.
func (s *Server) name(own string, h http.Header) string {
	if own == "" {
		own = h.Get("X-Request-Id")
	}
	if parts := strings.Split(h.Get("Traceparent"), "-"); own == "" && len(parts) == 4 {
		own = parts[1]
	}
	if own == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		own = "request-" + strconv.Itoa(len(s.requests))
	}
	return own
}

// withName gives an error the name of its request.
func withName(err error, id string) error {
	if of, ok := errors.AsType[*connect.Error](err); ok {
		of.Meta().Set("X-Request-Id", id)
	}
	return err
}

// Retrieve implements the contract.
func (s *Server) Retrieve(ctx context.Context, r *connect.Request[tandemv1.RetrieveRequest]) (*connect.Response[tandemv1.RetrieveResponse], error) {
	err := s.arrive(ctx, "Retrieve", r.Msg)
	id := s.name(r.Msg.RequestId, r.Header())
	if err != nil {
		return nil, withName(err, id)
	}
	answer, err := s.answer(r.Msg, id)
	if err != nil {
		return nil, withName(err, id)
	}
	return named(answer, id), nil
}

// BatchRetrieve implements the contract.
func (s *Server) BatchRetrieve(ctx context.Context, r *connect.Request[tandemv1.BatchRetrieveRequest]) (*connect.Response[tandemv1.BatchRetrieveResponse], error) {
	err := s.arrive(ctx, "BatchRetrieve", r.Msg)
	id := s.name("", r.Header())
	if err == nil {
		err = check(r.Msg)
	}
	if err != nil {
		return nil, withName(err, id)
	}
	out := &tandemv1.BatchRetrieveResponse{}
	for i, one := range r.Msg.Requests {
		own := one.RequestId
		if own == "" {
			own = fmt.Sprintf("%s-%d", id, i)
		}
		result := &tandemv1.BatchRetrieveResult{}
		if answer, err := s.answer(one, own); err != nil {
			result.Outcome = &tandemv1.BatchRetrieveResult_Error{Error: item(err, own)}
		} else {
			result.Outcome = &tandemv1.BatchRetrieveResult_Response{Response: answer}
		}
		out.Results = append(out.Results, result)
	}
	return named(out, id), nil
}

// GetEmbeddings implements the contract.
func (s *Server) GetEmbeddings(ctx context.Context, r *connect.Request[tandemv1.GetEmbeddingsRequest]) (*connect.Response[tandemv1.GetEmbeddingsResponse], error) {
	err := s.arrive(ctx, "GetEmbeddings", r.Msg)
	id := s.name(r.Msg.RequestId, r.Header())
	if err == nil {
		err = check(r.Msg)
	}
	if err == nil {
		err = s.serves(r.Msg.ModelVersion)
	}
	if err != nil {
		return nil, withName(err, id)
	}
	t := s.tower(r.Msg.Tower)
	live, staleness := s.proof()
	out := &tandemv1.GetEmbeddingsResponse{Model: s.Model, ModelVersion: s.ModelVersion, Snapshot: snapshot, RequestId: id, Live: live, Staleness: staleness}
	for _, want := range r.Msg.Ids {
		if i, ok := t.place[want]; ok && !s.isDown(t, want) {
			out.Embeddings = append(out.Embeddings, &tandemv1.Embedding{Id: want, Values: t.rows[i].Vector})
		} else {
			out.UnknownIds = append(out.UnknownIds, want)
		}
	}
	return named(out, id), nil
}

func (s *Server) tower(of tandemv1.Tower) *tower {
	if of == tandemv1.Tower_TOWER_USERS {
		return s.towers[of]
	}
	return s.towers[tandemv1.Tower_TOWER_APPS]
}

func (s *Server) isDown(t *tower, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.noun == "app" && s.down[id]
}

func (s *Server) serves(version string) error {
	if version != "" && version != s.ModelVersion {
		return refuse(client.ModelVersionNotServed, "model_version %q is not served; served: %s", version, s.ModelVersion)
	}
	return nil
}

// queries returns the vectors of a query, and the row that it is itself.
func (s *Server) queries(r *tandemv1.RetrieveRequest) (list [][]float32, own string, fallback tandemv1.Fallback, err error) {
	switch {
	case r.UserId != "" || r.AppId != "":
		kind, field, id := tandemv1.Tower_TOWER_USERS, "user_id", r.UserId
		if r.AppId != "" {
			kind, field, id = tandemv1.Tower_TOWER_APPS, "app_id", r.AppId
		}
		t := s.tower(kind)
		if i, ok := t.place[id]; ok && !s.isDown(t, id) {
			if t == s.tower(r.Target) {
				own = id
			}
			return [][]float32{t.rows[i].Vector}, own, 0, nil
		}
		if r.Fallback == tandemv1.Fallback_FALLBACK_MEAN_USER {
			if s.MeanUser == nil {
				return nil, "", 0, refuse(client.FallbackUnavailable, "user_id %q is not in the user tower, and its snapshot has no mean user vector", id)
			}
			return [][]float32{s.MeanUser}, "", r.Fallback, nil
		}
		missing := refuse(client.EntityUnknown, "%s %q is not in the %s tower of model %s at %s; query by an id that it has, or by vector", field, id, t.noun, s.Model, s.ModelVersion)
		detail(missing, &errdetails.ResourceInfo{ResourceType: t.noun, ResourceName: id})
		return nil, "", 0, missing
	case len(r.Vector) > 0:
		list = [][]float32{r.Vector}
	default:
		for _, v := range r.Vectors {
			list = append(list, v.Values)
		}
	}
	for i, v := range list {
		field := "vector"
		if len(r.Vector) == 0 {
			field = fmt.Sprintf("vectors[%d].values", i)
		}
		if len(v) != s.dim {
			return nil, "", 0, invalid(client.VectorInvalid, field, "%s has %d numbers; accepted: %d, as the model has dimensions", field, len(v), s.dim)
		}
		for j, x := range v {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return nil, "", 0, invalid(client.VectorInvalid, fmt.Sprintf("%s[%d]", field, j), "%s[%d] is %g; accepted: finite numbers", field, j, x)
			}
		}
	}
	return list, "", 0, nil
}

// pick returns which rows may be returned.
func (s *Server) pick(r *tandemv1.RetrieveRequest, t *tower, own string) (func(Row) bool, error) {
	sets := map[string]map[string]bool{}
	for field, ids := range map[string][]string{"include_ids": r.IncludeIds, "exclude_ids": r.ExcludeIds} {
		sets[field] = map[string]bool{}
		for i, id := range ids {
			if id == "" || len(id) > 256 {
				return nil, invalid(client.IDInvalid, fmt.Sprintf("%s[%d]", field, i), "%s[%d] has %d bytes; accepted: 1 to 256", field, i, len(id))
			}
			sets[field][id] = true
		}
	}
	filter, segment := s.Filters[r.Filter], s.Segments[r.Segment]
	if r.Filter != "" && filter == nil {
		return nil, invalid(client.FilterInvalid, "filter", "filter: the server in memory has none of this text; accepted: those of Server.Filters")
	}
	if r.Segment != "" && (segment == nil || t.noun != "app") {
		return nil, invalid(client.SegmentInvalid, "segment", "segment %q is not one of the snapshot's; accepted: those of Server.Segments, with the app tower", r.Segment)
	}
	bindings := map[string]any{}
	for name, v := range r.Bindings {
		bindings[name] = v.AsInterface()
	}
	return func(row Row) bool {
		return row.ID != own && !s.isDown(t, row.ID) && !sets["exclude_ids"][row.ID] &&
			(len(r.IncludeIds) == 0 || sets["include_ids"][row.ID]) &&
			(segment == nil || segment(row)) && (filter == nil || filter(row, bindings))
	}, nil
}

// returned returns the names of the attributes that an answer has.
func (t *tower) returned(names []string) ([]string, error) {
	var list []string
	for i, name := range names {
		switch {
		case name == "*":
			for name := range t.types {
				list = append(list, name)
			}
		case t.types[name] == "":
			return nil, invalid(client.AttributeInvalid, fmt.Sprintf("attributes[%d]", i), "attributes[%d] is %q, which no %s has", i, name, t.noun)
		default:
			list = append(list, name)
		}
	}
	return list, nil
}

// answer answers one query.
func (s *Server) answer(r *tandemv1.RetrieveRequest, id string) (*tandemv1.RetrieveResponse, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	if r.Explain || len(r.ExplainIds) > 0 {
		return nil, connect.NewError(connect.CodeUnimplemented, errors.New("the server in memory does not explain"))
	}
	if err := s.serves(r.ModelVersion); err != nil {
		return nil, err
	}
	queries, own, fallback, err := s.queries(r)
	if err != nil {
		return nil, err
	}
	t := s.tower(r.Target)
	names, err := t.returned(r.Attributes)
	if err != nil {
		return nil, err
	}
	eligible, err := s.pick(r, t, own)
	if err != nil {
		return nil, err
	}
	for i, most := range r.AtMost {
		if t.types[most.Attribute] == "" || t.types[most.Attribute] == "float64" || t.types[most.Attribute] == "time.Time" {
			return nil, invalid(client.AttributeInvalid, fmt.Sprintf("at_most[%d].attribute", i), "at_most[%d].attribute is %q; accepted: a keyword, a keyword list, an int or a bool", i, most.Attribute)
		}
	}
	from := 0
	if r.PageToken != "" {
		if from, err = strconv.Atoi(strings.TrimPrefix(r.PageToken, "page-")); err != nil || from < 1 || from > maxPages {
			return nil, invalid(client.PageTokenInvalid, "page_token", "page_token is %q; accepted: next_page_token of an answer", r.PageToken)
		}
	}

	type hit struct {
		row   Row
		score float32
	}
	var hits []hit
	for _, row := range t.rows {
		if !eligible(row) {
			continue
		}
		best := float32(math.Inf(-1))
		for _, q := range queries {
			sum := 0.0
			for i := range q {
				sum += float64(q[i]) * float64(row.Vector[i])
			}
			best = max(best, float32(sum))
		}
		hits = append(hits, hit{row, best})
	}
	slices.SortStableFunc(hits, func(a, b hit) int { // rows are by id
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return 0
	})
	live, staleness := s.proof()
	out := &tandemv1.RetrieveResponse{
		Model: s.Model, ModelVersion: s.ModelVersion, Snapshot: snapshot, RequestId: id, FallbackUsed: fallback,
		Coverage: &tandemv1.Coverage{ShardsAnswered: 1, Shards: 1, ShardShare: 1, EligibleShare: 1},
		Plan:     tandemv1.Plan_PLAN_EXACT_SCAN, Eligible: uint64(len(hits)), Live: live, Staleness: staleness,
	}
	counts, taken, left := map[string]uint32{}, 0, 0
	for _, h := range hits {
		if capped(h.row, r.AtMost, counts) {
			continue
		}
		if taken++; taken <= from {
			continue
		}
		if left++; left > int(r.K) || taken > maxPages {
			continue
		}
		c := &tandemv1.Candidate{Id: h.row.ID, Score: h.score}
		for _, name := range names {
			if v, ok := h.row.Attributes[name]; ok {
				if c.Attributes == nil {
					c.Attributes = map[string]*tandemv1.AttributeValue{}
				}
				c.Attributes[name], _ = value(v) // New has seen that it can be
			}
		}
		out.Candidates = append(out.Candidates, c)
	}
	found := len(out.Candidates)
	switch {
	case found == int(r.K):
		if left > found && from+found < maxPages {
			out.NextPageToken = fmt.Sprintf("page-%d", from+found)
		}
	case from+found == maxPages:
		out.ShortReason, out.ShortReasonText = tandemv1.ShortReason_SHORT_REASON_PAGES, "all pages have 10,000 candidates"
	case taken < len(hits):
		out.ShortReason = tandemv1.ShortReason_SHORT_REASON_AT_MOST
		out.ShortReasonText = fmt.Sprintf("at_most leaves %d of %d that are eligible, k is %d", taken, len(hits), r.K)
	default:
		out.ShortReason = tandemv1.ShortReason_SHORT_REASON_ELIGIBLE
		out.ShortReasonText = fmt.Sprintf("%d %ss are eligible, k is %d", len(hits), t.noun, r.K)
	}
	return out, nil
}

// capped reports whether at_most passes a row over, and counts it if not.
func capped(row Row, limits []*tandemv1.AtMost, counts map[string]uint32) bool {
	var keys []string
	for _, most := range limits {
		v, ok := row.Attributes[most.Attribute]
		if !ok {
			continue
		}
		values, isList := v.([]string)
		if !isList {
			values = []string{fmt.Sprint(v)}
		}
		values = slices.Compact(slices.Sorted(slices.Values(values)))
		for _, one := range values {
			key := most.Attribute + "\x00" + one
			if counts[key] >= most.N {
				return true
			}
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		counts[key]++
	}
	return false
}
