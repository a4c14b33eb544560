package manifest_test

import (
	"errors"
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/shardtest"
)

// gatedManifest returns a manifest that says all that one can say.
func gatedManifest(t testing.TB) *manifest.Manifest {
	m := shardtest.Manifest(t, shardtest.Store(t, t.TempDir()), shardtest.Grid(3), 1, 1, index.DefaultParams(index.Dot))
	previous := manifest.Sum([]byte("previous"))
	m.Version, m.Tool = manifest.GatesVersion, "tandem v1.2.3"
	m.Parameters = &manifest.Parameters{MaxRejected: 2, Apps: manifest.TowerParameters{IDColumn: "app_id", IgnoreColumns: []string{"x"}}}
	m.Lineage = &manifest.Lineage{Previous: previous}
	m.Apps.Shards[0].Effort = []index.Effort{{K: 10, Target: 0.99, Ef: 20, Recall: 0.991, Scored: 120}}
	m.Gates = &manifest.GateReport{Previous: previous, Off: []string{"norms", "rows"}, Checks: []manifest.GateCheck{
		{Gate: "recall", Subject: "recall@10", Value: 0.98, Bound: manifest.BoundMin, Limit: 0.97, Passed: true, Text: "it is good"},
		{Gate: "rows", Value: 0.5, Bound: manifest.BoundMax, Limit: 0.2, Text: "half of them are gone"},
	}}
	return m
}

func TestGatedManifest(t *testing.T) {
	m := gatedManifest(t)
	data, err := m.Encode()
	require.NoError(t, err)
	back, err := manifest.Decode(data)
	require.NoError(t, err)
	require.Equal(t, m, back)
	require.False(t, back.Gates.Passed())
	require.Equal(t, m.Gates.Checks[1:], back.Gates.Failed())
	// Manifests of before efforts had names for JSON have Go's.
	old := strings.NewReplacer(`"ef": 20`, `"Ef": 20`, `"scored": 120`, `"Scored": 120`).Replace(string(data))
	require.NotEqual(t, string(data), old)
	back, err = manifest.Decode([]byte(old))
	require.NoError(t, err)
	require.Equal(t, m, back)

	// What did not pass and did not fail takes another version, so that an older reader
	// does not leave it out of what it shows.
	undecided := func(m *manifest.Manifest) {
		m.Version = manifest.EvidenceVersion
		m.Gates.Undecided = []manifest.GateCheck{
			{Gate: "alignment", Undecided: manifest.GateNotRun, Text: "no interactions"},
			{Gate: "rows", Value: 1, Bound: manifest.BoundMin, Limit: 2, Undecided: manifest.GateInconclusive, Text: "too few"},
		}
	}
	states := gatedManifest(t)
	undecided(states)
	encoded, err := states.Encode()
	require.NoError(t, err)
	back, err = manifest.Decode(encoded)
	require.NoError(t, err)
	require.Equal(t, states, back)
	var seen []manifest.GateState
	for _, list := range [][]manifest.GateCheck{back.Gates.Checks, back.Gates.Undecided} {
		for _, c := range list {
			seen = append(seen, c.State())
		}
	}
	require.Equal(t, []manifest.GateState{manifest.GatePassed, manifest.GateFailed, manifest.GateNotRun, manifest.GateInconclusive}, seen)
	require.Len(t, back.Gates.Failed(), 1)

	for text, change := range map[string]func(*manifest.Manifest){
		"version is 3, want 6":             func(m *manifest.Manifest) { undecided(m); m.Version = 3 },
		"undecided check 0: state is \"\"": func(m *manifest.Manifest) { undecided(m); m.Gates.Undecided[0].Undecided = "" },
		"and it has passed":                func(m *manifest.Manifest) { undecided(m); m.Gates.Undecided[0].Passed = true },
		"it did not run, and has":          func(m *manifest.Manifest) { undecided(m); m.Gates.Undecided[0].Value = 1 },
		"check 1: state is \"not run\"":    func(m *manifest.Manifest) { m.Gates.Checks[1].Undecided = manifest.GateNotRun },
		"version is 2, want 3":             func(m *manifest.Manifest) { m.Version = 2 },
		"version is 3, want 1": func(m *manifest.Manifest) {
			m.Tool, m.Parameters, m.Lineage, m.Gates, m.Apps.Shards[0].Effort = "", nil, nil, nil, nil
		},
		"tool is \"a\\nb\"":       func(m *manifest.Manifest) { m.Tool = "a\nb" },
		"of at most 256 bytes":    func(m *manifest.Manifest) { m.Tool = strings.Repeat("x", 257) },
		"max_rejected is -1":      func(m *manifest.Manifest) { m.Parameters.MaxRejected = -1 },
		"4097 columns are":        func(m *manifest.Manifest) { m.Parameters.Users.AttributesIgnoreKeys = make([]string, 4097) },
		"lineage: previous \"x\"": func(m *manifest.Manifest) { m.Lineage.Previous = "x" },
		"the lineage says":        func(m *manifest.Manifest) { m.Gates.Previous = manifest.Sum(nil) },
		"gates: previous is":      func(m *manifest.Manifest) { m.Lineage = nil },
		"those turned off are":    func(m *manifest.Manifest) { m.Gates.Off = []string{"b", "a"} },
		"16385 checks":            func(m *manifest.Manifest) { m.Gates.Checks = make([]manifest.GateCheck, 16385) },
		"check 0: gate is \"\"":   func(m *manifest.Manifest) { m.Gates.Checks[0].Gate = "" },
		"bound is \"about\"":      func(m *manifest.Manifest) { m.Gates.Checks[0].Bound = "about" },
		"value is NaN":            func(m *manifest.Manifest) { m.Gates.Checks[1].Value = math.NaN() },
		"limit +Inf":              func(m *manifest.Manifest) { m.Gates.Checks[1].Limit = math.Inf(1) },
		"text 4097, at most 4096": func(m *manifest.Manifest) { m.Gates.Checks[1].Text = strings.Repeat("x", 4097) },
		"apps: shard 0: effort":   func(m *manifest.Manifest) { m.Apps.Shards[0].Effort[0].K = 0 },
		"none that a calibration": func(m *manifest.Manifest) { m.Apps.Shards[0].Effort[0].Recall = 2 },
		"4097 efforts":            func(m *manifest.Manifest) { m.Apps.Shards[0].Effort = make([]index.Effort, 4097) },
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
		_, err := manifest.Decode([]byte(hostile))
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
	visit(reflect.TypeFor[manifest.Manifest]())
	require.True(t, seen[reflect.TypeFor[index.Effort]()])
}

func FuzzDecode(f *testing.F) {
	store := shardtest.Store(f, f.TempDir())
	m := shardtest.Manifest(f, store, shardtest.Grid(3), 1, 1, index.DefaultParams(index.Dot))
	data, err := m.Encode()
	require.NoError(f, err)
	f.Add(data)
	data, err = gatedManifest(f).Encode()
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte(`{"version": 2}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := manifest.Decode(data)
		if err != nil {
			require.True(t, errors.Is(err, sections.ErrCorrupt) || errors.Is(err, sections.ErrVersion), "%v", err)
			return
		}
		_, err = m.Encode()
		require.NoError(t, err, "what decodes can be encoded")
	})
}
