package strictyaml_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/tandem-ann/tandem/builder/strictyaml"
)

func TestDocument(t *testing.T) {
	for text, want := range map[string]string{
		"":                "it is empty: want a mapping",
		"# nothing":       "it is empty: want a mapping",
		"a: 1\n---\nb: 2": "it has more than one document: want a mapping",
	} {
		_, err := strictyaml.Document([]byte(text), "want a mapping")
		require.EqualError(t, err, want)
	}
	_, err := strictyaml.Document([]byte("a: [1"), "want a mapping")
	require.Error(t, err)
}

func TestDescribe(t *testing.T) {
	for text, want := range map[string]string{
		"{a: 1}": "a mapping", "[1]": "a list", "&a 1": "marked by an anchor", "!!int 1": "tagged !!int", "!x y": "tagged !x",
		"~": "nothing", "1": "a scalar 1", "yes": "a scalar yes",
	} {
		n, err := strictyaml.Document([]byte(text), "")
		require.NoError(t, err)
		assert.Equal(t, want, strictyaml.Describe(n, func(n *yaml.Node) string { return "a scalar " + n.Value }), text)
	}
}

func TestIs(t *testing.T) {
	for text, want := range map[string]bool{"x": true, `"1"`: true, "1": false, "&a x": false, "!!str x": false, "[x]": false, "~": false} {
		n, err := strictyaml.Document([]byte(text), "")
		require.NoError(t, err)
		assert.Equal(t, want, strictyaml.Is(n, "!!str"), text)
	}
}
