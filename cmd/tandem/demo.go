package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard"
)

type demoCommand struct {
	Apps   int64  `default:"20000" placeholder:"N" help:"Number of apps (default ${default})."`
	Users  int64  `default:"5000" placeholder:"N" help:"Number of users (default ${default})."`
	Listen string `placeholder:"HOST:PORT" help:"Address to listen on; by default 127.0.0.1:8080, or a free port if that is taken."`
	Once   bool   `help:"Exit after the requests instead of serving on."`
}

func (demoCommand) Help() string {
	return `Everything is in a temporary folder, which is removed at the end.

Example:

    tandem demo`
}

const (
	demoShards = 2
	// demoTimeout is how long an answer may take.
	demoTimeout = 30 * time.Second
)

func (c *demoCommand) options() synthetic.Options {
	return synthetic.Options{Apps: c.Apps, Users: c.Users, Dim: 64, Seed: 1}
}

func (c *demoCommand) Run(e *environment) (err error) {
	if err := c.options().Validate(); err != nil {
		return usageError{err}
	}
	listener, err := c.listen()
	if err != nil {
		return err
	}
	defer listener.Close() // the server closes it, if it comes to that
	dir, err := os.MkdirTemp("", "tandem-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store, digest, err := c.build(e, dir)
	if err != nil {
		return err
	}
	return c.serve(e, listener, store, digest)
}

// listen listens first, so that an address that is taken is found before the work.
func (c *demoCommand) listen() (net.Listener, error) {
	if c.Listen != "" {
		return net.Listen("tcp", c.Listen)
	}
	if l, err := net.Listen("tcp", "127.0.0.1:8080"); err == nil {
		return l, nil
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// build generates towers and builds them.
func (c *demoCommand) build(e *environment, dir string) (*shard.Store, shard.Digest, error) {
	o := c.options()
	fmt.Fprintf(e.stdout, "Generating %s and %s of dimension %d, and building a snapshot in %s ...\n",
		plural(o.Apps, "app"), plural(o.Users, "user"), o.Dim, dir)
	start := time.Now()
	towers := filepath.Join(dir, "towers")
	if err := generate(e, towers, o); err != nil {
		return nil, "", err
	}
	store, err := shard.CreateStore(e.ctx, filepath.Join(dir, "store"), shard.StoreOptions{})
	if err != nil {
		return nil, "", err
	}
	report, err := build(e, store, builder.Options{
		Model: "demo", ModelVersion: "1", Params: index.DefaultParams(index.Dot), Threads: runtime.GOMAXPROCS(0),
		Apps: builder.TowerOptions{
			Input: tower.Options{Paths: []string{filepath.Join(towers, synthetic.AppsFile)}, IDColumn: synthetic.AppIDColumn}, Shards: demoShards,
		},
		Users: builder.TowerOptions{
			Input: tower.Options{Paths: []string{filepath.Join(towers, synthetic.UsersFile)}, IDColumn: synthetic.UserIDColumn}, Shards: demoShards,
		},
	})
	if err != nil {
		return nil, "", err
	}
	fmt.Fprintf(e.stdout, "Built snapshot %s in %s.\n", report.Digest.Short(), seconds(time.Since(start)))
	return store, report.Digest, nil
}

// serve serves the snapshot, asks it, and goes on serving until ctx ends.
func (c *demoCommand) serve(e *environment, listener net.Listener, store *shard.Store, digest shard.Digest) error {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	ready := make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- server.Run(ctx, server.Config{
			Store: store, Snapshot: string(digest), Listener: listener,
			Logger: newLogger(e.stderr, "text", slog.LevelWarn),
			Ready:  func(*shard.Snapshot) { close(ready) },
		})
	}()
	select {
	case err := <-served: // not before it is ready, unless it failed or was told to stop
		return err
	case <-ready:
	}
	url := "http://" + listener.Addr().String()
	err := c.ask(e, url)
	if err == nil && !c.Once {
		fmt.Fprintf(e.stdout, "\nServing on %s; press Ctrl-C to stop.\n", url)
		<-ctx.Done()
	}
	cancel()
	if stopped := <-served; err == nil {
		err = stopped
	}
	if e.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// demoRequest is a request to try, in JSON as a person would write it.
type demoRequest struct {
	UserID     string         `json:"userId,omitempty"`
	AppID      string         `json:"appId,omitempty"`
	K          int            `json:"k"`
	Filter     string         `json:"filter,omitempty"`
	Bindings   map[string]any `json:"bindings,omitempty"`
	Attributes []string       `json:"attributes,omitempty"`
}

// ask sends the requests and prints them with their answers.
func (c *demoCommand) ask(e *environment, url string) error {
	user := synthetic.UserID(c.Users / 2)
	best, err := e.try(url, "Candidates for a user", demoRequest{UserID: user, K: 3})
	if err != nil {
		return err
	}
	_, err = e.try(url, "Only apps that run on iOS and suit a user of 12, with attributes", demoRequest{
		UserID: user, K: 3,
		Filter:     `"ios" in platforms && min_age <= user.age`,
		Bindings:   map[string]any{"age": 12},
		Attributes: []string{"name", "platforms", "min_age"},
	})
	if err != nil {
		return err
	}
	_, err = e.try(url, "More like the first app", demoRequest{AppID: best, K: 3, Attributes: []string{"name", "genres"}})
	return err
}

// try sends one request as curl would, prints it with its answer, and returns the
// id of the first candidate.
func (e *environment) try(url, title string, r demoRequest) (best string, err error) {
	url += "/tandem.v1.RetrievalService/Retrieve"
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(r); err != nil {
		return "", err
	}
	text := bytes.TrimSpace(body.Bytes())
	fmt.Fprintf(e.stdout, "\n# %s\ncurl -s -H 'Content-Type: application/json' %s \\\n  -d '%s'\n", title, url, text)
	ctx, cancel := context.WithTimeout(e.ctx, demoTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("request %s: %s: %s", text, response.Status, answer)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, answer, "", "  "); err != nil {
		return "", fmt.Errorf("answer %s: %w", answer, err)
	}
	fmt.Fprintln(e.stdout, fold(indented.String()))
	var got struct {
		Candidates []struct{ ID string }
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return "", fmt.Errorf("answer %s: %w", answer, err)
	}
	if len(got.Candidates) == 0 {
		return "", fmt.Errorf("request %s: no candidates", text)
	}
	return got.Candidates[0].ID, nil
}
