package server

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// modelValue is a value of an attribute as the model has it: a string, an ascending []string,
// a bool, an int64, a float64, a float32 or a time.Time. nil is none.
type modelValue any

type modelValues map[string]modelValue

// The model versions that snapshots are of, and one that none is of.
const (
	modelV1, modelV2, modelV3 = "v1", "v2", "v3"
)

// modelSchemas are the attributes of each tower of each model version. An int of one is a float
// of the other, grade is of types that cannot be one another, and tier is of one alone.
var modelSchemas = map[string]map[shard.Kind]map[string]attribute.Type{
	modelV1: {
		shard.Apps: {
			"developer": attribute.Keyword, "free": attribute.Bool, "grade": attribute.Keyword, "min_age": attribute.Int,
			"platforms": attribute.KeywordList, "price": attribute.Float, "rating": attribute.Float32, "released": attribute.Timestamp,
		},
		shard.Users: {"country": attribute.Keyword, "level": attribute.Int},
	},
	modelV2: {
		shard.Apps: {
			"developer": attribute.Keyword, "free": attribute.Bool, "grade": attribute.Int, "min_age": attribute.Float,
			"platforms": attribute.KeywordList, "price": attribute.Float, "rating": attribute.Float32, "released": attribute.Timestamp,
			"tier": attribute.Keyword,
		},
		shard.Users: {"country": attribute.Keyword, "level": attribute.Int},
	},
}

// modelDims are the dimensions of the model versions' vectors.
var modelDims = map[string]int{modelV1: 16, modelV2: 20, modelV3: 16}

// modelPool are the values that attributes get, as a message has them: with a float for a
// float32, and some that only one version can take, or only by converting them.
var modelPool = map[shard.Kind]map[string][]modelValue{
	shard.Apps: {
		"developer": {"Ten", "Nine Lives", "Elf"},
		"free":      {true, false},
		"grade":     {"A", "B", int64(1), int64(2)},
		"min_age":   {int64(0), int64(7), int64(12), int64(18), 12.0, 12.5},
		"platforms": {[]string{"ios"}, []string{"linux"}, []string{"ios", "windows"}, []string{"ios", "linux", "windows"}},
		"price":     {0.0, 1.25, 2.5, 7.75, int64(3), "a lot"},
		"rating":    {1.5, 3.6, 9.99, int64(4)},
		"released":  {modelDay(0), modelDay(400), modelDay(2000), "2023-05-01T12:00:00Z", "soon"},
		"tier":      {"gold", "tin"},
	},
	shard.Users: {
		"country": {"no", "de", "jp"},
		"level":   {int64(1), int64(2), int64(3), 2.0, "high"},
	},
}

func modelDay(n int) time.Time { return time.Date(2020, 1, 1+n, 0, 0, 0, 0, time.UTC) }

// convertModel returns a value as one of a type, and whether it can be one without a loss.
func convertModel(v modelValue, t attribute.Type) (modelValue, bool) {
	const limit = 1 << 53
	switch v := v.(type) {
	case string:
		if t == attribute.Timestamp {
			at, err := time.Parse(time.RFC3339, v)
			return at.UTC(), err == nil
		}
		return v, t == attribute.Keyword
	case []string:
		return v, t == attribute.KeywordList
	case bool:
		return v, t == attribute.Bool
	case time.Time:
		return v, t == attribute.Timestamp
	case int64:
		switch t {
		case attribute.Int:
			return v, true
		case attribute.Float:
			return float64(v), int64(float64(v)) == v
		case attribute.Float32:
			return float32(v), int64(float32(v)) == v
		}
	case float64:
		switch t {
		case attribute.Int:
			return int64(v), v == math.Trunc(v) && math.Abs(v) < limit
		case attribute.Float:
			return v, true
		case attribute.Float32: // as a build rounds what it reads
			return float32(v), true
		}
	}
	return nil, false
}

// attributeOfModel returns a value as the live log has it.
func attributeOfModel(v modelValue) attribute.Value {
	switch v := v.(type) {
	case string:
		return attribute.OfKeyword(v)
	case []string:
		return attribute.OfKeywords(slices.Clone(v))
	case bool:
		return attribute.OfBool(v)
	case int64:
		return attribute.OfInt(v)
	case float64:
		return attribute.OfFloat(v)
	case float32:
		return attribute.OfFloat32(v)
	case time.Time:
		return attribute.OfTimestamp(v)
	}
	return attribute.Value{}
}

