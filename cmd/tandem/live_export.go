package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

type liveExportCommand struct {
	requiredStoreFlags
}

func (liveExportCommand) Help() string {
	return `Prints events that amount to the same as all that are in the log, a line each, takedowns first and then apps and users by their ids. What tandem live import makes of them in another store is the same, but that it is of other times and by another author. Of users who are forgotten only keyed hashes are known, so they cannot be exported; it says how many they are.

Example:

    tandem live export --store store >live.jsonl`
}

func (c *liveExportCommand) Run(e *environment) (err error) {
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	state, keyless, err := e.readLiveAnyway(store)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(e.stdout, 64<<10)
	n := 0
	for event, err := range exported(state, keyless) {
		if err != nil {
			return err
		}
		if n++; n%batchEvents == 0 && e.ctx.Err() != nil {
			return e.ctx.Err()
		}
		if err := writeEvent(out, &event); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	text := fmt.Sprintf("%s that amount to position %s", wording.Plural(n, "event"), state.Position().Shard())
	if gone := state.Forgotten().Len(); gone > 0 {
		text += fmt.Sprintf("; %s forgotten, of whom only hashes are known, and cannot be exported", wording.Plural(gone, "user"))
	}
	if keyless {
		text += fmt.Sprintf("; left out %s, who may be among those", wording.Plural(len(maps.Collect(state.Records(shard.Users))), "user"))
	}
	_, err = fmt.Fprintln(e.stderr, text)
	return err
}

// writeEvent writes an event as a line of JSON, which is the same on every run.
func writeEvent(w io.Writer, event *live.Event) error {
	m, err := wire.LiveEvent(event)
	if err != nil {
		return err
	}
	data, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, data); err != nil { // protojson varies its spaces on purpose
		return err
	}
	line.WriteByte('\n')
	_, err = w.Write(line.Bytes())
	return err
}

// exported yields events that amount to a state, but for users who are forgotten. An event
// that no log takes is an error: it would be lost. Without the key of users who are forgotten no
// user is exported: it may be one of those.
func exported(state *live.State, keyless bool) func(yield func(live.Event, error) bool) {
	return func(yield func(live.Event, error) bool) {
		give := func(event live.Event) bool {
			if err := event.Check(); err != nil {
				yield(event, fmt.Errorf("%s of %s %.80q cannot be exported as one event: %w", event.Kind, event.Tower, event.Entity, err))
				return false
			}
			return yield(event, nil)
		}
		for app, down := range state.TakenDown().All() {
			if !give(live.Event{Kind: live.Takedown, Tower: shard.Apps, Entity: app, Reason: down.Reason}) {
				return
			}
		}
		towers := []shard.Kind{shard.Apps, shard.Users}
		if keyless {
			towers = towers[:1]
		}
		for _, tower := range towers {
			records := maps.Collect(state.Records(tower))
			for _, id := range slices.Sorted(maps.Keys(records)) {
				for _, event := range recordEvents(tower, id, records[id]) {
					if !give(event) {
						return
					}
				}
			}
		}
	}
}

// recordEvents returns events that amount to a record. What was upserted has the attributes
// that were set later, so it may come behind all that was set.
func recordEvents(tower shard.Kind, id string, r *live.Record) (list []live.Event) {
	if r.Removed > 0 {
		list = append(list, live.Event{Kind: live.Remove, Tower: tower, Entity: id})
	}
	var window *live.Window
	if r.Window != (live.Window{}) {
		window = &r.Window
	}
	values, size := map[string]attribute.Value{}, 0
	flush := func() {
		if len(values) > 0 {
			list = append(list, live.Event{Kind: live.SetAttributes, Tower: tower, Entity: id, Attributes: values})
		}
		values, size = map[string]attribute.Value{}, 0
	}
	for _, name := range slices.Sorted(maps.Keys(r.Set)) {
		v := r.Set[name].Value
		n := len(name) + len(v.String())
		if len(values) == live.MaxValues || size+n > live.MaxEvent/2 {
			flush()
		}
		values[name] = v
		size += n
	}
	flush()
	if window != nil {
		if n := len(list); n > 0 && list[n-1].Kind == live.SetAttributes {
			list[n-1].Window = window
		} else {
			list = append(list, live.Event{Kind: live.SetAttributes, Tower: tower, Entity: id, Window: window})
		}
	}
	for _, u := range r.Upserts {
		list = append(list, live.Event{
			Kind: live.Upsert, Tower: tower, Entity: id, Model: u.Model, ModelVersion: u.ModelVersion,
			Vector: u.Vector, Attributes: u.Attributes,
		})
	}
	return list
}
