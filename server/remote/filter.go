package remote

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// filterOf returns a filter on the wire, with all that it is bound to; nil for none.
func filterOf(b *eligibility.Bound) (*shardv1.Filter, error) {
	if b == nil {
		return nil, nil
	}
	m := &shardv1.Filter{Text: b.String()}
	values := b.Bindings()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		binding := &shardv1.Binding{Name: name}
		var err error
		if list, ok := values[name].([]any); ok {
			binding.List, err = scalarsOf(list)
		} else {
			binding.One, err = scalarOf(values[name])
		}
		if err != nil {
			return nil, fmt.Errorf("user.%s: %w", name, err)
		}
		m.Bindings = append(m.Bindings, binding)
	}
	return m, nil
}

func scalarsOf(list []any) (*shardv1.ScalarList, error) {
	m := &shardv1.ScalarList{Values: make([]*shardv1.Scalar, len(list))}
	for i, v := range list {
		var err error
		if m.Values[i], err = scalarOf(v); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return m, nil
}

func scalarOf(v any) (*shardv1.Scalar, error) {
	switch v := v.(type) {
	case bool:
		return &shardv1.Scalar{Value: &shardv1.Scalar_Bool{Bool: v}}, nil
	case int64:
		return &shardv1.Scalar{Value: &shardv1.Scalar_Int{Int: v}}, nil
	case float64:
		return &shardv1.Scalar{Value: &shardv1.Scalar_Float{Float: v}}, nil
	case string:
		return &shardv1.Scalar{Value: &shardv1.Scalar_Text{Text: v}}, nil
	case time.Time:
		return &shardv1.Scalar{Value: &shardv1.Scalar_Instant{Instant: &shardv1.Instant{Seconds: v.Unix(), Nanos: uint32(v.Nanosecond())}}}, nil
	}
	return nil, fmt.Errorf("a %T has no form on the wire; want a bool, int64, float64, string or time", v)
}

// compiler compiles filters. A [shard.Tower] does.
type compiler interface {
	Compile(filter string) (*eligibility.Filter, error)
}

// readFilter compiles and binds a filter, nil for none.
func readFilter(ctx context.Context, m *shardv1.Filter, c compiler) (*eligibility.Bound, error) {
	if m == nil {
		return nil, nil
	}
	filter, err := c.Compile(m.GetText())
	if err != nil {
		return nil, err
	}
	values := make(map[string]any, len(m.GetBindings()))
	for _, b := range m.GetBindings() {
		switch {
		case b.GetList() != nil && b.GetOne() != nil:
			return nil, fmt.Errorf("filter: user.%.64s is one value and a list; want one of them", b.GetName())
		case b.GetList() != nil:
			list := make([]any, len(b.GetList().GetValues()))
			for i, v := range b.GetList().GetValues() {
				list[i] = readScalar(v)
			}
			values[b.GetName()] = list
		default:
			values[b.GetName()] = readScalar(b.GetOne())
		}
	}
	bound, err := filter.Bind(ctx, values)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return &bound, nil
}

// readScalar returns a value, nil for none, which no filter can be bound to.
func readScalar(m *shardv1.Scalar) any {
	switch v := m.GetValue().(type) {
	case *shardv1.Scalar_Bool:
		return v.Bool
	case *shardv1.Scalar_Int:
		return v.Int
	case *shardv1.Scalar_Float:
		return v.Float
	case *shardv1.Scalar_Text:
		return v.Text
	case *shardv1.Scalar_Instant:
		return time.Unix(v.Instant.GetSeconds(), int64(v.Instant.GetNanos())).UTC()
	}
	return nil
}
