package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

// eventIDs are the ids of events of which each names one, by their hashes, and hashes of what
// these change.
type eventIDs map[[16]byte]uint64

// add returns a [*live.EventError] if an earlier event that is another one has the id of an event.
func (ids eventIDs) add(e *live.Event) error {
	content, err := e.Content()
	if err != nil {
		return err
	}
	sum := appendlog.HashOf([]byte(e.ID))
	id := [16]byte(sum[:16])
	if other, twice := ids[id]; twice && other != content {
		return &live.EventError{Field: "event_id", Err: fmt.Errorf("%q is that of an earlier event, which changes something else; accepted: another, or none", e.ID)}
	}
	ids[id] = content
	return nil
}

// batchPlace is how an error names an event of those that were written together.
var batchPlace = regexp.MustCompile(`\bevents\[([0-9]+)\]`)

// placed returns an error of events that were written together which says where each that it
// names is from.
func placed(err error, places []string) error {
	text := batchPlace.ReplaceAllStringFunc(err.Error(), func(name string) string {
		if i, convErr := strconv.Atoi(batchPlace.FindStringSubmatch(name)[1]); convErr == nil && i < len(places) {
			return places[i]
		}
		return name
	})
	if len(places) == 1 && (errors.As(err, new(*live.EventConflictError)) || errors.As(err, new(*live.EventError))) {
		text = places[0] + ": " + text
	}
	return &placedError{text, err}
}

// placedError is an error whose text says where events are from.
type placedError struct {
	text string
	err  error
}

// Error implements [error].
func (e *placedError) Error() string { return e.text }

// Unwrap returns the error.
func (e *placedError) Unwrap() error { return e.err }

// lostEvents are events of an import that had been written before and do not hold: what came
// later has undone them. Those that a later event of the import has undone are none of them.
type lostEvents struct {
	takedowns, upserts map[string]bool // of which apps; of which towers and ids
	unknown            error           // why it is not known whether all takedowns hold
}

// note takes in events that were written together.
func (l *lostEvents) note(ctx context.Context, w liveWriter, events []*tandemv1.LiveEvent, done written) {
	down, rows := map[string]*tandemv1.LiveEvent{}, map[string]*tandemv1.LiveEvent{}
	for _, event := range events {
		change, tower, id := subject(event)
		switch change {
		case "takedown", "restore":
			down[id] = event
			delete(l.takedowns, id)
		case "upsert", "remove", "forget":
			rows[tower+" "+id] = event
			delete(l.upserts, tower+" "+id)
		}
	}
	if done.repeated == 0 {
		return
	}
	lost, err := w.lost(ctx, done.position, slices.AppendSeq(slices.Collect(maps.Values(down)), maps.Values(rows)))
	if err != nil {
		l.unknown = err
		return
	}
	if l.takedowns == nil {
		l.takedowns, l.upserts = map[string]bool{}, map[string]bool{}
	}
	for _, event := range lost {
		if change, tower, id := subject(event); change == "takedown" {
			l.takedowns[id] = true
		} else {
			l.upserts[tower+" "+id] = true
		}
	}
}

// warn tells people which rows were imported before and are not there.
func (l *lostEvents) warn(e *environment) {
	if len(l.upserts) > 0 {
		fmt.Fprintf(e.stderr, "warning: %s that had been written before %s not there, having been removed or forgotten since: %s; %s\n",
			wording.Plural(len(l.upserts), "row"), isAre(len(l.upserts)), firstNames(l.upserts), writeAgain)
	}
}

// err returns an error unless all takedowns hold.
func (l *lostEvents) err() error {
	var errs []error
	if n := len(l.takedowns); n > 0 {
		errs = append(errs, fmt.Errorf("%s that had been written before %s no more, since the apps were restored: %s; %s",
			wording.Plural(n, "takedown"), map[bool]string{true: "holds", false: "hold"}[n == 1], firstNames(l.takedowns), writeAgain))
	}
	if l.unknown != nil {
		errs = append(errs, fmt.Errorf("all is written, but whether the takedowns still hold that had been written before is not known (tandem live prove tells): %w", l.unknown))
	}
	return errors.Join(errs...)
}

