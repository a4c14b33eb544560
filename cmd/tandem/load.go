package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/bench"
	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

type loadCommand struct {
	clientFlags
	Server string `default:"127.0.0.1:8080" variable:"TANDEM_SERVER" placeholder:"HOST:PORT" help:"Server to ask, by its address or its URL (default ${default})."`

	Users        string `placeholder:"PATH" help:"Users to ask with: a user tower in Parquet, or a file of ids, one a line; by default users of --store's snapshot that its build has not seen."`
	UserIDColumn string `default:"user_id" placeholder:"NAME" help:"Column of user ids in Parquet (default ${default})."`
	storeFlags
	Snapshot string `placeholder:"DIGEST" help:"The snapshot's digest or the beginning of it; by default what is released to most traffic."`

	Clients  []int         `default:"1,8" placeholder:"N" help:"How many clients ask at a time (default ${default})."`
	Duration time.Duration `default:"10s" placeholder:"TIME" help:"How long each number of clients asks (default ${default})."`
	Queries  int           `placeholder:"N" help:"Queries that each number of clients asks, instead of --duration."`
	WarmUp   time.Duration `default:"1s" placeholder:"TIME" help:"How long they ask before that (default ${default})."`
	Timeout  time.Duration `default:"30s" placeholder:"TIME" help:"How long an answer may take; a client that got none asks no more (default ${default})."`
	PID      int           `name:"pid" placeholder:"N" help:"The server's process, if it is on this machine: its CPU time is measured."`
	HTTP1    bool          `name:"http1" help:"Speak HTTP/1.1 instead of HTTP/2."`

	Target        string   `default:"apps" enum:"apps,users" placeholder:"TOWER" help:"Tower to search: ${enum} (default ${default})."`
	K             uint32   `default:"100" placeholder:"N" help:"How many candidates to ask for (default ${default})."`
	RecallTarget  *float64 `xor:"effort" placeholder:"X" help:"Recall to ask for; by default the server's."`
	Ef            *uint32  `xor:"effort" placeholder:"N" help:"Effort of the walk in each shard: how many nodes it expands. It may be below --k."`
	Filter        string   `placeholder:"CEL" help:"Eligibility filter of all queries."`
	Bind          []string `sep:"none" placeholder:"NAME=JSON" help:"Value of user.NAME in the filter. May be repeated."`
	Segment       string   `placeholder:"NAME" help:"Segment of all queries."`
	RecallQueries int      `default:"500" placeholder:"N" help:"Users to measure recall on (default ${default})."`

	JSON string `placeholder:"FILE" help:"Write the report as JSON too; - prints it instead of the table."`
}

func (loadCommand) Help() string {
	return `Each client has a connection of its own and asks the next query once it has its answer. Answers are counted and not decoded, so that the load takes little of a machine that it shares with the server.

Example:

    tandem serve --store store & tandem load --store store --pid $!`
}

func (c *loadCommand) Run(e *environment) (err error) {
	if c.Users == "" && c.Store == "" {
		return usagef("want --users or --store, for users to ask with")
	}
	address, err := c.url(c.Server)
	if err != nil {
		return err
	}
	values, err := bindings(c.Bind)
	if err != nil {
		return err
	}
	r := &tandemv1.RetrieveRequest{Target: tandemv1.Tower_TOWER_APPS, K: c.K, RecallTarget: c.RecallTarget, Ef: c.Ef, Filter: c.Filter, Segment: c.Segment}
	if c.Target == "users" {
		r.Target = tandemv1.Tower_TOWER_USERS
	}
	if r.Bindings, err = wireBindings(values); err != nil {
		return err
	}
	o := bench.LoadOptions{
		Server: address, Request: r, Clients: c.Clients, Queries: c.Queries, Duration: c.Duration, WarmUp: c.WarmUp,
		RecallQueries: c.RecallQueries, Timeout: c.Timeout, PID: c.PID, HTTP1: c.HTTP1,
	}
	transport, wrap, err := c.transport()
	if err != nil {
		return err
	}
	o.TLS, o.Wrap = transport.TLSClientConfig, wrap
	if c.Timeout <= 0 {
		return usagef("--timeout is %s, want more than 0", c.Timeout)
	}
	if o.WarmUp == 0 {
		o.WarmUp = -1
	}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	if c.Users != "" {
		if o.Users, err = readUsers(e.ctx, c.Users, c.UserIDColumn); err != nil {
			return err
		}
	}
	if c.Store != "" {
		store, digest, err := openStore(e, c.Store, c.Snapshot, c.cacheFlags.options())
		if err != nil {
			return err
		}
		defer closing(&err, store)
		if o.Snapshot, err = snapshots.Open(e.ctx, store, digest); err != nil {
			return err
		}
		defer closing(&err, o.Snapshot)
	}
	report, err := bench.Load(e.ctx, o)
	if r := refusalOf(err); r != nil {
		return r
	}
	if errors.As(err, new(*eligibility.Error)) || errors.As(err, new(*eligibility.BindError)) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if c.JSON == "-" {
		return report.WriteJSON(e.stdout)
	}
	if c.JSON != "" {
		if err := writeFile(c.JSON, report.WriteJSON); err != nil {
			return err
		}
	}
	return report.WriteTable(e.stdout)
}

// readUsers reads ids from a tower in Parquet, or from a file's lines.
func readUsers(ctx context.Context, path, column string) (ids []string, err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return readTowerIDs(ctx, path, column)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer closing(&err, f)
	text := bufio.NewReader(f)
	if head, _ := text.Peek(16); input.FormatOf(head) == input.Parquet {
		return readTowerIDs(ctx, path, column)
	}
	for lines := bufio.NewScanner(text); ; {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return nil, fmt.Errorf("read %s: %w", path, err)
			}
			return ids, nil
		}
		if id := lines.Text(); id != "" {
			ids = append(ids, id)
		}
	}
}

func readTowerIDs(ctx context.Context, path, column string) (ids []string, err error) {
	r, err := tower.Open(ctx, tower.Options{Paths: []string{path}, IDColumn: column})
	if err != nil {
		return nil, err
	}
	defer closing(&err, r)
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return ids, nil
		}
		if err != nil {
			return nil, err
		}
		if row.ID != "" {
			ids = append(ids, row.ID)
		}
	}
}
