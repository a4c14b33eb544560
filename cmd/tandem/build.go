package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/builder/tower/hnswexport"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

type buildCommand struct {
	Apps  []string `required:"" sep:"none" placeholder:"PATH" help:"App tower: Parquet, or .npy, .fbin, .u8bin or .i8bin with --app-ids; a file, a folder of files and folders, a glob in quotes, or a URL of one (s3, gs, azblob). May be repeated."`
	Users []string `required:"" sep:"none" placeholder:"PATH" help:"User tower, likewise."`
	requiredStoreFlags
	Model        string       `required:"" placeholder:"NAME" help:"Name of the model that produced both towers."`
	ModelVersion string       `required:"" placeholder:"VERSION" help:"Version of that model."`
	Metric       index.Metric `required:"" placeholder:"METRIC" help:"How users and apps are compared: dot, cosine or l2."`

	Shards     int  `default:"1" placeholder:"N" help:"Number of shards of the app tower (default ${default})."`
	UserShards *int `placeholder:"N" help:"Number of shards of the user tower; by default as many as --shards."`
	Threads    int  `default:"${threads}" placeholder:"N" help:"Threads to build on; the snapshot does not depend on it (default all cores, here ${default})."`

	towerFiles
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
	MaxRejected             int      `default:"0" placeholder:"N" help:"How many rows may be rejected before the build fails (default ${default})."`

	M              int     `default:"${m}" placeholder:"N" help:"Neighbours of a node (default ${default})."`
	EfConstruction int     `default:"${ef_construction}" placeholder:"N" help:"Effort of inserting a node (default ${default})."`
	Alpha          float32 `default:"${alpha}" placeholder:"X" help:"Slack of the neighbour selection (default ${default})."`
	Seed           uint64  `default:"0" placeholder:"N" help:"Seed of the graph's levels and order (default ${default})."`

	GraphKeys string `default:"auto" enum:"auto,string,int,int64,uint64,int32,uint32" placeholder:"TYPE" help:"Go type of the export's keys: ${enum} (default ${default})."`

	gateFlags

	JSON bool `help:"Print the report as JSON."`
}

// towerFiles are the files that a build reads beside those of both towers and of the
// gates.
type towerFiles struct {
	AppIDs         []string `name:"app-ids" sep:"none" placeholder:"PATH" help:"Ids of apps for formats without ids: one a line, or .npy; paths as of --apps. May be repeated."`
	UserIDs        []string `name:"user-ids" sep:"none" placeholder:"PATH" help:"Ids of users, likewise."`
	AppAttributes  []string `sep:"none" placeholder:"PATH" help:"JSON Lines of further attributes of apps, joined by --app-id-column; gzip and zstd are read; paths as of --apps. May be repeated."`
	UserAttributes []string `sep:"none" placeholder:"PATH" help:"JSON Lines of further attributes of users, joined by --user-id-column, likewise."`
	Segments       string   `placeholder:"FILE" help:"YAML mapping of segment names to eligibility filters of apps; queries may name a segment."`
	Graph          string   `placeholder:"FILE" help:"A coder/hnsw export over the app ids, to freeze instead of constructing a graph. Takes one shard."`
}

// inputs are all files that a build reads, by the flags that name them.
type inputs struct {
	apps, users []string
	towerFiles
	gateFiles
}

// set tells the options of a build where its inputs are.
func (in *inputs) set(o *builder.Options) {
	o.Apps.Input.Paths, o.Apps.Input.IDs, o.Apps.Attributes.Paths, o.Apps.Graph = in.apps, in.AppIDs, in.AppAttributes, in.Graph
	o.Users.Input.Paths, o.Users.Input.IDs, o.Users.Attributes.Paths = in.users, in.UserIDs, in.UserAttributes
	o.Segments, o.Gates, o.Interactions = in.Segments, in.Gates, in.Interactions
}

func (buildCommand) Help() string {
	return `The last line of the report is the snapshot's digest. The same files and flags give the same digest, on any number of threads, if what is released to most traffic is the same, which the gates compare with, or --previous.

Example:

    tandem build --apps towers/apps.parquet --users towers/users.parquet \
        --model feed --model-version 1 --metric dot --shards 4 --store store

A file of segments:

    ios_teen: '"ios" in platforms && min_age < 18'
    free_to_play: free

The gates run on the snapshot, and their report is in its manifest. A snapshot that fails is published, so that it can be looked at; the exit code is then 3, and tandem release start refuses it.

If the store fails when the snapshot is to be published, or the build is interrupted then, what is built is kept for seven days: the same command goes on from there.`
}