// wireOfModel returns a value as answers have it.
func wireOfModel(v modelValue) *tandemv1.AttributeValue {
	switch v := v.(type) {
	case string:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Keyword{Keyword: v}}
	case []string:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Keywords{Keywords: &tandemv1.Keywords{Values: v}}}
	case bool:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Bool{Bool: v}}
	case int64:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Int{Int: v}}
	case float64:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Float{Float: v}}
	case float32:
		f, err := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
		if err != nil {
			panic(err)
		}
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Float{Float: f}}
	case time.Time:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Timestamp{Timestamp: timestamppb.New(v)}}
	}
	panic(fmt.Sprintf("%T is no value of an attribute", v))
}

// evenly returns a generator of the numbers below n, each as likely as the next: those of rapid
// prefer small ones, so that hardly any of what is rare, and is drawn by a large number, is drawn.
func evenly(n int) *rapid.Generator[int] {
	return rapid.Custom(func(t *rapid.T) int {
		v, of := 0, 1
		for of < 8*n {
			v, of = 2*v, 2*of
			if rapid.Bool().Draw(t, "bit") {
				v++
			}
		}
		return v * n / of
	})
}

// between draws a number from least to most, each as likely as the next.
func between(t *rapid.T, least, most int, label string) int {
	return least + evenly(most-least+1).Draw(t, label)
}

// oneOf draws an element of a list, each as likely as the next.
func oneOf[T any](t *rapid.T, list []T, label string) T {
	return list[evenly(len(list)).Draw(t, label)]
}

// modelClause is a condition: its text in CEL, and what it means.
type modelClause struct {
	text  string
	holds func(v modelValues, user map[string]float64) bool
}

// modelSegments are those of every snapshot, each a chain of conditions.
var modelSegments = map[string][]modelClause{
	"cheap":       {compareModel("price", "<", 2.5)},
	"free":        {boolModel("free")},
	"ios_teen":    {inModel("ios", "platforms"), compareModel("min_age", "<", 18)},
	"ten_or_none": {orModel(notModel(hasModel("developer")), equalModel("developer", "==", "Ten"))},
}

// chainText is the text of conditions that are joined by &&.
func chainText(chain []modelClause) string {
	var texts []string
	for _, c := range chain {
		texts = append(texts, c.text)
	}
	return strings.Join(texts, " && ")
}

// firstFalse returns the first of the conditions of a chain that is false of a row, nil if all
// are true.
func firstFalse(chain []modelClause, v modelValues, user map[string]float64) *modelClause {
	for i := range chain {
		if !chain[i].holds(v, user) {
			return &chain[i]
		}
	}
	return nil
}

// numberOfModel returns the number that a value is, and whether it is one; a constant that is
// compared with a float32 is rounded to one first.
func numberOfModel(v modelValue, constant float64) (number, compared float64, ok bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), constant, true
	case float64:
		return v, constant, true
	case float32:
		return float64(v), float64(float32(constant)), true
	}
	return 0, 0, false
}

func comparesModel(order int, operator string) bool {
	switch operator {
	case "==":
		return order == 0
	case "!=":
		return order != 0
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

func orderOfModel(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func compareModel(name, operator string, constant float64) modelClause {
	return modelClause{fmt.Sprintf("%s %s %v", name, operator, constant), func(v modelValues, _ map[string]float64) bool {
		a, b, ok := numberOfModel(v[name], constant)
		return ok && comparesModel(orderOfModel(a, b), operator)
	}}
}

func boundModel(name, operator, binding string) modelClause {
	return modelClause{fmt.Sprintf("%s %s user.%s", name, operator, binding), func(v modelValues, user map[string]float64) bool {
		a, b, ok := numberOfModel(v[name], user[binding])
		return ok && comparesModel(orderOfModel(a, b), operator)
	}}
}

func equalModel(name, operator, text string) modelClause {
	return modelClause{fmt.Sprintf("%s %s %q", name, operator, text), func(v modelValues, _ map[string]float64) bool {
		s, ok := v[name].(string)
		return ok && comparesModel(strings.Compare(s, text), operator)
	}}
}

func prefixModel(name, prefix string) modelClause {
	return modelClause{fmt.Sprintf("%s.startsWith(%q)", name, prefix), func(v modelValues, _ map[string]float64) bool {
		s, ok := v[name].(string)
		return ok && strings.HasPrefix(s, prefix)
	}}
}

func oneOfModel(name string, list ...string) modelClause {
	return modelClause{fmt.Sprintf(`%s in ["%s"]`, name, strings.Join(list, `", "`)), func(v modelValues, _ map[string]float64) bool {
		s, ok := v[name].(string)
		return ok && slices.Contains(list, s)
	}}
}

func inModel(text, name string) modelClause {
	return modelClause{fmt.Sprintf("%q in %s", text, name), func(v modelValues, _ map[string]float64) bool {
		list, _ := v[name].([]string)
		return slices.Contains(list, text)
	}}
}

func existsModel(name, prefix string) modelClause {
	return modelClause{fmt.Sprintf("%s.exists(p, p.startsWith(%q))", name, prefix), func(v modelValues, _ map[string]float64) bool {
		list, _ := v[name].([]string)
		return slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, prefix) })
	}}
}

