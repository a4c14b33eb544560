package builder

import (
	"fmt"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/builder/tower/hnswexport"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// FromManifest returns the options that a snapshot was built with, as far as its manifest
// has them: all but the paths of its inputs, and what does not change it. Building with
// them gives the same digest, or this builder is at fault.
func FromManifest(m *manifest.Manifest) (Options, error) {
	o := Options{Model: m.Model, ModelVersion: m.ModelVersion, Tool: m.Tool, LivePosition: m.Live}
	if m.Builder != Version {
		return o, fmt.Errorf("the snapshot was built by %s, this is %s, which builds another one of the same inputs", m.Builder, Version)
	}
	if m.Parameters == nil {
		return o, fmt.Errorf("the manifest is of version %d and records no parameters, want version %d", m.Version, manifest.GatesVersion)
	}
	if m.Lineage != nil {
		o.Previous = m.Lineage.Previous
	}
	o.MaxRejected = m.Parameters.MaxRejected
	apps, err := towerFromManifest(&o.Apps, &m.Apps, m.Parameters.Apps)
	if err != nil {
		return o, fmt.Errorf("apps: %w", err)
	}
	users, err := towerFromManifest(&o.Users, &m.Users, m.Parameters.Users)
	if err != nil {
		return o, fmt.Errorf("users: %w", err)
	}
	if apps != users {
		return o, fmt.Errorf("apps have the parameters %q, users %q, want the same", apps, users)
	}
	o.Params = apps
	return o, nil
}

// towerFromManifest fills in how one tower was built, and returns the parameters of its
// indexes. Whether they are frozen follows from whether there is a graph.
func towerFromManifest(o *TowerOptions, t *manifest.Tower, p manifest.TowerParameters) (params index.Params, err error) {
	o.Shards = len(t.Shards)
	o.Input, o.Attributes = inputOptions(p)
	if p.GraphKeys != "" {
		if o.GraphKeys, err = hnswexport.ParseKeyType(p.GraphKeys); err != nil {
			return params, err
		}
	}
	params, err = index.ParseParams(t.Params)
	params.Frozen = false
	return params, err
}

// inputOptions returns how the rows and the JSON Lines of a tower are read that was built with
// these parameters.
func inputOptions(p manifest.TowerParameters) (tower.Options, tower.AttributeOptions) {
	return tower.Options{
		IDColumn: p.IDColumn, EmbeddingColumn: p.EmbeddingColumn, IgnoreColumns: p.IgnoreColumns, NumberRows: p.NumberRows,
		PartitionAttributes: p.PartitionAttributes, AttributeTypes: p.AttributeTypes,
		AttributeColumns: p.AttributeColumns, RenameColumns: p.RenameColumns,
	}, tower.AttributeOptions{IDKey: p.AttributesIDKey, IgnoreKeys: p.AttributesIgnoreKeys, Types: p.AttributeTypes}
}
