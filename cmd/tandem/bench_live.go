package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/bench/live"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchLiveCommand is `tandem bench live`.
type benchLiveCommand struct {
	Store     string        `placeholder:"STORE" help:"Where to make a store: a new folder, or a URL such as s3://bucket?region=eu-west-1&prefix=bench/, in which nothing is; by default a temporary folder, which is removed at the end."`
	Takedowns int           `default:"300" placeholder:"N" help:"Takedowns to follow to all servers (default ${default})."`
	Servers   int           `default:"4" placeholder:"N" help:"Servers that append at once (default ${default})."`
	Delay     time.Duration `default:"100ms" placeholder:"TIME" help:"How much later what those servers ask of a store arrives, where its URL has an endpoint=http://HOST:PORT that a proxy can be before (default ${default})."`
	Time      time.Duration `default:"30s" placeholder:"TIME" help:"How long each load goes on (default ${default})."`
	JSON      bool          `help:"Print JSON."`
}

func (benchLiveCommand) Help() string {
	return `Makes a store with a small snapshot, serves it on loopback, and measures how long after it was acknowledged an app is still returned, by the server that took the takedown and by another that polls the store; how long an acknowledgement takes while several servers append at once, alone and beside imports; and how many events a second one server takes. Exits with 1 if a target was missed, and says which. On a machine with nothing else to do.

Example:

    tandem bench live --time 10s`
}

// The towers of the store.
const (
	benchLiveDim   = 64
	benchLiveUsers = 200
	benchLiveModel = "bench"
)

func (c *benchLiveCommand) Run(e *environment) (err error) {
	switch {
	case c.Takedowns < 1 || c.Takedowns > live.MaxTakedowns:
		return usagef("--takedowns is %d, want 1 to %d", c.Takedowns, live.MaxTakedowns)
	case c.Servers < 2 || c.Servers > live.MaxServers:
		return usagef("--servers is %d, want 2 to %d", c.Servers, live.MaxServers)
	case c.Delay <= 0 || c.Delay > live.MaxDelay:
		return usagef("--delay is %s, want more than 0, up to %s", c.Delay, live.MaxDelay)
	case c.Time <= 0:
		return usagef("--time is %s, want more than 0", c.Time)
	}
	dir, err := os.MkdirTemp("", "tandem-bench-live-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	location := c.Store
	if location == "" {
		location = filepath.Join(dir, "store")
	} else if err := isNew(e, location); err != nil {
		return err
	}
	// As many apps as are taken down, and some that stay.
	apps := c.Takedowns + 1000
	if err := c.make(e, dir, location, apps); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to run it as servers: %w", err)
	}
	o := live.Options{
		Location: location, Model: benchLiveModel, ModelVersion: "1", Dim: benchLiveDim,
		Takedowns: c.Takedowns, Servers: c.Servers, Delay: c.Delay, Time: c.Time,
		Serve: func(location, dir string) []string {
			args := []string{
				program, "serve", "--store", location, "--listen", "127.0.0.1:0", "--log-format", "json", "--drain-delay", "0s",
				"--live-writes", "--state", filepath.Join(dir, "state"),
			}
			if _, isFolder, err := objects.Folder(location); err == nil && !isFolder {
				args = append(args, "--cache", filepath.Join(dir, "cache"))
			}
			return args
		},
		Progress: func(phase string) { fmt.Fprintf(e.stderr, "%s %s\n", time.Now().Format(time.TimeOnly), phase) },
	}
	for i := range c.Takedowns {
		o.Apps = append(o.Apps, synthetic.AppID(int64(i)))
	}
	report, err := live.Run(e.ctx, o)
	if err != nil {
		return err
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, report)
	} else {
		err = report.WriteTable(e.stdout)
	}
	if err == nil && len(report.Missed) > 0 {
		err = fmt.Errorf("%s missed: %s", wording.Plural(len(report.Missed), "target"), strings.Join(report.Missed, "; "))
	}
	return err
}

// isNew returns an error unless there is nothing at a location.
func isNew(e *environment, location string) (err error) {
	if folder, ok, err := objects.Folder(location); err != nil || ok {
		list, readErr := os.ReadDir(folder)
		switch {
		case err != nil:
			return err
		case errors.Is(readErr, os.ErrNotExist):
			return nil
		case readErr != nil:
			return fmt.Errorf("--store: %w", readErr)
		case len(list) > 0:
			return usagef("--store %s is not empty: it has %s; accepted: a new folder, or an empty one", location, list[0].Name())
		}
		return nil
	}
	bucket, err := objects.Open(e.ctx, location)
	if err != nil {
		return err
	}
	defer closing(&err, bucket)
	for o, err := range bucket.List(e.ctx, "") {
		if err != nil {
			return err
		}
		return usagef("--store %s is not empty: it has %s; accepted: a bucket, or a prefix in one, that has nothing", location, o.Key)
	}
	return nil
}

// make builds and releases a snapshot of generated towers.
func (c *benchLiveCommand) make(e *environment, dir, location string, apps int) error {
	towers, cache := filepath.Join(dir, "towers"), filepath.Join(dir, "cache")
	var digest string
	for _, args := range [][]string{
		{
			"generate", "--out", towers, "--apps", strconv.Itoa(apps), "--users", strconv.Itoa(benchLiveUsers),
			"--dim", strconv.Itoa(benchLiveDim), "--interactions-per-user", "0",
		},
		{
			"build", "--apps", filepath.Join(towers, synthetic.AppsFile), "--users", filepath.Join(towers, synthetic.UsersFile), "--store", location,
			"--cache", cache, "--model", benchLiveModel, "--model-version", "1", "--metric", "dot",
		},
		{"release", "start", "--store", location, "--cache", cache, "--override", "a measurement"},
	} {
		if args[0] == "release" {
			args = append(args, digest)
		}
		var said, log bytes.Buffer
		if code := run(e.ctx, args, &said, &log); code != 0 && code != exitUnfit {
			return fmt.Errorf("%s: exit code %d: %s", args[0], code, strings.TrimSpace(log.String()))
		}
		if words := strings.Fields(said.String()); len(words) > 0 {
			digest = words[len(words)-1]
		}
	}
	return nil
}
