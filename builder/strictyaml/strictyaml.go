// Package strictyaml reads YAML of which nothing is taken in another way than it looks: no
// anchors, aliases and tags, and one document in a file.
//
// Its callers are the builder, for files of segments, and its gates, for their limits.
package strictyaml

import (
	"bytes"
	"errors"
	"io"

	"go.yaml.in/yaml/v3"
)

// Document returns the root of the one document in data; want ends the errors that say
// that there is none or another.
func Document(data []byte, want string) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := d.Decode(&document); errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty: " + want)
	} else if err != nil {
		return nil, err
	}
	if err := d.Decode(&yaml.Node{}); err == nil {
		return nil, errors.New("it has more than one document: " + want)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return document.Content[0], nil
}

// Is reports whether a node is a scalar of a type, such as !!str, in every version of YAML,
// and not by an anchor, an alias or a tag.
func Is(n *yaml.Node, tag string) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == tag && n.Anchor == "" && n.Style&yaml.TaggedStyle == 0
}

// Describe says what a node is; of a scalar, scalar does, unless it is null.
func Describe(n *yaml.Node, scalar func(*yaml.Node) string) string {
	switch {
	case n.Anchor != "":
		return "marked by an anchor"
	case n.Style&yaml.TaggedStyle != 0:
		return "tagged " + n.Tag
	}
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return scalar(n)
}
