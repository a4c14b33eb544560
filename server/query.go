package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/traces"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// What a request that does not say otherwise gets.
const (
	// DefaultRecallTarget is the recall of a request without recall_target and ef.
	DefaultRecallTarget = index.DefaultTarget
	// DefaultMinCoverage accepts nothing short of every shard.
	DefaultMinCoverage = 1
)

// query is a valid request in the terms of one snapshot.
type query struct {
	shard.Query
	tower    *shard.Tower
	asked    int               // how many candidates the request asks for; K may be fewer
	names    []string          // of the attributes to return
	fallback tandemv1.Fallback // that Vectors are by, if they are not the query's own
	told     events.Answer     // what is told of its answer
	// drawn are the hashes of ids that an explored answer had, and that its later pages leave out.
	drawn []uint64
	// named are Attributes, while an answer is drawn of which only a part needs them.
	named []int
	// passed is how many of them it has found before its last candidate, and trailing how many
	// come right after that.
	passed, trailing int
	// beyond is how many candidates there are after k at least, where limits do not let that be
	// counted and an exploration must know.
	beyond int
}

// newQuery checks what the contract's rules leave to the server, because it
// depends on the snapshot or costs too much there. The error is the context's if that
// ends first.
// What it does is within a span.
func newQuery(ctx context.Context, now *pinned, r *tandemv1.RetrieveRequest, in traces.Span) (*query, error) {
	q := &query{tower: now.tower(kindOf(r.Target))}
	q.Moment = now.at
	q.asked, q.K, q.Ef, q.Target = int(r.K), int(r.K), int(r.GetEf()), DefaultRecallTarget
	if r.RecallTarget != nil {
		q.Target = *r.RecallTarget
	}
	q.MinCoverage = DefaultMinCoverage
	if r.MinCoverage != nil {
		q.MinCoverage = *r.MinCoverage
	}
	if err := q.setPage(r); err != nil {
		return nil, err
	}
	if err := q.setVectors(ctx, now, r); err != nil {
		return nil, err
	}
	if err := q.setIDs(r); err != nil {
		return nil, err
	}
	filtering := in.Begin("filter")
	err := q.setFilter(ctx, r)
	if filtering.End(); err != nil {
		return nil, err
	}
	if err := q.setSegment(r); err != nil {
		return nil, err
	}
	if err := q.setAtMost(r.AtMost); err != nil {
		return nil, err
	}
	return q, q.setAttributes(r.Attributes)
}

func kindOf(t tandemv1.Tower) shard.Kind {
	if t == tandemv1.Tower_TOWER_USERS {
		return shard.Users
	}
	return shard.Apps
}

// noun is what one row of a tower is called.
func noun(k shard.Kind) string { return strings.TrimSuffix(string(k), "s") }

// modelName is how texts name the model of a snapshot.
func modelName(m *manifest.Manifest) string { return m.Model + " " + m.ModelVersion }

func (q *query) setVectors(ctx context.Context, now *pinned, r *tandemv1.RetrieveRequest) error {
	m := now.snapshot.Manifest()
	switch {
	case r.UserId != "" || r.AppId != "":
		field, id, kind := "user_id", r.UserId, shard.Users
		if r.AppId != "" {
			field, id, kind = "app_id", r.AppId, shard.Apps
		}
		v, ok, err := now.tower(kind).Vector(ctx, q.Moment, id)
		switch {
		case err != nil:
			return err
		case ok:
		case r.Fallback != tandemv1.Fallback_FALLBACK_MEAN_USER:
			other, err := inAnotherForm(ctx, now.tower(kind), q.Moment, id)
			if err != nil {
				return err
			}
			return notFoundf(reasonEntity, noun(kind), id, "%s %q is not in the %s tower of model %s%s; query by an id that it has, or by vector",
				field, id, noun(kind), modelName(m), other)
		case m.MeanUser == nil:
			return errorf(connect.CodeFailedPrecondition, reasonFallback, "user_id %q is not in the user tower of model %s, and its snapshot %s has no mean user vector, which fallback %s takes; "+
				"accepted with it: a snapshot that this version of the builder has built", id, modelName(m), now.snapshot.Digest().Short(), r.Fallback)
		default:
			v, q.fallback = m.MeanUser, r.Fallback
		}
		q.Vectors = [][]float32{v}
	case len(r.Vectors) > 0:
		q.Vectors = make([][]float32, len(r.Vectors))
		for i, v := range r.Vectors {
			if err := checkVector(m, fmt.Sprintf("vectors[%d].values", i), v.GetValues()); err != nil {
				return err
			}
			q.Vectors[i] = v.GetValues()
		}
	default:
		if err := checkVector(m, "vector", r.Vector); err != nil {
			return err
		}
		q.Vectors = [][]float32{r.Vector}
	}
	return nil
}

