package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/wording"
)

// feedbackCommand is `tandem feedback`.
type feedbackCommand struct {
	Join   feedbackJoinCommand   `cmd:"" help:"Join what was served with what users did, by days."`
	Log    feedbackLogCommand    `cmd:"" help:"Send outcomes of a file to a server: what users did with apps."`
	Report feedbackReportCommand `cmd:"" help:"Report on joined days: hit rates, what of the catalogue was shown, which arm users prefer, what other policies would come to."`
	Obp    feedbackObpCommand    `cmd:"" help:"Write exposures that have propensities as a dataset of the Open Bandit Pipeline."`
	Plan   feedbackPlanCommand   `cmd:"" help:"Reckon how many requests an experiment takes."`
}

// Bounds of what is sent.
const (
	maxOutcomeLine = 64 << 10 // bytes of a line
	batchOutcomes  = 1000     // that a server takes at a time
	maxCalls       = 64
)

type feedbackLogCommand struct {
	clientFlags
	Server  string        `required:"" sep:"none" variable:"TANDEM_SERVER" placeholder:"HOST:PORT" help:"Server that takes outcomes (--outcomes), by its address or its URL."`
	Timeout time.Duration `default:"30s" placeholder:"TIME" help:"How long it may take to keep a thousand outcomes (default ${default})."`
	Calls   int           `default:"8" placeholder:"N" help:"Calls, each of up to a thousand outcomes, under way at a time: a server gathers those of a second and answers them together (default ${default})."`
	JSON    bool          `help:"Print JSON."`
	Files   []string      `arg:"" name:"file" help:"JSON Lines of outcomes, each an Outcome of the contract (feedback.proto): a file, a folder, a glob in quotes or a URL of one; gzip and zstd are read; - is standard input."`
}

func (feedbackLogCommand) Help() string {
	return `Reads all of it before it sends anything: a line that is no outcome is named, and nothing is sent. Returns once all are durable in the store of the server. If a call fails, the others are waited for, and it says how many outcomes are kept; the same command sends all again, and each counts once.

An outcome without an id gets one of the content of its file and the number of its line; one without a time is of when it arrives. Outcomes have no order.

Example:

    tandem feedback log outcomes.jsonl --server 127.0.0.1:8080

A file of outcomes:

    {"id": "o1", "requestId": "r1", "userId": "user-0000042", "appId": "app-0000007", "kind": "open"}
    {"id": "o2", "requestId": "r1", "userId": "user-0000042", "appId": "app-0000007", "kind": "play_time", "value": 64.5, "time": "2026-11-25T08:15:00Z"}`
}

// check returns an error unless the flags make sense.
func (c *feedbackLogCommand) check() error {
	switch {
	case c.Timeout <= 0:
		return usagef("--timeout is %s, want more than 0", c.Timeout)
	case c.Calls < 1 || c.Calls > maxCalls:
		return usagef("--calls is %d, want 1 to %d", c.Calls, maxCalls)
	}
	return nil
}

func (c *feedbackLogCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	url, err := c.url(c.Server)
	if err != nil {
		return err
	}
	client, err := c.client(c.Timeout)
	if err != nil {
		return err
	}
	files, err := openEvents(e.ctx, c.Files)
	if err != nil {
		return err
	}
	defer closing(&err, files)
	p := newProgress(e.stderr)
	defer p.Done()
	p.Stage("read outcomes", -1)
	var all int64
	if err := eachOutcome(e.ctx, files, func(*tandemv1.Outcome) error {
		all++
		p.Step(all)
		return nil
	}); err != nil {
		return err
	}
	p.Stage("send outcomes", all)
	s := &outcomeSender{client: tandemv1connect.NewFeedbackServiceClient(client, url), places: make(chan struct{}, c.Calls), step: p.Step}
	err = s.send(e.ctx, files)
	p.Done()
	if err != nil {
		return fmt.Errorf("%s of %s outcomes are kept: %w\n  the same command sends all again, and each counts once", wording.Count(s.kept), wording.Count(all), err)
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, struct {
			Outcomes  int64 `json:"outcomes"`
			Kept      int64 `json:"kept"`
			Forgotten int64 `json:"of_forgotten_users"`
		}{all, s.kept, s.forgotten})
	}
	text := fmt.Sprintf("%s kept", wording.Plural(s.kept, "outcome"))
	if s.forgotten > 0 {
		text += fmt.Sprintf(", %s of users who are forgotten are not", wording.Count(s.forgotten))
	}
	_, err = fmt.Fprintln(e.stdout, text)
	return err
}

// eachOutcome calls do with each outcome of files, which may keep it. It ends with the error of
// do, or with one that names the first line that is no outcome.
func eachOutcome(ctx context.Context, files *eventFiles, do func(*tandemv1.Outcome) error) error {
	err := tower.ReadLines(ctx, files.set.Files(), maxOutcomeLine, func(f input.File, number int64, line []byte) error {
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		o := &tandemv1.Outcome{}
		if err := protojson.Unmarshal(line, o); err != nil {
			return fmt.Errorf("%s line %d: %w", f.Name(), number, plainJSONError(err))
		}
		if o.Id == "" {
			o.Id = fmt.Sprintf("%s-%d", files.ids[f.Name()], number)
		}
		if err := server.CheckOutcome(o, time.Now()); err != nil {
			return fmt.Errorf("%s line %d: %w", f.Name(), number, err)
		}
		return do(o)
	})
	return errors.Join(err, files.set.Unchanged())
}

// outcomeSender sends outcomes to a server.
type outcomeSender struct {
	client tandemv1connect.FeedbackServiceClient
	places chan struct{} // of calls under way
	step   func(int64)

	calls           sync.WaitGroup
	mu              sync.Mutex
	kept, forgotten int64
	err             error // the first
}

// send sends all outcomes of files, and returns once no call is under way.
func (s *outcomeSender) send(ctx context.Context, files *eventFiles) error {
	r := &tandemv1.LogOutcomesRequest{}
	size := 0
	err := eachOutcome(ctx, files, func(o *tandemv1.Outcome) error {
		if n := proto.Size(o); len(r.Outcomes) == batchOutcomes || len(r.Outcomes) > 0 && size+n > batchBytes {
			if err := s.call(ctx, r); err != nil {
				return err
			}
			r, size = &tandemv1.LogOutcomesRequest{}, 0
		}
		r.Outcomes = append(r.Outcomes, o)
		size += proto.Size(o)
		return nil
	})
	if err == nil && len(r.Outcomes) > 0 {
		err = s.call(ctx, r)
	}
	s.calls.Wait()
	if s.err != nil {
		return s.err // it is the reason of the other one
	}
	return err
}

// call begins to send outcomes, once there is a place for another call, unless one has failed.
func (s *outcomeSender) call(ctx context.Context, r *tandemv1.LogOutcomesRequest) error {
	s.places <- struct{}{}
	s.mu.Lock()
	failed := s.err
	s.mu.Unlock()
	if failed != nil {
		<-s.places
		return failed
	}
	s.calls.Go(func() {
		defer func() { <-s.places }()
		answer, err := s.client.LogOutcomes(ctx, connect.NewRequest(r))
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			if s.err == nil {
				s.err = err
			}
			return
		}
		s.kept += int64(answer.Msg.Accepted)
		s.forgotten += int64(answer.Msg.Forgotten)
		s.step(s.kept + s.forgotten)
	})
	return nil
}
