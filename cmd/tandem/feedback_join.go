package main

import (
	"fmt"
	"time"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// dayFlag is a day in UTC.
type dayFlag time.Time

// UnmarshalText reads a date.
func (d *dayFlag) UnmarshalText(text []byte) error {
	at, err := time.Parse(time.DateOnly, string(text))
	if err != nil {
		return usagef("%.40q is no day; accepted: 2026-11-25", text)
	}
	*d = dayFlag(at)
	return nil
}

// daysFlags say which days are meant.
type daysFlags struct {
	Day   dayFlag `required:"" placeholder:"DAY" help:"The day, in UTC, such as 2026-11-25, or the first of several."`
	Until dayFlag `placeholder:"DAY" help:"The last of several days; by default there is one."`
}

// maxDays is how many days a command takes.
const maxDays = 400

// days returns the days, the first first.
func (f *daysFlags) days() (list []time.Time, err error) {
	first, last := time.Time(f.Day), time.Time(f.Until)
	if last.IsZero() {
		last = first
	}
	if last.Before(first) || last.Sub(first) >= maxDays*24*time.Hour {
		return nil, usagef("--until is %s, want %s or up to %d days after it", joined.DayOf(last), joined.DayOf(first), maxDays-1)
	}
	for ; !first.After(last); first = first.AddDate(0, 0, 1) {
		list = append(list, first)
	}
	return list, nil
}

// feedbackStoreFlags say whose logs are read.
type feedbackStoreFlags struct {
	Store        string        `required:"" variable:"TANDEM_STORE" placeholder:"STORE" help:"Store: a folder, or a URL such as s3://bucket?region=eu-west-1&prefix=tandem/, gs://bucket or azblob://container."`
	StoreTimeout time.Duration `default:"10s" placeholder:"TIME" help:"How long a store that is no folder may be silent before a request to it is made again, up to four times (default ${default})."`
}

func (f *feedbackStoreFlags) open(e *environment) (*objects.Bucket, error) {
	bucket, err := objects.Open(e.ctx, f.Store, objects.WithTimeout(f.StoreTimeout))
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return bucket, nil
}

// feedbackJoinCommand is `tandem feedback join`.
type feedbackJoinCommand struct {
	requiredStoreFlags
	daysFlags
	Window      time.Duration `default:"24h" placeholder:"TIME" help:"How long after an app was served an outcome may be (default ${default})."`
	Late        time.Duration `default:"72h" placeholder:"TIME" help:"How long after the window objects may be written that are read (default ${default})."`
	Memory      byteFlag      `default:"512MiB" placeholder:"SIZE" help:"About how much memory rows may take, beside one object that is read and one that is written (default ${default})."`
	Temp        string        `placeholder:"DIR" help:"Folder for rows that are dealt; by default the system's for temporary files."`
	SkipDamaged bool          `help:"Take of damaged objects what comes before the damage, and name them in the set; by default they are an error."`
	Negatives   int           `default:"0" placeholder:"N" help:"How many apps of each request to draw that were eligible and not served, from the snapshot that answered it, which is opened; up to 100 (default none)."`
	Again       bool          `help:"Join though nothing has changed."`
	JSON        bool          `help:"Print JSON."`
}

func (feedbackJoinCommand) Help() string {
	return `Reads recorded queries (tandem serve --record-share) and outcomes of a store, and writes for each day the set joined/DAY: Parquet files with one row for each app that was served, with what its user did with it, and with those that would have come next; with --negatives some too that were eligible and not served. The day of a row is that of its request. A day whose inputs have not changed is left as it is; outcomes that came late make another generation of it, whole or not at all.

An outcome that names a request is of that request; one that names none is of the last request of its user, within --window, whose answer had the app. What is of none is counted.

Example:

    tandem feedback join --store store --day 2026-11-25`
}

// joinedInfo is what is told of a day.
type joinedInfo struct {
	*joined.Set
	Fresh   bool `json:"fresh"`
	Changed bool `json:"changed"`
}

func (c *feedbackJoinCommand) Run(e *environment) (err error) {
	days, err := c.days()
	if err != nil {
		return err
	}
	o := feedback.JoinOptions{
		Window: c.Window, Late: c.Late, Memory: int64(c.Memory), Dir: c.Temp, SkipDamaged: c.SkipDamaged, Again: c.Again, Now: time.Now(),
		Negatives: c.Negatives,
	}
	o.Day = days[0]
	if err := o.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	if c.Negatives > 0 {
		eligible := newEligibleApps(e, store)
		defer closing(&err, eligible)
		o.Eligible = eligible.draw
	}
	var all []joinedInfo
	for _, o.Day = range days {
		done, err := feedback.Join(e.ctx, store.Objects(), o)
		if err != nil {
			return err
		}
		if !c.JSON {
			tellJoined(e, done)
		}
		all = append(all, joinedInfo{done.Set, done.Fresh, done.Changed})
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, all)
	}
	return nil
}

// tellJoined says what is in a set.
func tellJoined(e *environment, done *feedback.Joined) {
	s, n := done.Set, done.Set.Counts
	what := "nothing new"
	switch {
	case done.Changed:
		what = "joined"
	case done.Fresh:
		what = "joined, the same rows"
	}
	fmt.Fprintf(e.stdout, "%s %s: generation %d, %s, %s, %s that came next, in %s\n", s.Day, what, s.Generation,
		wording.Plural(n.Requests, "request"), wording.Plural(n.Shown, "exposure"), wording.Count(n.Next), wording.Plural(len(s.Parts), "part"))
	fmt.Fprintf(e.stdout, "  %s joined; of %s of the day: %s to it, %s to other days, %s of requests that are not recorded, %s of apps that were not in the answer, %s of users who were not served the app, %s outside the window\n",
		wording.Plural(n.Joined, "outcome"), wording.Count(n.OfDay), wording.Count(n.ToDay), wording.Count(n.ToOther), wording.Count(n.NoRequest),
		wording.Count(n.NotShown), wording.Count(n.NoExposure), wording.Count(n.Outside))
	for _, x := range []struct {
		n    int64
		what string
	}{
		{n.Repeated, fmt.Sprintf("ids came again, %s of them with something else: the first that was received counts", wording.Count(n.Differing))},
		{n.NotApps, "requests left out, which ask for users"},
		{n.Eligible, "apps drawn that were eligible and not served"},
		{n.EligibleUnknown, "requests without such, whose snapshot is not there any more, or does not know their user"},
		{n.EligibleShort, "requests with fewer of them"},
		{n.Valueless, "play times without seconds count, and add none"},
		{n.KindsLeftOut, fmt.Sprintf("outcomes left out, of more than %d kinds of one exposure", joined.MaxOwn)},
	} {
		if x.n > 0 {
			fmt.Fprintf(e.stdout, "  %s %s\n", wording.Count(x.n), x.what)
		}
	}
	for _, text := range append(s.Queries.Damaged, s.Outcomes.Damaged...) {
		fmt.Fprintf(e.stdout, "  damaged, and in part left out: %s\n", text)
	}
}
