package builder_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/shard/manifest"
)

func TestRebuild(t *testing.T) {
	base := syntheticTowers(t, 500, 300)
	o := base.options(t, "1")
	o.Interactions, o.Tool, o.MaxRejected, o.Params.Seed = []string{base.interactions}, "tandem v1", 3, 9
	_, report := build(t, o)
	m := report.Manifest

	again, err := builder.FromManifest(m)
	require.NoError(t, err)
	for _, each := range []struct{ to, from *builder.TowerOptions }{{&again.Apps, &o.Apps}, {&again.Users, &o.Users}} {
		each.to.Input.Paths, each.to.Attributes.Paths = each.from.Input.Paths, each.from.Attributes.Paths
	}
	again.Segments, again.Interactions = o.Segments, o.Interactions
	again.Opened, err = builder.OpenInputs(t.Context(), again, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, again.Opened.Close()) }()
	inputs, err := again.Opened.Describe(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, m.Inputs, inputs)
	require.NoError(t, again.CheckSources(m.Inputs))
	require.NoError(t, builder.CompareInputs(m.Inputs, inputs))
	_, second := build(t, again)
	require.Equal(t, report.Digest, second.Digest, m.Difference(second.Manifest))

	other := again.Params
	other.M++
	for text, change := range map[string]func(*manifest.Manifest){
		"built by tandem-builder/1, this is tandem-builder/": func(m *manifest.Manifest) { m.Builder = "tandem-builder/1" },
		"records no parameters, want version 3":              func(m *manifest.Manifest) { m.Parameters = nil },
		"want the same":                                      func(m *manifest.Manifest) { m.Users.Params = other.String() },
		`key type is "float", want one of auto`: func(m *manifest.Manifest) {
			m.Parameters = &manifest.Parameters{Apps: manifest.TowerParameters{GraphKeys: "float"}}
		},
		"apps: ": func(m *manifest.Manifest) { m.Apps.Params = "m=1" },
	} {
		bad := *m
		change(&bad)
		_, err := builder.FromManifest(&bad)
		require.ErrorContains(t, err, text)
	}
}
