package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Names of what is exported, as the Open Bandit Pipeline looks for them: OpenBanditDataset reads
// POLICY/CAMPAIGN/CAMPAIGN.csv, and knows two policies and three campaigns.
const (
	obpRounds = "bts/all/all.csv"
	obpItems  = "bts/all/item_context.csv"
)

// feedbackObpCommand is `tandem feedback obp`.
type feedbackObpCommand struct {
	feedbackStoreFlags
	daysFlags
	Hit  []string `default:"open,install,play_time" placeholder:"KIND" help:"Kinds of outcomes that make an exposure a hit (default ${default})."`
	Out  string   `required:"" placeholder:"DIR" help:"Folder that the dataset is written to, or URL of a bucket; one that has none yet."`
	JSON bool     `help:"Print JSON."`
}

func (feedbackObpCommand) Help() string {
	return `Writes exposures of joined days (tandem feedback join) that have propensities in the columns of the Open Bandit Dataset, one row for each place of each answer. The Open Bandit Pipeline reads it without flags:

    OpenBanditDataset(behavior_policy="bts", campaign="all", data_path="DIR")

Further columns have the request id, what is expected of a place, and for the policies of tandem feedback report with which probability they serve what was served, so that its estimates can be made again. There are no ids of users in it. Fails where no answer has propensities.

Example:

    tandem feedback obp --store store --day 2026-11-25 --out obp`
}

func (c *feedbackObpCommand) Run(e *environment) (err error) {
	days, err := c.days()
	if err != nil {
		return err
	}
	o := feedback.ExportOptions{Days: days, Hits: c.Hit}
	if err := o.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	bucket, err := c.open(e)
	if err != nil {
		return err
	}
	defer closing(&err, bucket)
	if !strings.Contains(c.Out, "://") {
		if err := os.MkdirAll(c.Out, 0o755); err != nil {
			return usageError{fmt.Errorf("--out: %w", err)}
		}
	}
	out, err := objects.Open(e.ctx, c.Out, objects.WithTimeout(c.StoreTimeout))
	if err != nil {
		return fmt.Errorf("open --out: %w", err)
	}
	defer closing(&err, out)
	for _, name := range []string{obpItems, obpRounds} {
		if _, err := out.Stat(e.ctx, name); err == nil {
			return usagef("--out: %s has %s already; accepted: a folder without one", c.Out, name)
		} else if !errors.Is(err, objects.ErrNotFound) {
			return fmt.Errorf("open --out: %w", err)
		}
	}
	done, err := exportRounds(e.ctx, bucket, out, o)
	if errors.Is(err, objects.ErrNotFound) {
		return fmt.Errorf("%w; tandem feedback join does", err)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, done)
	}
	fmt.Fprintf(e.stdout, "%s of %s, %s; %s without propensities left out\n",
		wording.Plural(done.Rounds, "round"), wording.Plural(done.Requests, "request"), wording.Plural(done.Actions, "app"), wording.Plural(done.Without, "request"))
	for _, g := range done.LeftOut {
		fmt.Fprintf(e.stdout, "%s of generation %d left out: %s\n", wording.Plural(g.Requests, "request"), g.Generation, g.Why)
	}
	return nil
}

// exportRounds writes the apps, and then the rounds, so that what has rounds is whole.
func exportRounds(ctx context.Context, from, to *objects.Bucket, o feedback.ExportOptions) (done *feedback.Exported, err error) {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		var items bytes.Buffer
		var err error
		if done, err = feedback.Export(ctx, from, o, w, &items); err == nil {
			err = to.Write(ctx, obpItems, items.Bytes())
		}
		w.CloseWithError(err) // nil is the end
		written <- err
	}()
	err = to.Upload(ctx, obpRounds, r)
	r.CloseWithError(errors.Join(err, errEnded)) // nobody reads any more
	if failed := <-written; failed != nil {
		return nil, failed // it is the reason of the other one
	}
	return done, err
}

// errEnded ends what writes to a pipe that nobody reads.
var errEnded = errors.New("nobody reads it any more")
