package shard_test

import (
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
)

// gatedManifest returns a manifest that says all that one can say.
func gatedManifest(t testing.TB) *shard.Manifest {
	m := newManifest(t, newStore(t, t.TempDir()), grid(3), 1, 1, index.DefaultParams(index.Dot))
	previous := shard.Sum([]byte("previous"))
	m.Version, m.Tool = shard.GatesVersion, "tandem v1.2.3"
	m.Parameters = &shard.Parameters{MaxRejected: 2, Apps: shard.TowerParameters{IDColumn: "app_id", IgnoreColumns: []string{"x"}}}
	m.Lineage = &shard.Lineage{Previous: previous}
	m.Apps.Shards[0].Effort = []index.Effort{{K: 10, Target: 0.99, Ef: 20, Recall: 0.991, Scored: 120}}
	m.Gates = &shard.GateReport{Previous: previous, Off: []string{"norms", "rows"}, Checks: []shard.GateCheck{
		{Gate: "recall", Subject: "recall@10", Value: 0.98, Bound: shard.BoundMin, Limit: 0.97, Passed: true, Text: "it is good"},
		{Gate: "rows", Value: 0.5, Bound: shard.BoundMax, Limit: 0.2, Text: "half of them are gone"},
	}}
	return m
}

func TestGatedManifest(t *testing.T) {
	m := gatedManifest(t)
	data, err := m.Encode()
	require.NoError(t, err)
	back, err := shard.DecodeManifest(data)
	require.NoError(t, err)
	require.Equal(t, m, back)
	require.False(t, back.Gates.Passed())
	require.Equal(t, m.Gates.Checks[1:], back.Gates.Failed())
	// Manifests of before efforts had names for JSON have Go's.
	old := strings.NewReplacer(`"ef": 20`, `"Ef": 20`, `"scored": 120`, `"Scored": 120`).Replace(string(data))
	require.NotEqual(t, string(data), old)
	back, err = shard.DecodeManifest([]byte(old))
	require.NoError(t, err)
	require.Equal(t, m, back)

	// What did not pass and did not fail takes another version, so that an older reader
	// does not leave it out of what it shows.
	undecided := func(m *shard.Manifest) {
		m.Version = shard.StatesVersion
		m.Gates.Undecided = []shard.GateCheck{
			{Gate: "alignment", Undecided: shard.GateNotRun, Text: "no interactions"},
			{Gate: "rows", Value: 1, Bound: shard.BoundMin, Limit: 2, Undecided: shard.GateInconclusive, Text: "too few"},
		}
	}
	states := gatedManifest(t)
	undecided(states)
	encoded, err := states.Encode()
	require.NoError(t, err)
	back, err = shard.DecodeManifest(encoded)
	require.NoError(t, err)
	require.Equal(t, states, back)
	var seen []shard.GateState
	for _, list := range [][]shard.GateCheck{back.Gates.Checks, back.Gates.Undecided} {
		for _, c := range list {
			seen = append(seen, c.State())
		}
	}
	require.Equal(t, []shard.GateState{shard.GatePassed, shard.GateFailed, shard.GateNotRun, shard.GateInconclusive}, seen)
	require.Len(t, back.Gates.Failed(), 1)

	for text, change := range map[string]func(*shard.Manifest){
		"version is 3, want 6":             func(m *shard.Manifest) { undecided(m); m.Version = 3 },
		"undecided check 0: state is \"\"": func(m *shard.Manifest) { undecided(m); m.Gates.Undecided[0].Undecided = "" },
		"and it has passed":                func(m *shard.Manifest) { undecided(m); m.Gates.Undecided[0].Passed = true },
		"it did not run, and has":          func(m *shard.Manifest) { undecided(m); m.Gates.Undecided[0].Value = 1 },
		"check 1: state is \"not run\"":    func(m *shard.Manifest) { m.Gates.Checks[1].Undecided = shard.GateNotRun },
		"version is 2, want 3":             func(m *shard.Manifest) { m.Version = 2 },
		"version is 3, want 1": func(m *shard.Manifest) {
			m.Tool, m.Parameters, m.Lineage, m.Gates, m.Apps.Shards[0].Effort = "", nil, nil, nil, nil
		},
		"tool is \"a\\nb\"":       func(m *shard.Manifest) { m.Tool = "a\nb" },
		"of at most 256 bytes":    func(m *shard.Manifest) { m.Tool = strings.Repeat("x", 257) },
		"max_rejected is -1":      func(m *shard.Manifest) { m.Parameters.MaxRejected = -1 },
		"4097 columns are":        func(m *shard.Manifest) { m.Parameters.Users.AttributesIgnoreKeys = make([]string, 4097) },
		"lineage: previous \"x\"": func(m *shard.Manifest) { m.Lineage.Previous = "x" },
		"the lineage says":        func(m *shard.Manifest) { m.Gates.Previous = shard.Sum(nil) },
		"gates: previous is":      func(m *shard.Manifest) { m.Lineage = nil },
		"those turned off are":    func(m *shard.Manifest) { m.Gates.Off = []string{"b", "a"} },
		"16385 checks":            func(m *shard.Manifest) { m.Gates.Checks = make([]shard.GateCheck, 16385) },
		"check 0: gate is \"\"":   func(m *shard.Manifest) { m.Gates.Checks[0].Gate = "" },
		"bound is \"about\"":      func(m *shard.Manifest) { m.Gates.Checks[0].Bound = "about" },
		"value is NaN":            func(m *shard.Manifest) { m.Gates.Checks[1].Value = math.NaN() },
		"limit +Inf":              func(m *shard.Manifest) { m.Gates.Checks[1].Limit = math.Inf(1) },
		"text 4097, at most 4096": func(m *shard.Manifest) { m.Gates.Checks[1].Text = strings.Repeat("x", 4097) },
		"apps: shard 0: effort":   func(m *shard.Manifest) { m.Apps.Shards[0].Effort[0].K = 0 },
		"none that a calibration": func(m *shard.Manifest) { m.Apps.Shards[0].Effort[0].Recall = 2 },
		"4097 efforts":            func(m *shard.Manifest) { m.Apps.Shards[0].Effort = make([]index.Effort, 4097) },
	} {
		t.Run(text, func(t *testing.T) {
			m := gatedManifest(t)
			change(m)
			_, err := m.Encode()
			require.ErrorContains(t, err, text)
		})
	}
	for old, changed := range map[string]string{
		`"bound": "min"`:  `"bound": "around"`,
		`"passed": true`:  `"passed": true, "because": "I say so"`,
		`"version": 3`:    `"version": 9`,
		`"value": 0.98`:   `"value": 1e999`,
		`"ef": 20`:        `"ef": -1`,
		`"lineage": {`:    `"lineage": null, "ancestry": {`,
		`"tool": "tandem`: `"tool": "tandem\n`,
	} {
		hostile := strings.Replace(string(data), old, changed, 1)
		require.NotEqual(t, string(data), hostile, old)
		_, err := shard.DecodeManifest([]byte(hostile))
		require.Error(t, err, changed)
		if old == `"version": 3` {
			require.ErrorIs(t, err, sections.ErrVersion)
		} else {
			require.ErrorIs(t, err, sections.ErrCorrupt)
		}
	}
}

// Every field of a manifest has a name of one style, those of other packages' types too:
// Go's own would change the format whenever a field is renamed.
func TestManifestNames(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*(,omitempty)?$`)
	seen := map[reflect.Type]bool{}
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		switch {
		case seen[typ]:
			return
		case typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice:
			visit(typ.Elem())
			return
		case typ.Kind() != reflect.Struct:
			return
		}
		seen[typ] = true
		for field := range typ.Fields() {
			if field.IsExported() && !field.Anonymous {
				require.Regexp(t, name, field.Tag.Get("json"), "%s.%s", typ, field.Name)
			}
			visit(field.Type)
		}
	}
	visit(reflect.TypeFor[shard.Manifest]())
	require.True(t, seen[reflect.TypeFor[index.Effort]()])
}