// checkVector returns an error unless the vector of a field is one of the model's.
func checkVector(m *manifest.Manifest, field string, v []float32) error {
	if len(v) != m.Dim {
		return invalidf(reasonVector, field, "%s has %d numbers; accepted: %d, the dimension of model %s", field, len(v), m.Dim, modelName(m))
	}
	err := m.Metric.CheckVector(v)
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[*index.VectorError](err)
	switch {
	case !ok:
		return invalidf(reasonVector, field, "%s: %w", field, err)
	case wrong.Position >= 0:
		field = fmt.Sprintf("%s[%d]", field, wrong.Position)
		return invalidf(reasonVector, field, "%s is %v; accepted: finite numbers", field, wrong.Value)
	case wrong.Value > index.MaxNorm:
		return invalidf(reasonVector, field, "%s has the norm %.6g; accepted: up to %g", field, wrong.Value, float64(index.MaxNorm))
	}
	return invalidf(reasonVector, field, "%s has the norm %.6g; accepted by the metric cosine: a vector with a direction", field, wrong.Value)
}

// setIDs sets which ids the request wants, does not want and wants explained, and
// which one it is itself.
func (q *query) setIDs(r *tandemv1.RetrieveRequest) error {
	q.Include, q.Exclude, q.Explain, q.Self = r.IncludeIds, r.ExcludeIds, r.ExplainIds, r.AppId
	if q.tower.Kind() == shard.Users {
		q.Self = r.UserId
	}
	if q.fallback != tandemv1.Fallback_FALLBACK_UNSPECIFIED {
		q.Self = "" // the tower does not have it
	}
	return cmp.Or(checkIDs("include_ids", q.Include), checkIDs("exclude_ids", q.Exclude), checkIDs("explain_ids", q.Explain))
}

func checkIDs(field string, ids []string) error {
	for i, id := range ids {
		if id == "" || len(id) > shard.MaxIDLen {
			place := fmt.Sprintf("%s[%d]", field, i)
			return invalidf(reasonID, place, "%s has %d bytes; accepted: 1 to %d", place, len(id), shard.MaxIDLen)
		}
	}
	return nil
}

// setAtMost limits what attributes the request does, each once.
func (q *query) setAtMost(limits []*tandemv1.AtMost) error {
	schema := q.tower.Schema()
	for i, limit := range limits {
		name, place := limit.GetAttribute(), fmt.Sprintf("at_most[%d].attribute", i)
		field, ok := schema.Lookup(name)
		switch {
		case !ok:
			return invalidf(reasonAttribute, place, "%s %q is no attribute of the %s tower; accepted: %s",
				place, excerpt(name), noun(q.tower.Kind()), limitable(schema))
		case !shard.Limitable(schema.Field(field).Type):
			return invalidf(reasonAttribute, place, "%s %q is a %s; accepted: keyword, keyword_list, int and bool attributes: %s",
				place, name, schema.Field(field).Type, limitable(schema))
		case slices.ContainsFunc(q.AtMost, func(a shard.AtMost) bool { return a.Field == field }):
			return invalidf(reasonAttribute, place, "%s %q is limited twice; accepted: each attribute once", place, name)
		}
		q.AtMost = append(q.AtMost, shard.AtMost{Field: field, N: int(limit.GetN())})
	}
	return nil
}

func (q *query) setFilter(ctx context.Context, r *tandemv1.RetrieveRequest) error {
	values, err := bindings(ctx, r.Bindings)
	if err != nil || r.Filter == "" {
		return err
	}
	f, err := q.tower.Compile(r.Filter)
	if err != nil {
		return invalidf(reasonFilter, "filter", "%w", err) // it begins with "filter: line 1, column 2:"
	}
	bound, err := f.Bind(ctx, values)
	if ended := ctx.Err(); err != nil && ended != nil && errors.Is(err, ended) {
		return ended
	}
	if err != nil {
		field := "bindings"
		if wrong, ok := errors.AsType[*eligibility.BindError](err); ok {
			field = bindingField(wrong.Binding)
		}
		return invalidf(reasonBinding, field, "%w", err)
	}
	q.Filter = &bound
	return nil
}

