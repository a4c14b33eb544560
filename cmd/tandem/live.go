package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// liveCommand is `tandem live`.
type liveCommand struct {
	Takedown liveTakedownCommand `cmd:"" help:"Take apps out of all answers, in every snapshot, until they are restored."`
	Restore  liveRestoreCommand  `cmd:"" help:"End takedowns."`
	Upsert   liveUpsertCommand   `cmd:"" help:"Add an app or a user, or give it another vector, without a build."`
	Set      liveSetCommand      `cmd:"" help:"Change attributes of an app or a user, or when an app may be returned."`
	Remove   liveRemoveCommand   `cmd:"" help:"Take apps or users out of snapshots that were built before."`
	Import   liveImportCommand   `cmd:"" help:"Write the events of a file, or the rows of towers as new ones."`
	Export   liveExportCommand   `cmd:"" help:"Print all that the live log amounts to, as import reads it."`
	Status   liveStatusCommand   `cmd:"" help:"Show where the live log stands, in the store and on servers."`
	Prove    liveProveCommand    `cmd:"" help:"Prove that servers cannot return apps."`
	Accept   liveAcceptCommand   `cmd:"" help:"Accept the live log of a restored store as the one that counts."`
}

// liveFlags say where the live log is written: in the store, with no server between, or
// through a server.
type liveFlags struct {
	Store string `variable:"TANDEM_STORE" placeholder:"STORE" help:"Store whose live log is meant: a folder, or a URL such as s3://bucket?region=eu-west-1&prefix=tandem/. No server need be up."`
	cacheFlags
	clientFlags
	Server []string `sep:"none" variable:"TANDEM_SERVER" placeholder:"HOST:PORT" help:"Server, by its address or its URL. May be repeated, but to write through."`
}

// fleet returns the servers that are named.
func (f *liveFlags) fleet() (*fleet.Fleet, error) {
	return (&serverFlags{f.clientFlags, f.Server}).fleet()
}

// liveWriteFlags are those of commands that write events.
type liveWriteFlags struct {
	liveFlags
	Author  string        `placeholder:"NAME" help:"Who writes (default the user and the host)."`
	Timeout time.Duration `default:"30s" placeholder:"TIME" help:"With --server alone: how long it may take to write what it is sent, of an import a thousand events (default ${default})."`
	Wait    time.Duration `default:"0s" placeholder:"TIME" help:"With --store: wait so long until every --server has read it."`
	JSON    bool          `help:"Print JSON."`

	NewStore bool `help:"With --store: begin a live log where there is neither a snapshot nor a release, and make the folder. Else that is an error: it may be that nothing is mounted there."`
}

// check returns an error unless the flags say where to write.
func (f *liveWriteFlags) check() error {
	switch {
	case f.Timeout <= 0:
		return usagef("--timeout is %s, want more than 0", f.Timeout)
	case f.Wait < 0:
		return usagef("--wait is %s, want at least 0", f.Wait)
	case f.Store == "" && len(f.Server) == 0:
		return usagef("missing flags: --store=STORE or --server=HOST:PORT: where to write")
	case f.Store == "" && len(f.Server) > 1:
		return usagef("--server is given %d times; accepted: the one to write through, or --store and those to wait for", len(f.Server))
	case f.Store == "" && f.NewStore:
		return usagef("--new-store needs --store: the store that is new")
	case f.Store == "" && f.Wait > 0:
		return usagef("--wait needs --store: who writes through a server has that one wait")
	case f.Wait > 0 && len(f.Server) == 0:
		return usagef("--wait needs --server: whom to wait for")
	case f.Store != "" && len(f.Server) > 0 && f.Wait == 0:
		return usagef("--server beside --store needs --wait: how long to wait until it has read what is written, such as --wait 10s")
	}
	if _, err := f.fleet(); err != nil {
		return err
	}
	if len(f.Author) > live.MaxAuthor {
		return usagef("--author has %d bytes; accepted: up to %d", len(f.Author), live.MaxAuthor)
	}
	return checkLine("--author", f.Author)
}

// author is who writes, for people.
func (f *liveWriteFlags) author() string {
	return cmp.Or(f.Author, shortened(author(), live.MaxAuthor))
}

// shortened returns the beginning of a text, of so many bytes at most.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	text = text[:most]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text
}

// eventFlags are those of commands that write one event, or one for each app or user.
type eventFlags struct {
	liveWriteFlags
	EventID string `name:"event-id" placeholder:"ID" help:"Name of the event, under which it counts once however often it is written; of several events ID-1, ID-2 and so on (default a random one, which is printed)."`
}

// check returns an error unless the flags are as they can be.
func (f *eventFlags) check() error {
	if n := len(f.EventID); n > live.MaxEventID-8 {
		return usagef("--event-id has %d bytes; accepted: up to %d", n, live.MaxEventID-8)
	}
	if err := checkLine("--event-id", f.EventID); err != nil {
		return err
	}
	return f.liveWriteFlags.check()
}

// written is what became of events.
type written struct {
	position shard.Position
	repeated int // how many had been written before
	missing  int // of those of an error: how many are not written, for want of room, where others are
	back     int // how many users had been forgotten and are not any more; 0 if only a server knows
}

