package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
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
	return numbers(v), nil
}

// numbers replaces each JSON number by an int64 if it is one, else by a float64.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := v.Float64() // out of range is an infinity
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
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
