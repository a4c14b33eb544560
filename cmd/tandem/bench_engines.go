package main

import (
	"errors"

	"github.com/tandem-ann/tandem/bench/engines"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
)

// benchEnginesCommand is `tandem bench engines`.
type benchEnginesCommand struct {
	Base            string       `required:"" placeholder:"PATH" help:"Rows to find: .parquet, .npy, .fbin, .u8bin or .i8bin."`
	Queries         string       `required:"" placeholder:"PATH" help:"Vectors to ask with, in any of the same formats."`
	Metric          index.Metric `required:"" placeholder:"METRIC" help:"How they are compared: dot, cosine or l2."`
	BaseIDColumn    string       `name:"base-id-column" default:"app_id" placeholder:"NAME" help:"Parquet column of ids of --base (default ${default})."`
	QueryIDColumn   string       `name:"query-id-column" default:"user_id" placeholder:"NAME" help:"Parquet column of ids of --queries (default ${default})."`
	EmbeddingColumn string       `default:"embedding" placeholder:"NAME" help:"Parquet column of vectors (default ${default})."`
	Rows            int          `default:"0" placeholder:"N" help:"Take only the first N rows of --base."`
	Ask             int          `default:"1000" placeholder:"N" help:"Queries to ask; up to 1000 of the others calibrate our index (default ${default})."`

	Engine  []engines.Spec `sep:"none" placeholder:"SPEC" help:"Engine to measure: tandem, coder, hnswlib, faiss, usearch or another driver, with m=N, ef_construction=N and, for inner product as L2, augmented, in quotes. May be repeated; speeds are relative to the first. By default tandem and the peers."`
	Drivers string         `default:"bench/peers/bin" placeholder:"DIR" help:"Where bench/peers/build.sh has put the peers' drivers (default ${default})."`
	K       []int          `default:"10,100" placeholder:"N" help:"How many rows to ask for (default ${default})."`
	Ef      []int          `placeholder:"N" help:"Efforts to sweep; by default from k upwards until nothing is missed, and for our index below k too."`
	Threads int            `default:"1" placeholder:"N" help:"Threads of each build (default ${default})."`
	Rounds  int            `default:"5" placeholder:"N" help:"How often each setting takes its turn (default ${default})."`
	Seed    uint64         `default:"0" placeholder:"N" help:"Seed of the order of the turns (default ${default})."`
	JSON    string         `placeholder:"FILE" help:"Write the report as JSON too; - prints it instead of the table."`
	SVG     string         `name:"svg" placeholder:"FILE" help:"Draw recall against speed."`
}

func (benchEnginesCommand) Help() string {
	return `Builds each engine on the same rows and lets all settings of all engines take turns, one query at a time on one thread. The peers are C++; bench/peers/build.sh compiles them, and one that it has not is left out.

Examples:

    bench/peers/build.sh
    tandem bench engines --base sift/base.u8bin --queries sift/query.u8bin --metric l2 --svg sift.svg
    tandem bench engines --base apps.parquet --queries users.parquet --metric dot \
        --engine tandem --engine hnswlib --engine 'hnswlib m=32 ef_construction=400 augmented'`
}

func (c *benchEnginesCommand) Run(e *environment) error {
	p := newProgress(e.stderr)
	defer p.Done()
	o := engines.Options{
		Engines: c.Engine, Drivers: c.Drivers, K: c.K, Ef: c.Ef,
		Threads: c.Threads, Rounds: c.Rounds, Seed: c.Seed, Progress: p,
	}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	switch {
	case c.Rows < 0:
		return usagef("--rows is %d, want at least 0", c.Rows)
	case c.Ask < 1:
		return usagef("--ask is %d, want at least 1", c.Ask)
	}
	p.Stage("read", -1)
	set, err := engines.ReadSet(engines.SetOptions{
		Base:    tower.Options{Path: c.Base, IDColumn: c.BaseIDColumn, EmbeddingColumn: c.EmbeddingColumn, NumberRows: true},
		Queries: tower.Options{Path: c.Queries, IDColumn: c.QueryIDColumn, EmbeddingColumn: c.EmbeddingColumn, NumberRows: true},
		Metric:  c.Metric, Rows: c.Rows, Ask: c.Ask,
	})
	if err != nil {
		return err
	}
	report, err := engines.Run(e.ctx, set, o)
	if err != nil {
		return err
	}
	p.Done()
	if c.JSON != "" && c.JSON != "-" {
		err = writeFile(c.JSON, report.WriteJSON)
	}
	if c.SVG != "" {
		err = errors.Join(err, writeFile(c.SVG, report.WriteSVG))
	}
	if c.JSON == "-" {
		return errors.Join(err, report.WriteJSON(e.stdout))
	}
	return errors.Join(err, report.WriteTable(e.stdout))
}