// run names events, writes them, and says where they are.
func (f *eventFlags) run(e *environment, events ...*tandemv1.LiveEvent) (err error) {
	id := cmp.Or(f.EventID, newEventID())
	for i, event := range events {
		if event.EventId = id; len(events) > 1 {
			event.EventId = fmt.Sprintf("%s-%d", id, i+1)
		}
	}
	w, err := f.open(e)
	if err != nil {
		return err
	}
	defer closing(&err, w)
	done, err := w.write(e.ctx, events)
	if done.missing > 0 {
		return fmt.Errorf("%s\n  --event-id %s writes all again: those that were written count once", err.Error(), id)
	}
	if unconfirmedWrite(err) { // not of the class of what an interrupt ended without a trace
		return fmt.Errorf("%s\n  --event-id %s writes it again, and it counts once", err.Error(), id)
	}
	if err != nil {
		return err
	}
	if err := f.tell(e, done, events); err != nil {
		return err
	}
	noteBack(e, done.back)
	if err := f.await(e, w.store(), done.position); err != nil {
		return err
	}
	if apps := takenDown(events); len(apps) > 0 {
		f.warnUnknown(e, w.store(), done.position, apps)
	}
	return nil
}

// takenDown returns the apps that events take down.
func takenDown(events []*tandemv1.LiveEvent) (apps []string) {
	for _, event := range events {
		if t := event.GetTakedown(); t != nil {
			apps = append(apps, t.App)
		}
	}
	return apps
}

// newEventID returns a random name of an event.
func newEventID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

// writtenEvent is an event that was written, as JSON.
type writtenEvent struct {
	EventID string `json:"event_id"`
	Change  string `json:"change"`
	Tower   string `json:"tower"`
	ID      string `json:"id"` // of the app or user
}

// tell says where events are.
func (f *eventFlags) tell(e *environment, done written, events []*tandemv1.LiveEvent) error {
	list := make([]writtenEvent, len(events))
	for i, event := range events {
		list[i] = writtenEvent{EventID: event.EventId}
		list[i].Change, list[i].Tower, list[i].ID = subject(event)
	}
	if f.JSON {
		return wording.WriteJSON(e.stdout, struct {
			Position shard.Position `json:"position"`
			Repeated int            `json:"repeated_events"`
			Events   []writtenEvent `json:"events"`
		}{done.position, done.repeated, list})
	}
	fmt.Fprintf(e.stdout, "position %s%s\n", done.position, repeatedText(done.repeated, len(events)))
	t := newTable(e.stdout)
	fmt.Fprintln(t, "event\tchange\tof")
	for _, w := range list {
		fmt.Fprintf(t, "%s\t%s\t%s %s\n", release.Escape(w.EventID), w.Change, strings.TrimSuffix(w.Tower, "s"), release.Escape(w.ID))
	}
	return t.Flush()
}

// repeatedText says for people how many of so many events had been written before.
func repeatedText(repeated, all int) string {
	switch {
	case repeated == 0:
		return ""
	case all == 1:
		return ": it had been written before, and counts once"
	case repeated == 1:
		return fmt.Sprintf(": 1 of %s had been written before, and counts once", wording.Count(all))
	}
	return fmt.Sprintf(": %s of %s had been written before, and count once", wording.Count(repeated), wording.Count(all))
}

// subject says what an event changes.
func subject(event *tandemv1.LiveEvent) (change, tower, id string) {
	of := func(t tandemv1.Tower) string {
		if t == tandemv1.Tower_TOWER_USERS {
			return string(shard.Users)
		}
		return string(shard.Apps)
	}
	switch c := event.Change.(type) {
	case *tandemv1.LiveEvent_Takedown:
		return "takedown", string(shard.Apps), c.Takedown.App
	case *tandemv1.LiveEvent_Restore:
		return "restore", string(shard.Apps), c.Restore.App
	case *tandemv1.LiveEvent_Upsert:
		return "upsert", of(c.Upsert.Tower), c.Upsert.Id
	case *tandemv1.LiveEvent_SetAttributes:
		return "set", of(c.SetAttributes.Tower), c.SetAttributes.Id
	case *tandemv1.LiveEvent_Remove:
		return "remove", of(c.Remove.Tower), c.Remove.Id
	case *tandemv1.LiveEvent_ForgetUser:
		return "forget", string(shard.Users), c.ForgetUser.User
	}
	return "nothing", "", ""
}

// await waits for servers that follow a store, if it is to, and says so.
func (f *liveWriteFlags) await(e *environment, store *snapshots.Store, at shard.Position) error {
	if f.Wait == 0 {
		return nil
	}
	servers, err := f.fleet()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, f.Wait)
	defer cancel()
	start := time.Now()
	log := live.Log(store.Objects(), 0)
	err = servers.AwaitLive(ctx, fleet.AwaitedLive{Position: at, Includes: func(ctx context.Context, at shard.Position, hash string) error {
		return included(ctx, log, at, hash)
	}})
	if silent := (*fleet.LiveUnconfirmedError)(nil); errors.As(err, &silent) {
		return unconfirmedBy(silent.Error(), silent.Servers, e.ctx.Err() != nil)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "%s at position %s after %s\n", wording.Plural(len(f.Server), "server"), at, time.Since(start).Round(time.Millisecond))
	return nil
}

// included returns an error unless a log has an entry of that hash at a position.
func included(ctx context.Context, log *appendlog.Log, at shard.Position, hash string) error {
	entry, err := log.Get(ctx, at.Sequence)
	if err != nil {
		return err
	}
	if is := appendlog.HashOf(entry.Data).String(); is != hash {
		return fmt.Errorf("its entry %d is another one (%.12s) than that of the store (%.12s)", at.Sequence, hash, is)
	}
	return nil
}

// writeRows writes lines of cells as an aligned table, below a header.
func writeRows(w io.Writer, header string, rows [][]string) error {
	t := newTable(w)
	fmt.Fprintln(t, header)
	for _, cells := range rows {
		for i := range cells {
			cells[i] = release.Escape(cells[i])
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}
