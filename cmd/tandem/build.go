package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/builder/tower/hnswexport"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/reportpage"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// buildCommand is `tandem build`.
type buildCommand struct {
	All       buildAllCommand       `cmd:"" default:"withargs" help:"Build both towers on this machine; the default."`
	Plan      buildPlanCommand      `cmd:"" help:"Fix what the steps of a build on many machines share, and say what they take."`
	Partition buildPartitionCommand `cmd:"" help:"Step one of a plan: deal the rows of the inputs to shards."`
	Shard     buildShardCommand     `cmd:"" help:"Step two of a plan: build one shard."`
	Commit    buildCommitCommand    `cmd:"" help:"Last step of a plan: measure, run the gates, publish."`
}

// buildAllCommand is `tandem build all`, which is the default.
type buildAllCommand struct {
	buildFlags

	JSON bool `help:"Print the report as JSON."`
	htmlFlag
}

// buildFlags say what is built, and of what.
type buildFlags struct {
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
	columnFlags
	MaxRejected int `default:"0" placeholder:"N" help:"How many rows may be rejected before the build fails (default ${default})."`

	M              int     `default:"${m}" placeholder:"N" help:"Neighbours of a node (default ${default})."`
	EfConstruction int     `default:"${ef_construction}" placeholder:"N" help:"Effort of inserting a node (default ${default})."`
	Alpha          float32 `default:"${alpha}" placeholder:"X" help:"Slack of the neighbour selection (default ${default})."`
	Seed           uint64  `default:"0" placeholder:"N" help:"Seed of the graph's levels and order (default ${default})."`

	GraphKeys string `default:"auto" enum:"auto,string,int,int64,uint64,int32,uint32" placeholder:"TYPE" help:"Go type of the export's keys: ${enum} (default ${default})."`

	liveInputFlags
	gateFlags
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

func (buildAllCommand) Help() string {
	return `The last line of the report is the snapshot's digest. The same files and flags give the same digest, on any number of threads, if what is released to most traffic is the same, which the gates compare with, or --previous.

Example:

    tandem build --apps towers/apps.parquet --users towers/users.parquet \
        --model feed --model-version 1 --metric dot --shards 4 --store store

A file of segments:

    ios_teen: '"ios" in platforms && min_age < 18'
    free_to_play: free

The gates run on the snapshot, and their report is in its manifest. A snapshot that fails is published, so that it can be looked at; the exit code is then 3, and tandem release start refuses it.

A store with a live log lays what is in it over the snapshot: all of it, unless --live-position or --extracted-at says what of it the inputs have already. Without, an older upsert lies over a newer row of the inputs, and the report says so. Users who are forgotten are left out, whatever the inputs have of them.

If the store fails when the snapshot is to be published, or the build is interrupted then, what is built is kept for seven days: the same command goes on from there.

On many machines a build is done in steps: tandem build plan, partition, shard and commit (docs/build-at-scale.md).`
}

func (c *buildFlags) options() (builder.Options, error) {
	userShards := c.Shards
	if c.UserShards != nil {
		userShards = *c.UserShards
	}
	apps, err := c.columnFlags.tower(shard.Apps)
	if err != nil {
		return builder.Options{}, err
	}
	users, err := c.columnFlags.tower(shard.Users)
	if err != nil {
		return builder.Options{}, err
	}
	keys, err := hnswexport.ParseKeyType(c.GraphKeys)
	o := builder.Options{
		Model: c.Model, ModelVersion: c.ModelVersion,
		Params:  index.Params{Metric: c.Metric, M: c.M, EfConstruction: c.EfConstruction, Alpha: c.Alpha, Seed: c.Seed},
		Threads: c.Threads, MaxRejected: c.MaxRejected, Tool: toolRelease,
		Apps:  builder.TowerOptions{Input: apps, Attributes: c.joined(apps), Shards: c.Shards},
		Users: builder.TowerOptions{Input: users, Attributes: c.joined(users), Shards: userShards},
	}
	o.Apps.GraphKeys = keys
	(&inputs{c.Apps, c.Users, c.towerFiles, c.gateFiles}).set(&o)
	return o, err
}

// checked returns the options of a build, or an error of wrong use.
func (c *buildFlags) checked() (builder.Options, error) {
	o, err := c.options()
	switch n := c.UserShards; {
	case err != nil:
		return o, usageError{err}
	case c.Threads < 1:
		return o, usagef("threads is %d, want at least 1", c.Threads)
	case n != nil && (*n < 1 || *n > shard.MaxShards):
		return o, usagef("--user-shards is %d, want 1 to %d", *n, shard.MaxShards)
	}
	if err := o.Validate(); err != nil {
		return o, usageError{err}
	}
	return o, c.liveInputFlags.check()
}

// ask fills in what a build takes from the store.
func (c *buildFlags) ask(e *environment, store *snapshots.Store, o *builder.Options) (err error) {
	if o.Previous, err = c.previous(e, store, ""); err != nil {
		return err
	}
	o.LiveFilters = gates.LiveFilters(store)
	o.Live, o.LivePosition, err = c.read(e, store)
	return err
}

// create opens the store for writing, and shows what moves.
func (c *requiredStoreFlags) create(e *environment) (*snapshots.Store, *transfers, error) {
	moving := newTransfers(e.stderr)
	so := c.cacheFlags.options()
	so.Progress, so.Waiting = moving.Transfer, newWaiting(e.stderr)
	store, err := snapshots.CreateStore(e.ctx, c.Store, so)
	if err != nil {
		moving.Done()
	}
	return store, moving, err
}

func (c *buildAllCommand) Run(e *environment) (err error) {
	if err := c.htmlFlag.check(); err != nil {
		return err
	}
	o, err := c.checked()
	if err != nil {
		return err
	}
	store, moving, err := c.create(e)
	if err != nil {
		return err
	}
	defer moving.Done()
	defer closing(&err, store)
	if err := c.ask(e, store, &o); err != nil {
		return err
	}
	start := time.Now()
	built, err := build(e, store, o)
	if err != nil {
		return err
	}
	return told(e, built, time.Since(start), o.Threads, c.JSON, &c.htmlFlag, c.Store)
}

// buildPage is what a page of a build shows.
type buildPage struct {
	buildReport
	Rows []gates.Row `json:"rows"`
}

// told prints the report of a build, writes its page, and returns an error if the gates failed.
func told(e *environment, r *builder.Report, took time.Duration, threads int, asJSON bool, page *htmlFlag, store string) (err error) {
	if asJSON {
		if warning := noPosition(r.Manifest, r.LiveHead); warning != "" {
			fmt.Fprintln(e.stderr, warning)
		}
		err = wording.WriteJSON(e.stdout, jsonReport(r, took))
	} else {
		err = writeReport(e.stdout, r, took, threads)
	}
	title := fmt.Sprintf("Build of %s at %s", r.Manifest.Model, r.Manifest.ModelVersion)
	err = errors.Join(err, page.write(reportpage.Build, title, buildPage{jsonReport(r, took), r.Gates.Rows()}))
	return cmp.Or(err, passed(r.Gates, store))
}

// build builds a snapshot and shows how far it is.
func build(e *environment, store *snapshots.Store, o builder.Options) (*builder.Report, error) {
	p := newProgress(e.stderr)
	defer p.Done()
	o.Progress = p
	report, err := builder.Build(e.ctx, store, o)
	return report, inputsError(err)
}

// inputsError gives the error of a command that reads its inputs from the beginning its exit code. A file that
// was written to meanwhile is another one next time; for steps it is not what was planned.
func inputsError(err error) error {
	if errors.Is(err, input.ErrChanged) {
		return hinted(err)
	}
	return stepError(err)
}

// hinted adds to an error the flag that helps.
func hinted(err error) error {
	if errors.As(err, new(*tower.ColumnsError)) {
		err = fmt.Errorf("%w (--ignore-column skips one)", err)
	}
	return err
}

// writeReport writes what a build did, for people.
func writeReport(w io.Writer, r *builder.Report, took time.Duration, threads int) error {
	writeRefusal(w, r.Gates)
	m := r.Manifest
	fmt.Fprintf(w, "%s at %s, metric %s, dim %d\n\n", release.Escape(m.Model), release.Escape(m.ModelVersion), m.Metric, m.Dim)
	if err := writeTowers(w, m); err != nil {
		return err
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if rejected := r.Rejected[kind]; rejected != nil && rejected.Total > 0 {
			fmt.Fprintf(w, "\n%s rejected:\n  %s\n", kind, strings.ReplaceAll(strings.TrimSpace(rejected.String()), "\n", "\n  "))
		}
	}
	writeLiveInputs(w, m, r.LiveHead)
	if err := writeRecall(w, m); err != nil {
		return err
	}
	if err := writeSegments(w, m); err != nil {
		return err
	}
	if err := writeGates(w, r.Gates); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nbuilt in %s on %s; the snapshot is\n%s\n", wording.Seconds(took), wording.Plural(threads, "thread"), r.Digest)
	return err
}

// writeTowers writes a table of the two towers.
func writeTowers(w io.Writer, m *manifest.Manifest) error {
	t := newTable(w)
	fmt.Fprintln(t, "tower\trows\trejected\tattributes\tshards\tbytes")
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		tm := m.Tower(kind)
		var size int64
		for _, s := range tm.Shards {
			size += s.Size
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\n", kind, wording.Count(tm.Rows), wording.Count(tm.Rejected), tm.Schema.Len(), len(tm.Shards), wording.Bytes(size))
	}
	return t.Flush()
}

// writeRecall writes a table of what the build measured, and says what it could not.
func writeRecall(w io.Writer, m *manifest.Manifest) error {
	const unmeasured = "no held-out queries: recall was not measured"
	if len(m.Apps.Recall) == 0 && len(m.Users.Recall) == 0 {
		_, err := fmt.Fprintf(w, "\n%s\n", unmeasured)
		return err
	}
	t := newTable(w)
	fmt.Fprintln(t, "\nrecall on held-out queries\nsearched\tk\ttarget\tqueries\trecall\tworst 1%\tef in each shard")
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, r := range m.Tower(kind).Recall {
			fmt.Fprintf(t, "%s\t%d\t%v\t%d\t%.4f\t%s\t%s\n", kind, r.K, r.Target, r.Queries, r.Recall, worst(r), efforts(r.Ef))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if len(m.Tower(kind).Recall) == 0 {
			fmt.Fprintf(w, "%s: %s\n", kind, unmeasured)
		}
		if s := m.Tower(kind).Samples; s != nil && len(s.Weaker) > 0 {
			fmt.Fprintln(w, weaker(kind, s))
		}
	}
	return nil
}

// worst is the recall of the worst percent of the queries.
func worst(r manifest.Recall) string {
	if r.Worst == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f", *r.Worst)
}

// weaker says what of a tower is less sure than if the other had more rows to ask with.
func weaker(kind shard.Kind, s *manifest.Samples) string {
	from := shard.Users
	if kind == shard.Users {
		from = shard.Apps
	}
	text := map[manifest.Purpose]string{
		manifest.Shape:     "walks may start farther off",
		manifest.Calibrate: "efforts are larger than need be, or exact scans",
		manifest.Gate:      "the bounds of measured recall are wider",
	}
	var list []string
	for _, p := range s.Weaker {
		list = append(list, text[p])
	}
	return fmt.Sprintf("%s: there are few %s to ask with: %d found where walks start, %d calibrated, %d measured; so %s",
		kind, from, s.Shape, s.Calibrate, s.Gate, strings.Join(list, "; "))
}

// writeSegments writes a table of the segments, if there are any.
func writeSegments(w io.Writer, m *manifest.Manifest) error {
	if len(m.Apps.Segments) == 0 {
		return nil
	}
	t := newTable(w)
	fmt.Fprintln(t, "\nsegments of apps, and recall on held-out queries among those eligible\nsegment\teligible\tshare\tk\ttarget\tqueries\trecall\tworst 1%\tef in each shard")
	for _, s := range m.Apps.Segments {
		name := fmt.Sprintf("%s\t%s\t%.2f%%", s.Name, wording.Count(int64(s.Eligible)), 100*float64(s.Eligible)/float64(m.Apps.Rows))
		if len(s.Recall) == 0 {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\t-\n", name)
		}
		for _, r := range s.Recall {
			fmt.Fprintf(t, "%s\t%d\t%v\t%d\t%.4f\t%s\t%s\n", name, r.K, r.Target, r.Queries, r.Recall, worst(r), efforts(r.Ef))
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
	Snapshot manifest.Digest            `json:"snapshot"`
	Seconds  float64                    `json:"seconds"`
	Rejected map[shard.Kind][]rejection `json:"rejected"`
	Manifest *manifest.Manifest         `json:"manifest"`
	Gates    *gates.Recorded            `json:"gates"`
	Live     *liveReport                `json:"live,omitempty"` // nil without a live log
}

// liveReport is what a build took from the live log.
type liveReport struct {
	Position       *shard.Position `json:"position"` // that the inputs reflect
	Head           shard.Position  `json:"head"`     // where the log ended when the build began
	ForgottenUsers int64           `json:"forgotten_users"`
}

type rejection struct {
	Kind  string   `json:"kind"`
	Count int      `json:"count"`
	First []string `json:"first"`
}

func jsonReport(r *builder.Report, took time.Duration) buildReport {
	out := buildReport{Snapshot: r.Digest, Seconds: took.Seconds(), Manifest: r.Manifest, Gates: r.Gates, Rejected: map[shard.Kind][]rejection{}}
	if r.LiveHead != (shard.Position{}) {
		out.Live = &liveReport{r.Manifest.Live, r.LiveHead, r.Manifest.Forgotten()}
	}
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
