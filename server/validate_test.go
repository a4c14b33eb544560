package server

import (
	"math"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// TestKeepsRules compares the fast check with the rules, about their bounds.
func TestKeepsRules(t *testing.T) {
	fields := (&tandemv1.RetrieveRequest{}).ProtoReflect().Descriptor().Fields().Len()
	require.Equal(t, 26, fields, "a new field: does keepsRules know its rules?")
	rapid.Check(t, func(t *rapid.T) {
		r := &tandemv1.RetrieveRequest{UserId: "u1", K: 10}
		size := func(name string, most int) int {
			return rapid.SampledFrom([]int{0, 1, most - 1, most, most + 1}).Draw(t, name)
		}
		text := func(name string, most int) string { return strings.Repeat("x", size(name, most)) }
		number := func(name string) *float64 {
			v := rapid.SampledFrom([]float64{0, 1, 0.5, -0.5, math.Nextafter(1, 2), math.SmallestNonzeroFloat64, math.NaN(), math.Inf(1), math.Copysign(0, -1)}).Draw(t, name)
			return &v
		}
		// One to three fields differ from a good request.
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			switch rapid.IntRange(0, 24).Draw(t, "field") {
			case 0:
				r.UserId = ""
			case 1:
				r.Vector = make([]float32, size("vector", 2))
			case 2:
				r.Vectors = make([]*tandemv1.Vector, size("vectors", 32))
				for i := range r.Vectors {
					r.Vectors[i] = &tandemv1.Vector{Values: make([]float32, 1)}
				}
				if len(r.Vectors) > 0 && rapid.Bool().Draw(t, "empty") {
					r.Vectors[len(r.Vectors)-1].Values = nil
				}
			case 22:
				r.MinLive = &tandemv1.LivePosition{Log: text("min_live.log", 256)}
			case 23:
				r.PageToken = text("page_token", 512)
			case 24:
				r.Experiment, r.Variant = text("experiment", 128), text("variant", 128)
			case 20:
				r.RequestKey = text("request_key", 256)
			case 21:
				r.Fallback = tandemv1.Fallback(rapid.IntRange(-1, 3).Draw(t, "fallback"))
			case 3:
				r.UserId = text("user_id", 256)
			case 4:
				r.AppId = text("app_id", 256)
			case 5:
				r.Target = tandemv1.Tower(rapid.IntRange(-1, 3).Draw(t, "target"))
			case 6:
				r.K = uint32(size("k", 10_000))
			case 7:
				r.Filter = text("filter", 16<<10)
			case 8:
				r.Bindings = map[string]*structpb.Value{}
				for i := range size("bindings", 256) {
					r.Bindings[strings.Repeat("x", i)] = structpb.NewBoolValue(true)
				}
			case 9:
				if rapid.IntRange(0, 20).Draw(t, "many") == 0 {
					r.ExcludeIds = make([]string, size("exclude_ids", 100_000))
				}
			case 10:
				r.ModelVersion = text("model_version", 256)
			case 11:
				r.RecallTarget = number("recall_target")
			case 12:
				ef := uint32(size("ef", 1_000_000))
				r.Ef = &ef
			case 13:
				r.Attributes = make([]string, size("attributes", 256))
			case 14:
				r.MinCoverage = number("min_coverage")
			case 15:
				r.RequestId = text("request_id", 128)
			case 16:
				if rapid.IntRange(0, 20).Draw(t, "many") == 0 {
					r.IncludeIds = make([]string, size("include_ids", 100_000))
				}
			case 17:
				r.AtMost = make([]*tandemv1.AtMost, size("at_most", 8))
				for i := range r.AtMost {
					r.AtMost[i] = &tandemv1.AtMost{Attribute: "x", N: uint32(size("n", 10_000))}
				}
			case 18:
				r.ExplainIds = make([]string, size("explain_ids", 100))
			case 19:
				r.Segment = text("segment", 64)
			}
		}
		require.Equal(t, protovalidate.Validate(r) == nil, keepsRules(r))
	})
}
