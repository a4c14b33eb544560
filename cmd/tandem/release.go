package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

// releaseCommand is `tandem release`.
type releaseCommand struct {
	Status   releaseStatusCommand   `cmd:"" help:"Show what serves, in the store and on servers."`
	Start    releaseStartCommand    `cmd:"" help:"Give a snapshot a share of traffic."`
	Split    releaseSplitCommand    `cmd:"" help:"Divide the traffic anew."`
	Promote  releasePromoteCommand  `cmd:"" help:"Give one arm all traffic."`
	Rollback releaseRollbackCommand `cmd:"" help:"Take a bad snapshot off traffic: bring an earlier generation back."`
	Stop     releaseStopCommand     `cmd:"" help:"End an arm: the control takes its traffic."`
	History  releaseHistoryCommand  `cmd:"" help:"List the releases."`
}

// changeFlags are those of every change to what serves.
type changeFlags struct {
	releaseFlags
	Wait       time.Duration `default:"0s" placeholder:"TIME" help:"Wait so long until every --server serves the change."`
	Author     string        `placeholder:"NAME" help:"Who makes the change (default the user and the host)."`
	Reason     string        `placeholder:"TEXT" help:"Why, for those who read the history."`
	Generation *uint64       `placeholder:"N" help:"Change this generation, and fail if another serves by now (default what serves now)."`
	Restored   bool          `help:"Accept the log of releases as it is, where the store was restored from a copy or the log is broken: servers that have followed another log follow this one from here on."`
	JSON       bool          `help:"Print the release as JSON."`
}

// overrideFlags are those of changes that a snapshot's gates can keep from being made.
type overrideFlags struct {
	Override *string `placeholder:"REASON" help:"Give a snapshot the traffic although its gates failed or were not run, for this reason, which is recorded."`
}

// override returns the reason, empty if there is none.
func (f *overrideFlags) override() (string, error) {
	if f.Override == nil {
		return "", nil
	}
	// An empty one is no reason, though whoever gives it wants the gates overridden.
	if strings.TrimSpace(*f.Override) == "" {
		return "", usagef("--override is %q; accepted: the reason, which is recorded", *f.Override)
	}
	return *f.Override, checkLine("--override", *f.Override)
}

// change returns who makes a change.
func (f *changeFlags) change() (release.Change, error) {
	switch {
	case f.Wait < 0:
		return release.Change{}, usagef("--wait is %s, want at least 0", f.Wait)
	case f.Wait > 0 && len(f.Server) == 0:
		return release.Change{}, usagef("--wait needs --server: whom to wait for")
	case f.Store != "" && f.Wait == 0 && len(f.Server) > 0:
		return release.Change{}, usagef("--server needs --wait: how long to wait until it serves the change, such as --wait 1m")
	case f.Wait == 0 && len(f.Server) > 1:
		return release.Change{}, usagef("--server is given %d times; accepted: the one that makes the change, or --wait and those to wait for", len(f.Server))
	}
	if err := f.releaseFlags.check(); err != nil {
		return release.Change{}, err
	}
	c := release.Change{Author: cmp.Or(f.Author, author()), Reason: f.Reason, Restored: f.Restored}
	if err := checkLine("--author", f.Author); err != nil {
		return c, err
	}
	if err := checkLine("--reason", f.Reason); err != nil {
		return c, err
	}
	var err error
	c.Generation, err = generation("--generation", f.Generation)
	return c, err
}

// checkLine returns an error unless a text is one that a table can show.
func checkLine(flag, text string) error {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return usagef("%s is %.200q; accepted: one line without control characters", flag, text)
	}
	return nil
}

// generation returns the value of a flag, 0 if it is not given. Who gives 0 means
// something else, or has an empty variable.
func generation(flag string, n *uint64) (uint64, error) {
	switch {
	case n == nil:
		return 0, nil
	case *n == 0:
		return 0, usagef("%s is 0; accepted: the number of a release, from 1", flag)
	}
	return *n, nil
}

// checkWeight returns an error unless a weight is one that an arm may have.
func checkWeight(what string, n int) error {
	if n < 0 || n > release.Total {
		return usagef("%s is %d; accepted: 0 to %d per mille", what, n, release.Total)
	}
	return nil
}

