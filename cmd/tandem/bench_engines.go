package main

import (
	"errors"
	"io"

	"github.com/tandem-ann/tandem/bench/engines"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
)

// enginesFlags are those of the commands that measure engines beside one another.
type enginesFlags struct {
	Base            string       `required:"" placeholder:"PATH" help:"Rows to find: .parquet, .npy, .fbin, .u8bin or .i8bin."`
	Queries         string       `required:"" placeholder:"PATH" help:"Vectors to ask with, in any of the same formats."`
	Metric          index.Metric `required:"" placeholder:"METRIC" help:"How they are compared: dot, cosine or l2."`
	BaseIDColumn    string       `name:"base-id-column" default:"app_id" placeholder:"NAME" help:"Parquet column of ids of --base (default ${default})."`
	QueryIDColumn   string       `name:"query-id-column" default:"user_id" placeholder:"NAME" help:"Parquet column of ids of --queries (default ${default})."`
	EmbeddingColumn string       `default:"embedding" placeholder:"NAME" help:"Parquet column of vectors (default ${default})."`
	Rows            int          `default:"0" placeholder:"N" help:"Take only the first N rows of --base."`
	Ask             int          `default:"1000" placeholder:"N" help:"Queries to ask; up to 1500 of the others calibrate our index (default ${default})."`

	Engine  []engines.Spec `sep:"none" placeholder:"SPEC" help:"Engine to measure: tandem, coder, hnswlib, faiss, usearch or another driver, with m=N, ef_construction=N and, for inner product as L2, augmented, in quotes. May be repeated. By default tandem and the peers."`
	Drivers string         `default:"bench/peers/bin" placeholder:"DIR" help:"Where bench/peers/build.sh has put the peers' drivers (default ${default})."`
	K       []int          `default:"10,100" placeholder:"N" help:"How many rows to ask for (default ${default})."`
	Ef      []int          `placeholder:"N" help:"Efforts to sweep; by default from k upwards until nothing is missed."`
	Threads int            `default:"1" placeholder:"N" help:"Threads of each build (default ${default})."`
	Rounds  int            `default:"5" placeholder:"N" help:"How often each setting takes its turn (default ${default})."`
	Seed    uint64         `default:"0" placeholder:"N" help:"Seed of the order of the turns, and of whatever else is random (default ${default})."`
	JSON    string         `placeholder:"FILE" help:"Write the report as JSON too; - prints it instead of the table."`
	SVG     string         `name:"svg" placeholder:"FILE" help:"Draw recall and speed."`
}

// options returns what to measure, or a usage error.
func (c *enginesFlags) options(p progress) (engines.Options, error) {
	o := engines.Options{
		Engines: c.Engine, Drivers: c.Drivers, K: c.K, Ef: c.Ef,
		Threads: c.Threads, Rounds: c.Rounds, Seed: c.Seed, Progress: p,
	}
	if err := o.Validate(); err != nil {
		return o, usageError{err}
	}
	switch {
	case c.Rows < 0:
		return o, usagef("--rows is %d, want at least 0", c.Rows)
	case c.Ask < 1:
		return o, usagef("--ask is %d, want at least 1", c.Ask)
	}
	return o, nil
}

// setOptions returns what to read.
func (c *enginesFlags) setOptions() engines.SetOptions {
	return engines.SetOptions{
		Base:    tower.Options{Paths: []string{c.Base}, IDColumn: c.BaseIDColumn, EmbeddingColumn: c.EmbeddingColumn, NumberRows: true},
		Queries: tower.Options{Paths: []string{c.Queries}, IDColumn: c.QueryIDColumn, EmbeddingColumn: c.EmbeddingColumn, NumberRows: true},
		Metric:  c.Metric, Rows: c.Rows, Ask: c.Ask,
	}
}

// enginesReport is what was measured.
type enginesReport interface {
	WriteTable(io.Writer) error
	WriteJSON(io.Writer) error
	WriteSVG(io.Writer) error
}

// write writes a report where the flags say.
func (c *enginesFlags) write(e *environment, report enginesReport) error {
	var err error
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

// benchEnginesCommand is `tandem bench engines`.
type benchEnginesCommand struct {
	enginesFlags
}

func (benchEnginesCommand) Help() string {
	return `Builds each engine on the same rows and lets all settings of all engines take turns, one query at a time on one thread. Speeds are relative to the first engine. Our index is asked at efforts below k too. The peers are C++; bench/peers/build.sh compiles them, and one that it has not is left out.

Examples:

    bench/peers/build.sh
    tandem bench engines --base sift/base.u8bin --queries sift/query.u8bin --metric l2 --svg sift.svg
    tandem bench engines --base apps.parquet --queries users.parquet --metric dot \
        --engine tandem --engine hnswlib --engine 'hnswlib m=32 ef_construction=400 augmented'`
}

func (c *benchEnginesCommand) Run(e *environment) error {
	p := newProgress(e.stderr)
	defer p.Done()
	o, err := c.options(p)
	if err != nil {
		return err
	}
	p.Stage("read", -1)
	set, err := engines.ReadSet(e.ctx, c.setOptions())
	if err != nil {
		return err
	}
	report, err := engines.Run(e.ctx, set, o)
	if err != nil {
		return err
	}
	p.Done()
	return c.write(e, report)
}