const writeAgain = "--again writes all that has no eventId of its own again, as new events; what has one takes another"

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// firstNames returns the first of some names, and how many more there are.
func firstNames(names map[string]bool) string {
	list := slices.Sorted(maps.Keys(names))
	text := release.Escape(strings.Join(list[:min(len(list), namedEvents)], ", "))
	if more := len(list) - namedEvents; more > 0 {
		text += fmt.Sprintf(" and %s more", wording.Count(more))
	}
	return text
}

// noteBack says how many users had been forgotten who are known again.
func noteBack(e *environment, users int) {
	switch {
	case users == 1:
		fmt.Fprintln(e.stderr, "note: 1 user who was forgotten came back")
	case users > 1:
		fmt.Fprintf(e.stderr, "note: %s users who were forgotten came back\n", wording.Count(users))
	}
}

// takedownsOf returns the takedowns among events.
func takedownsOf(events []*tandemv1.LiveEvent) (list []*tandemv1.LiveEvent) {
	return slices.DeleteFunc(slices.Clone(events), func(event *tandemv1.LiveEvent) bool { return event.GetTakedown() == nil })
}

// lost asks the server for a proof of each takedown.
func (w *serverWriter) lost(ctx context.Context, at shard.Position, events []*tandemv1.LiveEvent) (lost []*tandemv1.LiveEvent, err error) {
	events = takedownsOf(events)
	if len(events) == 0 {
		return nil, nil
	}
	asking, cancel := context.WithTimeout(ctx, w.within)
	defer cancel()
	proof, err := w.client.Prove(asking, connect.NewRequest(&tandemv1.ProveRequest{Apps: takenDown(events), MinLive: wire.LivePosition(at)}))
	if err != nil {
		return nil, err
	}
	if n := len(proof.Msg.Apps); n != len(events) {
		return nil, fmt.Errorf("the server answers for %d apps, %d were asked about", n, len(events))
	}
	for i, app := range proof.Msg.Apps {
		if app.Takedown == nil {
			lost = append(lost, events[i])
		}
	}
	return lost, nil
}

func (w *storeWriter) lost(_ context.Context, _ shard.Position, events []*tandemv1.LiveEvent) (lost []*tandemv1.LiveEvent, err error) {
	w.log.replica.Read(func(s *live.State) {
		for _, event := range events {
			if t := event.GetTakedown(); t != nil && !s.TakenDown().Has(t.App) || event.GetUpsert() != nil && w.removed(s, event) {
				lost = append(lost, event)
			}
		}
	})
	return lost, nil
}

// removed reports whether what was upserted was removed or forgotten since. What a build has
// taken over has no record.
func (w *storeWriter) removed(s *live.State, event *tandemv1.LiveEvent) bool {
	_, tower, id := subject(event)
	r := s.Record(shard.Kind(tower), id)
	if r == nil {
		return tower == string(shard.Users) && s.Forgotten().Known() && s.Forgotten().Has(id)
	}
	return r.Removed > 0 && len(r.Upserts) == 0
}

// upsertedUsers returns the users of upserts.
func upsertedUsers(events []live.Event) (users []string) {
	for i := range events {
		if events[i].Kind == live.Upsert && events[i].Tower == shard.Users {
			users = append(users, events[i].Entity)
		}
	}
	slices.Sort(users)
	return slices.Compact(users)
}

// forgotten returns those of some users who are forgotten; none where the key is lost, without
// which no user is written.
func (w *storeWriter) forgotten(users []string) (list []string) {
	w.log.replica.Read(func(s *live.State) {
		for _, user := range users {
			if s.Forgotten().Known() && s.Forgotten().Has(user) {
				list = append(list, user)
			}
		}
	})
	return list
}