// author is the user at this host.
func author() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + host
}

// run opens the releases, makes the change, tells what serves and waits for servers.
func (f *changeFlags) run(e *environment, make func(releaser, release.Change) (*release.Release, error)) (err error) {
	c, err := f.change()
	if err != nil {
		return err
	}
	releases, err := f.open(e, newWaiting(e.stderr))
	if err != nil {
		return err
	}
	defer closing(&err, releases)
	r, err := make(releases, c)
	switch unknown := (*release.UnknownError)(nil); {
	case e.ctx.Err() != nil && errors.As(err, &unknown):
		return errors.New("interrupted: " + err.Error()) // not of the class of what did nothing
	case e.ctx.Err() != nil && errors.Is(err, context.Canceled):
		return errors.New("interrupted before anything was written")
	}
	if errors.Is(err, release.ErrGates) {
		return unfitError{fmt.Errorf("%w%s\n  a reason, --override REASON, does it all the same", err, lookNext(err, f.where()))}
	}
	if err != nil {
		return err
	}
	if f.JSON {
		err = wording.WriteJSON(e.stdout, newReleaseInfo(r))
	} else {
		err = writeRelease(e.stdout, r)
	}
	if err != nil || f.Wait == 0 {
		return err
	}
	return f.await(e, fleet.Awaited{Release: r, Releases: releases, Accepted: f.Restored}, f.Wait)
}

// kindOf says what a release did.
func kindOf(r *release.Release) string {
	if r.Stopped != "" {
		return "stop " + release.Escape(r.Stopped)
	}
	return string(r.Kind)
}

func writeRelease(w io.Writer, r *release.Release) error {
	fmt.Fprintf(w, "generation %d: %s by %s at %s", r.Generation, kindOf(r), release.Escape(r.Author), r.Time.Format(time.RFC3339))
	if r.Of != 0 {
		fmt.Fprintf(w, " to generation %d", r.Of)
	}
	if r.Reason != "" {
		fmt.Fprintf(w, ": %s", release.Escape(r.Reason))
	}
	if r.Override != "" {
		fmt.Fprintf(w, "\ngates were overridden: %s", release.Escape(r.Override))
	}
	if r.AutoRollback {
		fmt.Fprint(w, "\nservers roll back by themselves where the recall of live queries is below its floor")
	}
	for _, a := range r.Arms {
		if a.RecallFloor > 0 {
			fmt.Fprintf(w, "\n%s has the recall floor %v", a.Name, a.RecallFloor)
		}
		for _, note := range armNotes(&a) {
			fmt.Fprintf(w, "\n%s was started with %s", a.Name, release.Escape(note))
		}
		if a.Override != "" {
			fmt.Fprintf(w, "\n%s has traffic although its gates did not let it pass", a.Name)
			if len(a.GatesFailed) > 0 {
				fmt.Fprintf(w, " (failed: %s)", release.Escape(strings.Join(a.GatesFailed, ", ")))
			}
			fmt.Fprintf(w, ": %s", release.Escape(a.Override))
		}
	}
	fmt.Fprintf(w, "\nmodel %s, salt %s\n", release.Escape(r.Model), release.Escape(r.Salt))
	t := newTable(w)
	fmt.Fprintln(t, "arm\tper mille\tmodel version\tsnapshot\tbuckets\tpins")
	for _, a := range r.Arms {
		buckets, err := a.Buckets.MarshalText()
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%d\n", a.Name, a.Weight, release.Escape(a.ModelVersion), a.Snapshot.Short(), buckets, len(a.Pins))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if i := r.Interleaving; i != nil {
		fmt.Fprintf(w, "%d per mille of the keys of %s are interleaved\n", i.Share, strings.Join(i.Arms, " and "))
	}
	if x := r.Exploration; x != nil {
		last := "place"
		if x.Places > 1 {
			last = wording.Plural(int64(x.Places), "place")
		}
		fmt.Fprintf(w, "%d per mille of the requests have their last %s drawn of what ranks up to %d\n", x.Share, last, x.Pool)
	}
	if len(r.Variants) == 0 {
		return nil
	}
	t = newTable(w)
	fmt.Fprintln(t, "experiment\tvariant\tarm")
	for _, v := range r.Variants {
		fmt.Fprintf(t, "%s\t%s\t%s\n", release.Escape(v.Experiment), release.Escape(v.Variant), strings.Join(v.Arms, "+"))
	}
	return t.Flush()
}

