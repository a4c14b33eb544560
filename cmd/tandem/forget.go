package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/upkeep"
	"github.com/tandem-ann/tandem/shard/wording"
)

// forgetCommand is `tandem forget`.
type forgetCommand struct {
	User forgetUserCommand `cmd:"" help:"Forget a user: in no answer from now on, out of the store in time."`
}

type forgetUserCommand struct {
	eventFlags
	DryRun    bool   `help:"Say what of the store has something of the user, and forget nobody."`
	HashUsers string `placeholder:"FILE" help:"The key by which ids are hashed in what servers record (tandem serve --hash-users): the user is forgotten there too."`

	User string `arg:"" name:"id" help:"The user's id."`
}

func (forgetUserCommand) Help() string {
	return `Writes to the live log of the store that the user is forgotten; servers need not run. From when they have read it the user is as unknown to them, though snapshots that they serve have a row. The next build leaves the user out, whatever its inputs have, and tandem snapshot gc takes the rest out of the store in time. The log has no id of a user who is forgotten, but a keyed hash of it.

Then it says what has something of the user still, or may have, and until when. It opens one shard of each snapshot for that, which it downloads of a store that is no folder.

Who is upserted again is a new user: stop what upserts the user first.

Where servers hash ids in what they record, --hash-users names the key, and what is recorded of the user is taken out too; without it what is left says so.

Example:

    tandem forget user user-0000012 --store store --server 10.0.0.1:8080 --wait 10s`
}

// forgottenInfo is what `tandem forget user` did, as JSON.
type forgottenInfo struct {
	DryRun   bool            `json:"dry_run"`
	EventID  string          `json:"event_id,omitempty"`
	Position *shard.Position `json:"position,omitempty"`
	// Left is what the store has of the user; null if the store was not named.
	Left []upkeep.Left `json:"left"`

	known  bool   // whether the live log had anything of the user
	hashed string // what stands for the user in what is recorded, if it was asked for
}

func (c *forgetUserCommand) check() error {
	if err := shard.CheckID(c.User); err != nil {
		return usageError{err}
	}
	if !c.DryRun {
		return c.eventFlags.check()
	}
	if c.Store == "" || len(c.Server) > 0 || c.EventID != "" {
		return usagef("--dry-run takes --store, and neither --server nor --event-id: nobody is forgotten")
	}
	return nil
}

func (c *forgetUserCommand) Run(e *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	info := forgottenInfo{DryRun: c.DryRun}
	unread, err := c.hash(e, &info)
	if err != nil {
		return err
	}
	if !c.DryRun {
		if err := c.forget(e, &info); err != nil {
			return err
		}
	}
	if c.Store != "" {
		if err := c.find(e, &info); err != nil {
			return err
		}
		info.Left = append(info.Left, unread...)
		if !info.known && !slices.ContainsFunc(info.Left, func(l upkeep.Left) bool { return l.Sure }) {
			fmt.Fprintf(e.stderr, "warning: no snapshot of the store has, nobody has upserted, and nobody forgot before: user %s; is the id as the towers have it?\n", release.Escape(c.User))
		}
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, info)
	}
	return c.write(e.stdout, &info)
}

// hash finds what stands for the user where ids are hashed, and what of the store is hashed by other
// keys.
func (c *forgetUserCommand) hash(e *environment, info *forgottenInfo) (left []upkeep.Left, err error) {
	h, err := readUserHash(c.HashUsers)
	if err != nil {
		return nil, err
	}
	if c.Store == "" {
		if h != nil {
			return nil, usageError{errKeyNeedsStore}
		}
		return nil, nil
	}
	bucket, err := objects.Open(e.ctx, c.Store)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	defer closing(&err, bucket)
	info.hashed, left, err = hashOf(e.ctx, bucket, h, c.User)
	return left, err
}

// forget writes the event, and waits for servers.
func (c *forgetUserCommand) forget(e *environment, info *forgottenInfo) (err error) {
	info.EventID = cmp.Or(c.EventID, newEventID())
	w, err := c.open(e)
	if err != nil {
		return err
	}
	defer closing(&err, w)
	if to, is := w.(*storeWriter); is {
		to.log.replica.Read(func(s *live.State) { info.known = knows(s, c.User) })
	}
	forgets := func(id, user string) *tandemv1.LiveEvent {
		return &tandemv1.LiveEvent{EventId: id, Change: &tandemv1.LiveEvent_ForgetUser{ForgetUser: &tandemv1.ForgetUser{User: user}}}
	}
	events := []*tandemv1.LiveEvent{forgets(info.EventID, c.User)}
	if info.hashed != "" {
		// A collection knows those who are forgotten by hashes of their ids, and so needs no key.
		id := sha256.Sum256([]byte(info.EventID))
		events = append(events, forgets("hashed-"+hex.EncodeToString(id[:16]), info.hashed))
	}
	done, err := w.write(e.ctx, events)
	if unconfirmedWrite(err) {
		return fmt.Errorf("%w\n  --event-id %s writes it again, and it counts once", err, info.EventID)
	}
	if err != nil {
		return err
	}
	info.Position = &done.position
	return c.await(e, w.store(), done.position)
}

// find looks for what the store has of the user still.
func (c *forgetUserCommand) find(e *environment, info *forgottenInfo) (err error) {
	moving := newTransfers(e.stderr)
	defer moving.Done()
	o := c.cacheFlags.options()
	o.Progress = moving.Transfer
	store, err := snapshots.OpenStore(e.ctx, c.Store, o)
	if err != nil {
		return err
	}
	defer closing(&err, store)
	log, err := e.readLive(store)
	if err != nil {
		return err
	}
	if c.DryRun {
		info.known = knows(log, c.User)
	}
	var as []string
	if info.hashed != "" {
		as = append(as, info.hashed)
	}
	info.Left, err = upkeep.Find(e.ctx, store, log, c.User, as...)
	return err
}

// knows reports whether a live log has a user, or that the user was forgotten.
func knows(s *live.State, user string) bool {
	return s.Record(shard.Users, user) != nil || s.Forgotten().Known() && s.Forgotten().Has(user)
}

func (c *forgetUserCommand) write(w io.Writer, info *forgottenInfo) error {
	if info.Position != nil {
		fmt.Fprintf(w, "forgotten from live position %s on (event %s): no server that has read that far returns the user, and none knows of the user\n", info.Position, info.EventID)
	}
	if c.Store == "" {
		_, err := fmt.Fprintln(w, "--store says what the store has of the user still, and until when")
		return err
	}
	if len(info.Left) == 0 {
		_, err := fmt.Fprintf(w, "nothing in %s has anything of the user\n", c.Store)
		return err
	}
	fmt.Fprintf(w, "\nwhat is left of the user in %s\n", c.Store)
	t := newTable(w)
	fmt.Fprintln(t, "where\thas\tuntil")
	for _, l := range info.Left {
		what := l.What
		if !l.Sure {
			what = "perhaps " + what
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", l.Where, what, l.Until)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\nCaches of servers have shards of these snapshots until something takes their place. Inputs of builds, backups of the store and logs of callers are not looked into.")
	return err
}