func boolModel(name string) modelClause {
	return modelClause{name, func(v modelValues, _ map[string]float64) bool { is, _ := v[name].(bool); return is }}
}

func hasModel(name string) modelClause {
	return modelClause{"has(" + name + ")", func(v modelValues, _ map[string]float64) bool { return v[name] != nil }}
}

func timeModel(name, operator string, at time.Time) modelClause {
	return modelClause{fmt.Sprintf("%s %s timestamp(%q)", name, operator, at.Format(time.RFC3339)), func(v modelValues, _ map[string]float64) bool {
		t, ok := v[name].(time.Time)
		return ok && comparesModel(t.Compare(at), operator)
	}}
}

func notModel(c modelClause) modelClause {
	return modelClause{"!(" + c.text + ")", func(v modelValues, user map[string]float64) bool { return !c.holds(v, user) }}
}

// orModel is what must be put in parentheses beside an &&.
func orModel(a, b modelClause) modelClause {
	return modelClause{a.text + " || " + b.text, func(v modelValues, user map[string]float64) bool { return a.holds(v, user) || b.holds(v, user) }}
}

// drawChain draws a filter over a tower that every version can take: conditions that are
// joined by &&, none for no filter.
func drawChain(t *rapid.T, kind shard.Kind) []modelClause {
	n := oneOf(t, []int{0, 0, 1, 1, 2, 3}, "conditions")
	var chain []modelClause
	for range n {
		c := drawLeaf(t, kind)
		switch between(t, 0, 5, "form") {
		case 4:
			c = notModel(c)
		case 5:
			c = orModel(c, drawLeaf(t, kind))
		}
		chain = append(chain, c)
	}
	return chain
}

// enclosed returns a chain whose conditions are in parentheses where it takes them.
func enclosed(chain []modelClause) []modelClause {
	if len(chain) == 1 {
		return chain
	}
	out := slices.Clone(chain)
	for i := range out {
		if strings.Contains(out[i].text, " || ") && !strings.HasPrefix(out[i].text, "!(") {
			out[i].text = "(" + out[i].text + ")"
		}
	}
	return out
}

func drawLeaf(t *rapid.T, kind shard.Kind) modelClause {
	operator := func() string {
		return oneOf(t, []string{"<", "==", "!=", "<=", ">", ">="}, "operator")
	}
	if kind == shard.Users {
		switch between(t, 0, 2, "condition") {
		case 0:
			return equalModel("country", oneOf(t, []string{"==", "!="}, "operator"), oneOf(t, []string{"no", "de"}, "text"))
		case 1:
			return compareModel("level", operator(), float64(between(t, 1, 3, "number")))
		}
		return hasModel(oneOf(t, slices.Sorted(maps.Keys(modelSchemas[modelV1][kind])), "attribute"))
	}
	switch between(t, 0, 10, "condition") {
	case 0:
		return compareModel("price", operator(), oneOf(t, []float64{0, 1.25, 2.5, 3, 5}, "number"))
	case 1:
		return compareModel("min_age", operator(), oneOf(t, []float64{0, 7, 12, 12.5, 18}, "number"))
	case 2:
		return compareModel("rating", operator(), oneOf(t, []float64{1.5, 3.6, 4, 9.99}, "number"))
	case 3:
		return equalModel("developer", oneOf(t, []string{"==", "!="}, "operator"), oneOf(t, []string{"Ten", "Elf"}, "text"))
	case 4:
		return prefixModel("developer", oneOf(t, []string{"N", "T"}, "prefix"))
	case 5:
		return oneOfModel("developer", "Elf", "Ten")
	case 6:
		return inModel(oneOf(t, []string{"ios", "linux", "windows"}, "platform"), "platforms")
	case 7:
		return existsModel("platforms", oneOf(t, []string{"l", "wi"}, "prefix"))
	case 8:
		return boolModel("free")
	case 9:
		return timeModel("released", operator(), oneOf(t, []time.Time{modelDay(0), modelDay(400), modelDay(1000)}, "time"))
	}
	return hasModel(oneOf(t, []string{"developer", "free", "grade", "min_age", "platforms", "price", "rating", "released"}, "attribute"))
}

// boundModelAge is what a filter has that reads a binding.
func boundModelAge(t *rapid.T) (modelClause, map[string]float64, map[string]*structpb.Value) {
	age := oneOf(t, []float64{0, 7, 12, 18}, "age")
	return boundModel("min_age", "<=", "age"), map[string]float64{"age": age}, map[string]*structpb.Value{"age": structpb.NewNumberValue(age)}
}