type releaseStatusCommand struct {
	releaseFlags
	MaxStaleness time.Duration `default:"1m" placeholder:"TIME" help:"How long ago a server may have seen last what is released (default ${default})."`
	JSON         bool          `help:"Print JSON."`
}

func (releaseStatusCommand) Help() string {
	return `Exits with 1 if a server does not serve what is released, has not seen for long what that is, or does not answer within 5 seconds, and if the newest entries of the log do not hang together. A release is known by the hash of its entry: a generation number is used again in a store that was restored from a copy.

Example:

    tandem release status --store store --server 127.0.0.1:8080`
}

func (c *releaseStatusCommand) Run(e *environment) (err error) {
	if c.MaxStaleness <= 0 {
		return usagef("--max-staleness is %s, want more than 0", c.MaxStaleness)
	}
	if err := c.check(); err != nil {
		return err
	}
	all, err := c.fleet()
	if err != nil {
		return err
	}
	releases, err := c.open(e, nil)
	if err != nil {
		return err
	}
	defer closing(&err, releases)
	log, err := readLog(e.ctx, releases, statusDepth, true)
	if err != nil {
		return err
	}
	var servers []serverInfo
	faulty := 0
	var live []fleet.LiveAnswer
	var asking sync.WaitGroup
	asking.Go(func() { live = all.AskLive(e.ctx) })
	answers := all.Ask(e.ctx)
	asking.Wait()
	for i, answer := range answers {
		s := newServerInfo(answer, log.head, log.hash, c.MaxStaleness)
		s.Live = newServerLive(&live[i])
		if servers = append(servers, s); s.Status == nil || len(s.Faults) > 0 {
			faulty++
		}
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, struct {
			Unreadable *entryFault  `json:"unreadable,omitempty"`
			Broken     []entryFault `json:"broken,omitempty"`
			Release    *releaseInfo `json:"release"` // the newest that can be read
			Servers    []serverInfo `json:"servers,omitempty"`
		}{log.unreadable, log.broken, newReleaseInfo(log.newest), servers})
	} else {
		err = writeStatus(e.stdout, log, servers)
	}
	if err != nil {
		return err
	}
	err = log.err()
	if err == nil && log.unreadable != nil {
		err = fmt.Errorf("generation %d, which was released last, cannot be read; tandem release rollback --to goes on without it", log.unreadable.Generation)
	}
	if faulty > 0 {
		text := fmt.Sprintf("%d of %s not serving what is released", faulty, wording.Plural(len(servers), "server"))
		if err != nil {
			text += "; " + err.Error() + goOn(err)
		}
		err = errors.New(text)
	}
	return err
}