func (q *query) setSegment(r *tandemv1.RetrieveRequest) error {
	q.Segment = r.Segment
	if q.Segment != "" && q.tower.Kind() != shard.Apps {
		return invalidf(reasonSegment, "segment", "segment %q is of apps, target is %s; accepted with it: TOWER_APPS", q.Segment, r.Target)
	}
	if err := q.tower.CheckSegment(q.Segment); err != nil {
		return invalidf(reasonSegment, "segment", "%w", err) // it begins with "segment" and its value
	}
	return nil
}

// bindings returns the values of a query's bindings as package eligibility takes
// them. The error is the context's if that ends first.
func bindings(ctx context.Context, in map[string]*structpb.Value) (map[string]any, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make(map[string]any, len(in))
	for _, name := range slices.Sorted(maps.Keys(in)) { // for one error of several to be the same each time
		value, err := bindingValue(ctx, in[name])
		if ended := ctx.Err(); err != nil && ended != nil && errors.Is(err, ended) {
			return nil, ended
		}
		if err != nil {
			field := bindingField(name)
			return nil, invalidf(reasonBinding, field, "%s %w; accepted: a string, a number, a bool, or a list of them", field, err)
		}
		out[name] = value
	}
	return out, nil
}

// bindingField is the path of a binding.
func bindingField(name string) string { return fmt.Sprintf("bindings[%q]", excerpt(name)) }

func bindingValue(ctx context.Context, v *structpb.Value) (any, error) {
	list, ok := v.GetKind().(*structpb.Value_ListValue)
	if !ok {
		return bindingScalar(v)
	}
	items := list.ListValue.GetValues()
	out := make([]any, len(items))
	for i, item := range items {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var err error
		if out[i], err = bindingScalar(item); err != nil {
			return nil, fmt.Errorf("element %d %w", i, err)
		}
	}
	return out, nil
}

func bindingScalar(v *structpb.Value) (any, error) {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return kind.BoolValue, nil
	case *structpb.Value_NumberValue:
		return kind.NumberValue, nil
	case *structpb.Value_StringValue:
		return kind.StringValue, nil
	case *structpb.Value_ListValue:
		return nil, errors.New("is a list within a list")
	case *structpb.Value_StructValue:
		return nil, errors.New("is an object")
	}
	return nil, errors.New("is null")
}

// allAttributes stands for all of them in a request.
const allAttributes = "*"

func (q *query) setAttributes(names []string) error {
	schema := q.tower.Schema()
	for i, name := range names {
		if name == allAttributes {
			for field := range schema.Len() {
				q.addAttribute(schema, field)
			}
			continue
		}
		field, ok := schema.Lookup(name)
		if !ok {
			place := fmt.Sprintf("attributes[%d]", i)
			return invalidf(reasonAttribute, place, "%s %q is no attribute of the %s tower; accepted: %s",
				place, excerpt(name), noun(q.tower.Kind()), knownAttributes(schema))
		}
		q.addAttribute(schema, field)
	}
	return nil
}

func (q *query) addAttribute(schema attribute.Schema, field int) {
	if !slices.Contains(q.Attributes, field) {
		q.Attributes = append(q.Attributes, field)
		q.names = append(q.names, schema.Field(field).Name)
	}
}

// knownAttributes lists what a request may ask to return.
func knownAttributes(schema attribute.Schema) string {
	return listed(append([]string{`"*"`}, schema.Names()...))
}

// limitable lists the attributes that a request may limit.
func limitable(schema attribute.Schema) string {
	var names []string
	for _, f := range schema.Fields() {
		if shard.Limitable(f.Type) {
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		return "there are none"
	}
	return listed(names)
}

// listed joins as many names as fit in an error.
func listed(names []string) string {
	const most = 50
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}

// excerpt shortens a caller's text for an error.
func excerpt(s string) string {
	const most = 128
	return shortened(s, most)
}

// shortened returns the beginning of a text, of about so many bytes, if it is longer.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return cut(s, most) + "..."
}
