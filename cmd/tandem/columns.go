package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// columnFlags say what the columns of towers are, for all commands that read some.
type columnFlags struct {
	AppIDColumn             string   `name:"app-id-column" default:"app_id" placeholder:"NAME" help:"Column or key of app ids (default ${default})."`
	UserIDColumn            string   `name:"user-id-column" default:"user_id" placeholder:"NAME" help:"Column or key of user ids (default ${default})."`
	EmbeddingColumn         string   `default:"embedding" placeholder:"NAME" help:"Column of embeddings, a path such as embedding.values, or a pattern such as 'emb_*' of one column for each component (default ${default})."`
	AppEmbeddingColumn      string   `placeholder:"NAME" help:"The same for apps, if it is another than that of users."`
	UserEmbeddingColumn     string   `placeholder:"NAME" help:"The same for users."`
	AppAttributeColumn      []string `sep:"none" placeholder:"NAME" help:"Column of apps that becomes an attribute, where not all are to. May be repeated."`
	UserAttributeColumn     []string `sep:"none" placeholder:"NAME" help:"The same for users."`
	AppRenameColumn         []string `sep:"none" placeholder:"COLUMN=NAME" help:"Another name for the attribute that a column of apps becomes. May be repeated."`
	UserRenameColumn        []string `sep:"none" placeholder:"COLUMN=NAME" help:"The same for users."`
	IgnoreColumn            []string `sep:"none" placeholder:"NAME" help:"Column or key, of either tower, that does not become an attribute. May be repeated."`
	AttributeType           []string `sep:"none" placeholder:"NAME=TYPE" help:"Type of an attribute of either tower, whatever its values look like: keyword, bool, int, float, float32, timestamp or keyword_list. May be repeated."`
	AppPartitionAttributes  []string `placeholder:"KEY" help:"Keys of Hive partitions in the paths of --apps, such as dt in dt=2026-11-20, that become attributes."`
	UserPartitionAttributes []string `placeholder:"KEY" help:"The same for --users."`
}

// tower says how one tower is read.
func (f *columnFlags) tower(kind shard.Kind) (o tower.Options, err error) {
	o = tower.Options{
		IDColumn: f.AppIDColumn, EmbeddingColumn: cmp.Or(f.AppEmbeddingColumn, f.EmbeddingColumn),
		AttributeColumns: f.AppAttributeColumn, IgnoreColumns: f.IgnoreColumn, PartitionAttributes: f.AppPartitionAttributes,
	}
	name, renamed := "app", f.AppRenameColumn
	if kind == shard.Users {
		o.IDColumn, o.EmbeddingColumn = f.UserIDColumn, cmp.Or(f.UserEmbeddingColumn, f.EmbeddingColumn)
		o.AttributeColumns, o.PartitionAttributes = f.UserAttributeColumn, f.UserPartitionAttributes
		name, renamed = "user", f.UserRenameColumn
	}
	if o.AttributeTypes, err = f.attributeTypes(); err != nil {
		return o, err
	}
	o.RenameColumns, err = renames(name, renamed)
	return o, err
}

// joined says how further attributes of a tower are read, which JSON Lines have.
func (f *columnFlags) joined(o tower.Options) tower.AttributeOptions {
	return tower.AttributeOptions{IDKey: o.IDColumn, IgnoreKeys: f.IgnoreColumn, Types: o.AttributeTypes}
}

// renames returns names of attributes by those of columns of a tower.
func renames(tower string, list []string) (map[string]string, error) {
	var names map[string]string
	for _, text := range list {
		i := strings.LastIndexByte(text, '=') // a column may have one in its name, an attribute may not
		if i < 1 || i == len(text)-1 {
			return nil, fmt.Errorf("--%s-rename-column is %.200q, want COLUMN=NAME", tower, text)
		}
		column, name := text[:i], text[i+1:]
		if _, twice := names[column]; twice {
			return nil, fmt.Errorf("--%s-rename-column names %.200s twice", tower, column)
		}
		if names == nil {
			names = map[string]string{}
		}
		names[column] = name
	}
	return names, nil
}

// attributeTypes returns the types that were told, by the names of attributes.
func (f *columnFlags) attributeTypes() (map[string]attribute.Type, error) {
	var types map[string]attribute.Type
	for _, text := range f.AttributeType {
		name, of, found := strings.Cut(text, "=")
		var t attribute.Type
		if err := t.UnmarshalText([]byte(of)); err != nil || !found {
			return nil, fmt.Errorf("--attribute-type is %.200q, want NAME=TYPE: %w", text, err)
		}
		if _, twice := types[name]; twice {
			return nil, fmt.Errorf("--attribute-type names %.200s twice", name)
		}
		if types == nil {
			types = map[string]attribute.Type{}
		}
		types[name] = t
	}
	return types, nil
}
