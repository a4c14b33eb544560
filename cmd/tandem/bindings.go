package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// bindings parses NAME=JSON flags into what a filter binds: bool, int64, float64,
// string, or a []any of them.
func bindings(flags []string) (map[string]any, error) {
	if len(flags) == 0 {
		return nil, nil
	}
	values := make(map[string]any, len(flags))
	for _, flag := range flags {
		name, text, ok := strings.Cut(flag, "=")
		if !ok || name == "" {
			return nil, usagef("--bind %s: want NAME=JSON", flag)
		}
		name = strings.TrimPrefix(name, "user.")
		if _, twice := values[name]; twice {
			return nil, usagef("--bind %s: %s is bound twice", flag, name)
		}
		v, err := decodeBinding(text)
		if err != nil {
			return nil, usagef("--bind %s: %s is not JSON; a string needs its quotes: --bind '%s=\"%s\"'", flag, text, name, text)
		}
		if v, err = numbers(v); err != nil {
			return nil, usagef("--bind %s: %w", flag, err)
		}
		if values[name] = v; !bindable(v) {
			return nil, usagef("--bind %s: want a string, a number, a bool or a list of them", flag)
		}
	}
	return values, nil
}

func decodeBinding(text string) (any, error) {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

// numbers replaces each JSON number by an int64 if it is written as an integer, else by
// a float64, so that no digit of an integer is lost.
func numbers(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			i, err := v.Int64()
			if err != nil {
				return nil, fmt.Errorf("%.40s is not from %d to %d; a larger number needs a point or an exponent", v, math.MinInt64, math.MaxInt64)
			}
			return i, nil
		}
		f, err := v.Float64()
		if err != nil {
			return nil, fmt.Errorf("%.40s is beyond the float64 range", v)
		}
		return f, nil
	case []any:
		for i := range v {
			var err error
			if v[i], err = numbers(v[i]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// wireBindings returns the values of bindings as a request has them. Its numbers are
// doubles, so an int that is not below 2^53 is a decimal string.
func wireBindings(values map[string]any) (map[string]*structpb.Value, error) {
	if len(values) == 0 {
		return nil, nil
	}
	out := make(map[string]*structpb.Value, len(values))
	for name, v := range values {
		if list, ok := v.([]any); ok {
			v = slices.Clone(list)
			for i := range list {
				v.([]any)[i] = wireInt(list[i])
			}
		}
		var err error
		if out[name], err = structpb.NewValue(wireInt(v)); err != nil {
			return nil, usagef("--bind %s: %w", name, err)
		}
	}
	return out, nil
}

// wireInt returns an int as a decimal string if a double does not tell it from others,
// and anything else as it is.
func wireInt(v any) any {
	const two53 = 1 << 53
	if i, ok := v.(int64); ok && (i <= -two53 || i >= two53) {
		return strconv.FormatInt(i, 10)
	}
	return v
}

func bindable(v any) bool {
	switch v := v.(type) {
	case bool, int64, float64, string:
		return true
	case []any:
		for _, item := range v {
			if _, list := item.([]any); list || !bindable(item) {
				return false
			}
		}
		return true
	}
	return false
}
