package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/server/judge"
	"github.com/tandem-ann/tandem/shard/wording"
)

// defaultServer is the one that is asked where none is named.
const defaultServer = "127.0.0.1:8080"

type statusCommand struct {
	serverFlags
	expectations
	Watch bool          `help:"Look again and again, until it is interrupted; the exit code is that of the last look."`
	Every time.Duration `default:"2s" placeholder:"TIME" help:"How long to wait between two looks of --watch (default ${default})."`
	JSON  bool          `help:"Print JSON, one value for each look."`
}

// expectations are what is good, where that is not the server's to say.
type expectations struct {
	MaxP99         time.Duration `name:"max-p99" default:"100ms" placeholder:"TIME" help:"How long 99 of 100 queries of the last minute may take (default ${default})."`
	MaxStaleness   time.Duration `default:"1m" placeholder:"TIME" help:"How long ago a server may have seen last what is released (default ${default})."`
	MaxSnapshotAge time.Duration `default:"48h" placeholder:"TIME" help:"How old what answers may be (default ${default})."`
}

func (statusCommand) Help() string {
	return `Of each server: what serves and since when, recall of live queries and what it is for sure, latency, load, how much it knows of the releases and of the live log, what it has failed at last; and for each thing that is not good, why, and what to do next. Without --server it is ` + defaultServer + `.

The exit code is 0 only if all is good, 1 if something is not, and 4 if a server does not answer within 5 seconds, whatever else is wrong. One that answers, and refuses to say how it is, or with which TLS fails, is not good: 1.

Examples:

    tandem status --server 127.0.0.1:8080

    tandem status --server 127.0.0.1:8080 --server 127.0.0.1:8081 --watch`
}

// judge returns what is not good with a server.
func (x *expectations) judge(s *serverStatus, now time.Time) []judge.Finding {
	if s.Status == nil {
		return []judge.Finding{judgeSilence(s)}
	}
	of := judge.Server{Status: s.Status, Live: s.Live}
	if s.Live == nil {
		of.LiveError = ofServer(s.live.Err)
	}
	return (*judge.Expectations)(x).Judge(&of, now)
}

// serverStatus is one server at one moment, for people and as JSON.
type serverStatus struct {
	Server string                          `json:"server"`
	Good   bool                            `json:"good"`
	Error  string                          `json:"error,omitempty"`  // why it has said nothing
	Status *tandemv1.GetStatusResponse     `json:"status,omitempty"` // nil then
	Live   *tandemv1.GetLiveStatusResponse `json:"live,omitempty"`   // nil if it does not say
	// Findings are what is not good.
	Findings []judge.Finding `json:"findings,omitempty"`

	err  error // of Error
	live fleet.LiveAnswer
}

// fleetStatus is all servers at one moment.
type fleetStatus struct {
	Time    time.Time      `json:"time"`
	Good    bool           `json:"good"`
	Servers []serverStatus `json:"servers"`
	// Findings are what is not good of all servers together.
	Findings []judge.Finding `json:"findings,omitempty"`
}

func (c *statusCommand) Run(e *environment) error {
	switch {
	case c.Every <= 0:
		return usagef("--every is %s, want more than 0", c.Every)
	case c.MaxP99 <= 0:
		return usagef("--max-p99 is %s, want more than 0", c.MaxP99)
	case c.MaxStaleness <= 0:
		return usagef("--max-staleness is %s, want more than 0", c.MaxStaleness)
	case c.MaxSnapshotAge <= 0:
		return usagef("--max-snapshot-age is %s, want more than 0", c.MaxSnapshotAge)
	}
	if len(c.Server) == 0 {
		c.Server = []string{defaultServer}
	}
	all, err := c.fleet()
	if err != nil {
		return err
	}
	err = context.Canceled // of a first look that is interrupted
	for {
		now := c.look(e.ctx, all)
		if e.ctx.Err() == nil {
			if err := c.show(e.stdout, now); err != nil {
				return err
			}
			err = now.err()
		}
		if !c.Watch || !waitFor(e.ctx, c.Every) {
			return err
		}
	}
}

// waitFor waits for some time, and returns false if ctx ends before.
func waitFor(ctx context.Context, wait time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// look asks all servers, and finds what is not good.
func (c *statusCommand) look(ctx context.Context, all *fleet.Fleet) *fleetStatus {
	var live []fleet.LiveAnswer
	var asking sync.WaitGroup
	asking.Go(func() { live = all.AskLive(ctx) })
	answers := all.Ask(ctx)
	asking.Wait()
	out := &fleetStatus{Time: time.Now(), Good: true}
	for i, a := range answers {
		s := serverStatus{Server: a.Server.Name, Status: a.Status, Live: live[i].Status, live: live[i]}
		if a.Err != nil {
			s.err, s.Error = a.Err, ofServer(a.Err)
		}
		s.Findings = c.judge(&s, out.Time)
		s.Good = len(s.Findings) == 0
		out.Good = out.Good && s.Good
		out.Servers = append(out.Servers, s)
	}
	out.Findings = differences(out.Servers)
	out.Good = out.Good && len(out.Findings) == 0
	return out
}

// show prints what was found. On a terminal that is watched it takes the place of what was.
func (c *statusCommand) show(w io.Writer, now *fleetStatus) error {
	if c.JSON {
		return wording.WriteJSON(w, now)
	}
	if c.Watch && isTerminal(w) {
		fmt.Fprint(w, "\x1b[H\x1b[2J")
	}
	return now.write(w)
}

// unreachableError says that a server did not answer.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() error { return e.error }

// err says how many servers are not good, nil if all are.
func (f *fleetStatus) err() error {
	silent, bad := 0, 0
	for _, s := range f.Servers {
		switch {
		case s.Status == nil && !answers(s.err):
			silent++
		case !s.Good:
			bad++
		}
	}
	of := wording.Plural(len(f.Servers), "server")
	switch {
	case f.Good:
		return nil
	case silent > 0 && bad > 0:
		return unreachableError{fmt.Errorf("%d of %s not answering, %d not good", silent, of, bad)}
	case silent > 0:
		return unreachableError{fmt.Errorf("%d of %s not answering", silent, of)}
	case bad > 0:
		return fmt.Errorf("%d of %s not good", bad, of)
	}
	return errors.New("the servers do not serve the same")
}

// differences returns what is not good of all servers together.
func differences(servers []serverStatus) []judge.Finding {
	by := map[string][]string{}
	for _, s := range servers {
		if s.Status.GetHash() != "" {
			what := fmt.Sprintf("generation %d (%.12s)", s.Status.Generation, s.Status.Hash)
			by[what] = append(by[what], s.Server)
		}
	}
	if len(by) < 2 {
		return nil
	}
	var parts []string
	for _, what := range sortedKeys(by) {
		parts = append(parts, fmt.Sprintf("%s by %s", what, strings.Join(by[what], ", ")))
	}
	return []judge.Finding{judge.New("TandemReleaseNotServed", "wait a moment while servers load; then tandem release status --store STORE with each server",
		"servers do not serve the same: %s", strings.Join(parts, "; "))}
}
