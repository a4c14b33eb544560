package wire

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// AttributeValue returns a value in the contract's form, nil if it is absent. A float32 is
// what its number is written as; see [attribute.Value.Float].
func AttributeValue(v attribute.Value) *tandemv1.AttributeValue {
	switch v.Type() {
	case attribute.Keyword:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Keyword{Keyword: v.Keyword()}}
	case attribute.KeywordList:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Keywords{Keywords: &tandemv1.Keywords{Values: v.Keywords()}}}
	case attribute.Bool:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Bool{Bool: v.Bool()}}
	case attribute.Int:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Int{Int: v.Int()}}
	case attribute.Float, attribute.Float32:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Float{Float: v.Float()}}
	case attribute.Timestamp:
		return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Timestamp{Timestamp: timestamppb.New(v.Time())}}
	}
	return nil
}

// Attribute returns a value of the contract. One that is not set is an error, and so are a
// list without a keyword and a float that is NaN, which would be absent. The error completes
// a sentence about the value.
func Attribute(v *tandemv1.AttributeValue) (attribute.Value, error) {
	var out attribute.Value
	switch v := v.GetValue().(type) {
	case *tandemv1.AttributeValue_Keyword:
		out = attribute.OfKeyword(v.Keyword)
	case *tandemv1.AttributeValue_Keywords:
		if out = attribute.OfKeywords(slices.Clone(v.Keywords.GetValues())); out.Absent() {
			return out, fmt.Errorf("keywords has no values; accepted: at least one, or no such attribute")
		}
	case *tandemv1.AttributeValue_Bool:
		out = attribute.OfBool(v.Bool)
	case *tandemv1.AttributeValue_Int:
		out = attribute.OfInt(v.Int)
	case *tandemv1.AttributeValue_Float:
		if out = attribute.OfFloat(v.Float); out.Absent() {
			return out, fmt.Errorf("float is NaN; accepted: a finite number")
		}
	case *tandemv1.AttributeValue_Timestamp:
		if err := v.Timestamp.CheckValid(); err != nil {
			return out, fmt.Errorf("timestamp: %w; accepted: a time of the years 1 to 9999", err)
		}
		out = attribute.OfTimestamp(v.Timestamp.AsTime())
	default:
		return out, fmt.Errorf("it has no value; accepted: keyword, keywords, bool, int, float or timestamp")
	}
	return out, nil
}

// LivePosition returns a position in the contract's form.
func LivePosition(p shard.Position) *tandemv1.LivePosition {
	return &tandemv1.LivePosition{Log: p.Log, Sequence: p.Sequence}
}

// Position returns a position of the contract. None is the position before all events.
func Position(p *tandemv1.LivePosition) shard.Position {
	return shard.Position{Log: p.GetLog(), Sequence: p.GetSequence()}
}