func (c *buildCommand) options() (builder.Options, error) {
	userShards := c.Shards
	if c.UserShards != nil {
		userShards = *c.UserShards
	}
	types, err := c.attributeTypes()
	if err != nil {
		return builder.Options{}, err
	}
	appNames, err := renames("app", c.AppRenameColumn)
	if err != nil {
		return builder.Options{}, err
	}
	userNames, err := renames("user", c.UserRenameColumn)
	if err != nil {
		return builder.Options{}, err
	}
	keys, err := hnswexport.ParseKeyType(c.GraphKeys)
	o := builder.Options{
		Model: c.Model, ModelVersion: c.ModelVersion,
		Params:  index.Params{Metric: c.Metric, M: c.M, EfConstruction: c.EfConstruction, Alpha: c.Alpha, Seed: c.Seed},
		Threads: c.Threads, MaxRejected: c.MaxRejected, Tool: toolRelease,
		Apps:  c.tower(c.AppIDColumn, c.Shards, c.AppPartitionAttributes, types),
		Users: c.tower(c.UserIDColumn, userShards, c.UserPartitionAttributes, types),
	}
	for _, t := range []struct {
		in        *tower.Options
		embedding string
		columns   []string
		names     map[string]string
	}{
		{&o.Apps.Input, c.AppEmbeddingColumn, c.AppAttributeColumn, appNames},
		{&o.Users.Input, c.UserEmbeddingColumn, c.UserAttributeColumn, userNames},
	} {
		t.in.EmbeddingColumn = cmp.Or(t.embedding, c.EmbeddingColumn)
		t.in.AttributeColumns, t.in.RenameColumns = t.columns, t.names
	}
	o.Apps.GraphKeys = keys
	(&inputs{c.Apps, c.Users, c.towerFiles, c.gateFiles}).set(&o)
	return o, err
}