func writeStatus(w io.Writer, log *logInfo, servers []serverInfo) error {
	switch {
	case log.unreadable != nil:
		fmt.Fprintf(w, "generation %d: %s\n", log.unreadable.Generation, release.Escape(log.unreadable.Error))
	case log.lost != nil:
		fmt.Fprintln(w, "what is released is not known: the log of releases is lost")
	case log.newest == nil:
		fmt.Fprintln(w, "nothing was released yet; tandem release start does")
	}
	if log.newest != nil {
		if err := writeRelease(w, log.newest); err != nil {
			return err
		}
	}
	for _, b := range log.broken {
		fmt.Fprintf(w, "\n%s\n", release.Escape(b.Error))
	}
	if len(servers) == 0 {
		return nil
	}
	t := newTable(w)
	fmt.Fprintln(t, "\nserver\tgeneration\tphase\tseen\tmapped\tlimit\tkept\tlive log")
	for _, s := range servers {
		if s.Status == nil {
			fmt.Fprintf(t, "%s\t\t%s\n", s.Server, release.Escape(s.Error))
			continue
		}
		seen := "-"
		if age := s.Status.Staleness; age != nil {
			seen = agoText(fleet.Staleness(age))
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%d\t%s\n", s.Server, s.Status.Generation, s.phase, seen,
			wording.Bytes(int64(s.Status.MappedBytes)), wording.Bytes(int64(s.Status.MemoryLimit)), len(s.Status.KeptSnapshots), s.Live)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range servers {
		notes := s.Faults
		if s.unread != nil {
			notes = append(slices.Clip(notes), s.unread.Error())
		}
		for _, fault := range notes {
			fmt.Fprintf(w, "\n%s: %s\n", s.Server, release.Escape(fault))
		}
	}
	return nil
}

type releaseStartCommand struct {
	changeFlags
	Snapshot string  `arg:"" placeholder:"DIGEST" help:"The snapshot's digest or the beginning of it."`
	Arm      string  `placeholder:"NAME" help:"Name of the new arm (default control for the first release, else candidate)."`
	Weight   int     `default:"10" placeholder:"N" help:"Share of traffic, per mille, of a snapshot that starts beside others (default ${default}: 1%)."`
	Floor    float64 `name:"recall-floor" default:"0" placeholder:"X" help:"Mean recall of live queries below which servers raise an alarm (default 0.02 less than what the manifest measured)."`
	overrideFlags
	recallFlags
}

func (releaseStartCommand) Help() string {
	return `The first release gives its snapshot all traffic. A later one adds an arm: those who fall into it stay there while it grows.

Example:

    tandem release start --store store 4be1 --weight 10 --reason "new user features"`
}

func (c *releaseStartCommand) Run(e *environment) error {
	if c.Snapshot == "" {
		return usagef("the digest is empty; accepted: the beginning of one, or all of it")
	}
	if err := checkWeight("--weight", c.Weight); err != nil {
		return err
	}
	if err := checkFloor(c.Floor); err != nil {
		return err
	}
	override, err := c.override()
	if err != nil {
		return err
	}
	return c.run(e, func(r releaser, change release.Change) (*release.Release, error) {
		change.Override, change.AutoRollback = override, c.AutoRollback
		return r.start(e.ctx, c.Snapshot, release.StartOptions{Change: change, Arm: c.Arm, Weight: c.Weight, RecallFloor: c.Floor})
	})
}

type releaseSplitCommand struct {
	changeFlags
	overrideFlags
	recallFlags
	Weights []string `arg:"" optional:"" name:"arm=weight" help:"Shares of traffic, per mille: candidate=100. Arms that are not named share what is left as they did."`
	Pin     []string `sep:"none" placeholder:"ARM=KEY" help:"User id or request key that falls into this arm from now on. May be repeated."`
	Unpin   []string `sep:"none" placeholder:"KEY" help:"User id or request key that no longer is pinned. May be repeated."`
	Remove  []string `sep:"none" placeholder:"ARM" help:"Arm to end. May be repeated."`
	Variant []string `sep:"none" placeholder:"EXPERIMENT:VARIANT=ARM[+ARM]" help:"Variant of an experiment of callers that this arm answers from now on, whatever arm its requests would fall into, or that two arms answer, interleaved. May be repeated."`
	Unmap   []string `sep:"none" placeholder:"EXPERIMENT:VARIANT" help:"Variant that decides no arm any more. May be repeated."`

	Interleave    string `placeholder:"ARM+ARM=SHARE" help:"Share, per mille, of the keys of two arms whose requests are interleaved from now on: the answer is drawn from those of both."`
	EndInterleave bool   `help:"Interleave no more, but for variants of two arms."`
	Explore       string `placeholder:"SHARE,PLACES,POOL" help:"Share of the requests, per mille, of whose answers the last places are drawn from now on, how many places, and up to which rank there is to draw from."`
	EndExplore    bool   `help:"Explore no more."`
}

func (releaseSplitCommand) Help() string {
	return `Example:

    tandem release split --store store candidate=100 --pin candidate=user-0000042

A request may name an experiment of its caller and a variant of it, which are recorded with it. Where --variant gives that to an arm, the arm answers; promote, the end of the arm and --unmap end that, and a rollback has it as the earlier release did.

    tandem release split --store store --variant ranker-7:treatment=candidate

With --interleave a share of the keys of two arms is answered by both of them, in turns: what users do with such answers says which arm is better by a tenth of the requests that a comparison of the arms takes. With --explore some answers end with apps that rank lower, at random and with known probabilities, which estimates of another model's worth need. Promote, the end of an arm and a rollback end the interleaving; promote and a rollback end the exploration.

    tandem release split --store store --interleave control+candidate=50
    tandem release split --store store --explore 20,2,200`
}

func (c *releaseSplitCommand) Run(e *environment) error {
	sum := 0
	o := release.SplitOptions{Unpin: c.Unpin, Remove: c.Remove, Weights: map[string]int{}, Pins: map[string][]string{}}
	for _, text := range c.Weights {
		name, weight, ok := strings.Cut(text, "=")
		n, err := strconv.Atoi(weight)
		if _, twice := o.Weights[name]; !ok || err != nil || twice {
			return usagef("%q; accepted: ARM=WEIGHT per mille, each arm once, such as candidate=100", text)
		}
		if err := checkWeight("the weight of arm "+name, n); err != nil {
			return err
		}
		o.Weights[name] = n
		if sum += n; sum > release.Total {
			return usagef("the weights add up to %d; accepted: up to %d per mille", sum, release.Total)
		}
	}
	for _, text := range c.Pin {
		name, key, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return usagef("--pin is %q; accepted: ARM=KEY, such as candidate=user-0000042", text)
		}
		o.Pins[name] = append(o.Pins[name], key)
	}
	for _, text := range c.Variant {
		at := strings.LastIndexByte(text, '=')
		v, err := release.ParseVariant(text[:max(at, 0)])
		if err != nil || at == len(text)-1 {
			return usagef("--variant is %.300q; accepted: EXPERIMENT:VARIANT=ARM, or ARM+ARM, such as ranker-7:treatment=candidate", text)
		}
		v.Arms = strings.Split(text[at+1:], "+")
		o.Variants = append(o.Variants, v)
	}
	for _, text := range c.Unmap {
		v, err := release.ParseVariant(text)
		if err != nil {
			return usagef("--unmap is %w", err)
		}
		o.Unmap = append(o.Unmap, v)
	}
	var err error
	switch {
	case c.Interleave != "" && c.EndInterleave:
		return usagef("--interleave and --end-interleave are two; accepted: one of them")
	case c.Explore != "" && c.EndExplore:
		return usagef("--explore and --end-explore are two; accepted: one of them")
	}
	o.EndInterleaving, o.EndExploration = c.EndInterleave, c.EndExplore
	if c.Interleave != "" {
		if o.Interleaving, err = release.ParseInterleaving(c.Interleave); err != nil {
			return usagef("--interleave is %w", err)
		}
	}
	if c.Explore != "" {
		if o.Exploration, err = release.ParseExploration(c.Explore); err != nil {
			return usagef("--explore is %w", err)
		}
	}
	override, err := c.override()
	if err != nil {
		return err
	}
	return c.run(e, func(r releaser, change release.Change) (*release.Release, error) {
		o.Change = change
		o.Override, o.AutoRollback = override, c.AutoRollback
		return r.split(e.ctx, o)
	})
}

type releasePromoteCommand struct {
	changeFlags
	overrideFlags
	recallFlags
	Arm string `arg:"" optional:"" help:"Arm to give all traffic; it is named control then. By default the one that is not control, if there is one."`
}

func (releasePromoteCommand) Help() string {
	return `Example:

    tandem release promote --store store candidate --server 127.0.0.1:8080 --wait 1m`
}

func (c *releasePromoteCommand) Run(e *environment) error {
	override, err := c.override()
	if err != nil {
		return err
	}
	return c.run(e, func(r releaser, change release.Change) (*release.Release, error) {
		change.Override, change.AutoRollback = override, c.AutoRollback
		return r.promote(e.ctx, change, c.Arm)
	})
}
