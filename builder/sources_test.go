package builder_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// file is an input of a role, a name and a content.
func file(role, name, content string) manifest.Input {
	return manifest.Input{Role: role, Name: name, Size: int64(len(content)), Digest: manifest.Sum([]byte(content))}
}

func TestCheckSources(t *testing.T) {
	var o builder.Options
	o.Apps.Input.Paths, o.Users.Input.Paths, o.Interactions = []string{"x/apps"}, []string{"x/users"}, []string{"one", "two"}
	built := []manifest.Input{file("apps", "a", "1"), file("apps", "b", "2"), file("users", "u", "3"), file("interactions", "i", "4")}
	require.NoError(t, o.CheckSources(built))

	more := slices.Concat(built, []manifest.Input{file("users-graph", "g", "5"), file("gates", "g.yaml", "6"), file("gates", "h.yaml", "7")})
	missing := (*builder.MissingInputsError)(nil)
	require.ErrorAs(t, o.CheckSources(more), &missing)
	assert.Equal(t, []manifest.Input{more[4], more[5]}, missing.Inputs, "each role once")
	assert.EqualError(t, missing, "missing inputs: g as users-graph, g.yaml as gates: the snapshot was built from them")

	extra := (*builder.ExtraInputError)(nil)
	require.ErrorAs(t, o.CheckSources(built[:3]), &extra)
	assert.Equal(t, builder.Source{Role: "interactions", Paths: []string{"one", "two"}}, extra.Source)
	assert.EqualError(t, extra, "interactions is one, two, the snapshot was built without")

	require.ErrorContains(t, o.CheckSources(append(built, file("moods", "m", "8"))), `built from m of the role "moods", which tandem-builder/`)
}

func TestCompareInputs(t *testing.T) {
	want := []manifest.Input{file("apps", "a", "1"), file("apps", "b", "2"), file("users", "u", "3")}
	sum := func(content string) string { return string(manifest.Sum([]byte(content))) }
	require.NoError(t, builder.CompareInputs(want, want))
	for name, c := range map[string]struct {
		got  []manifest.Input
		at   int
		text string
	}{
		"content": {[]manifest.Input{want[0], file("apps", "b", "22"), want[2]}, 1,
			"apps differs: b has the SHA-256 " + sum("22") + " (2 bytes); the snapshot was built from b with " + sum("2") + " (1 bytes)"},
		"name":    {[]manifest.Input{want[0], want[1], file("users", "v", "3")}, 0, "users differs: v has the content of u, and the name is part of the snapshot: rename it"},
		"fewer":   {[]manifest.Input{want[0], want[2]}, -1, "apps differs: files are 1; the snapshot was built from 2"},
		"another": {append(want[:3:3], file("gates", "g", "4")), -1, "gates differs: files are 1; the snapshot was built from 0"},
	} {
		e := (*builder.InputsError)(nil)
		require.ErrorAs(t, builder.CompareInputs(want, c.got), &e, name)
		assert.Equal(t, c.at, e.At, name)
		assert.EqualError(t, e, c.text, name)
	}
}