// tower says how one tower is read and divided.
func (c *buildCommand) tower(idColumn string, shards int, partitions []string, types map[string]attribute.Type) builder.TowerOptions {
	return builder.TowerOptions{
		Input: tower.Options{
			IDColumn: idColumn, IgnoreColumns: c.IgnoreColumn,
			PartitionAttributes: partitions, AttributeTypes: types,
		},
		Attributes: tower.AttributeOptions{IDKey: idColumn, IgnoreKeys: c.IgnoreColumn, Types: types},
		Shards:     shards,
	}
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
func (c *buildCommand) attributeTypes() (map[string]attribute.Type, error) {
	var types map[string]attribute.Type
	for _, text := range c.AttributeType {
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

func (c *buildCommand) Run(e *environment) (err error) {
	o, err := c.options()
	switch n := c.UserShards; {
	case err != nil:
		return usageError{err}
	case c.Threads < 1:
		return usagef("threads is %d, want at least 1", c.Threads)
	case n != nil && (*n < 1 || *n > shard.MaxShards):
		return usagef("--user-shards is %d, want 1 to %d", *n, shard.MaxShards)
	}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	moving := newTransfers(e.stderr)
	defer moving.Done()
	so := c.cacheFlags.options()
	so.Progress, so.Waiting = moving.Transfer, newWaiting(e.stderr)
	store, err := shard.CreateStore(e.ctx, c.Store, so)
	if err != nil {
		return err
	}
	defer closing(&err, store)
	if o.Previous, err = c.previous(e, store, ""); err != nil {
		return err
	}
	start := time.Now()
	report, err := build(e, store, o)
	if err != nil {
		return err
	}
	if c.JSON {
		err = writeJSON(e.stdout, jsonReport(report, time.Since(start)))
	} else {
		err = writeReport(e.stdout, report, time.Since(start), o.Threads)
	}
	return cmp.Or(err, passed(report.Gates))
}

// build builds a snapshot and shows how far it is.
func build(e *environment, store *shard.Store, o builder.Options) (*builder.Report, error) {
	p := newProgress(e.stderr)
	defer p.Done()
	o.Progress = p
	return builder.Build(e.ctx, store, o)
}

// writeReport writes what a build did, for people.
func writeReport(w io.Writer, r *builder.Report, took time.Duration, threads int) error {
	m := r.Manifest
	fmt.Fprintf(w, "%s at %s, metric %s, dim %d\n\n", m.Model, m.ModelVersion, m.Metric, m.Dim)
	if err := writeTowers(w, m); err != nil {
		return err
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if rejected := r.Rejected[kind]; rejected != nil && rejected.Total > 0 {
			fmt.Fprintf(w, "\n%s rejected:\n  %s\n", kind, strings.ReplaceAll(strings.TrimSpace(rejected.String()), "\n", "\n  "))
		}
	}
	if err := writeRecall(w, m); err != nil {
		return err
	}
	if err := writeSegments(w, m); err != nil {
		return err
	}
	writeGates(w, r.Gates)
	_, err := fmt.Fprintf(w, "\nbuilt in %s on %s; the snapshot is\n%s\n", seconds(took), plural(int64(threads), "thread"), r.Digest)
	return err
}

// writeTowers writes a table of the two towers.
func writeTowers(w io.Writer, m *shard.Manifest) error {
	t := newTable(w)
	fmt.Fprintln(t, "tower\trows\trejected\tattributes\tshards\tbytes")
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		tm := m.Tower(kind)
		var size int64
		for _, s := range tm.Shards {
			size += s.Size
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\n", kind, count(int64(tm.Rows)), count(int64(tm.Rejected)), tm.Schema.Len(), len(tm.Shards), byteSize(size))
	}
	return t.Flush()
}

// writeRecall writes a table of what the build measured, and says what it could not.
func writeRecall(w io.Writer, m *shard.Manifest) error {
	const unmeasured = "no held-out queries: recall was not measured"
	if len(m.Apps.Recall) == 0 && len(m.Users.Recall) == 0 {
		_, err := fmt.Fprintf(w, "\n%s\n", unmeasured)
		return err
	}
	t := newTable(w)
	fmt.Fprintln(t, "\nrecall on held-out queries\nsearched\tk\ttarget\tqueries\trecall\tef in each shard")
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, r := range m.Tower(kind).Recall {
			fmt.Fprintf(t, "%s\t%d\t%v\t%d\t%.4f\t%s\n", kind, r.K, r.Target, r.Queries, r.Recall, efforts(r.Ef))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if len(m.Tower(kind).Recall) == 0 {
			fmt.Fprintf(w, "%s: %s\n", kind, unmeasured)
		}
	}
	return nil
}

// writeSegments writes a table of the segments, if there are any.
func writeSegments(w io.Writer, m *shard.Manifest) error {
	if len(m.Apps.Segments) == 0 {
		return nil
	}
	t := newTable(w)
	fmt.Fprintln(t, "\nsegments of apps, and recall on held-out queries among those eligible\nsegment\teligible\tshare\tk\ttarget\tqueries\trecall\tef in each shard")
	for _, s := range m.Apps.Segments {
		name := fmt.Sprintf("%s\t%s\t%.2f%%", s.Name, count(int64(s.Eligible)), 100*float64(s.Eligible)/float64(m.Apps.Rows))
		if len(s.Recall) == 0 {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\n", name)
		}
		for _, r := range s.Recall {
			fmt.Fprintf(t, "%s\t%d\t%v\t%d\t%.4f\t%s\n", name, r.K, r.Target, r.Queries, r.Recall, efforts(r.Ef))
		}
	}
	return t.Flush()
}

// efforts lists shards' efforts; 0 is the exact scan.
func efforts(list []int) string {
	const most = 8
	words := make([]string, 0, most)
	for i, ef := range list {
		switch {
		case i == most:
			return strings.Join(words, " ") + fmt.Sprintf(" and %d more", len(list)-most)
		case ef == 0:
			words = append(words, "exact")
		default:
			words = append(words, fmt.Sprint(ef))
		}
	}
	return strings.Join(words, " ")
}

// buildReport is the report of a build as JSON.
type buildReport struct {
	Snapshot shard.Digest               `json:"snapshot"`
	Seconds  float64                    `json:"seconds"`
	Rejected map[shard.Kind][]rejection `json:"rejected"`
	Manifest *shard.Manifest            `json:"manifest"`
	Gates    *gate.Recorded             `json:"gates"`
}

type rejection struct {
	Kind  string   `json:"kind"`
	Count int      `json:"count"`
	First []string `json:"first"`
}

func jsonReport(r *builder.Report, took time.Duration) buildReport {
	out := buildReport{Snapshot: r.Digest, Seconds: took.Seconds(), Manifest: r.Manifest, Gates: r.Gates, Rejected: map[shard.Kind][]rejection{}}
	for kind, rejected := range r.Rejected {
		out.Rejected[kind] = []rejection{}
		for _, k := range rejected.Kinds {
			out.Rejected[kind] = append(out.Rejected[kind], rejection{k.Kind, k.Count, k.First})
		}
	}
	return out
}

// closing joins the error of closing a snapshot, shard or store to another.
func closing(err *error, c io.Closer) { *err = errors.Join(*err, c.Close()) }
