package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Bounds of an import.
const (
	maxEventLine   = 4 << 20 // bytes of a line: twice what the longest vector takes, and its attributes
	batchEvents    = 1000    // that are written at a time, as many as a server takes
	batchBytes     = 4 << 20 // of them
	namedEvents    = 5       // of those that are refused
	importIDDigits = 24      // of the digest that event ids begin with
)

type liveImportCommand struct {
	liveWriteFlags
	Files []string `arg:"" optional:"" name:"file" help:"JSON Lines of events, each a LiveEvent of the contract (live.proto): a file, a folder, a glob in quotes or a URL of one; gzip and zstd are read; - is standard input."`

	Apps         []string `sep:"none" placeholder:"PATH" help:"Rows of an app tower, each of which is upserted: paths and formats as for tandem build. May be repeated."`
	Users        []string `sep:"none" placeholder:"PATH" help:"The same of a user tower."`
	Model        string   `placeholder:"NAME" help:"With --apps and --users: model that computed the vectors (default the one that is released)."`
	ModelVersion string   `placeholder:"VERSION" help:"With --apps and --users: version of the model."`

	AppIDs         []string `name:"app-ids" sep:"none" placeholder:"PATH" help:"Ids of apps for formats without ids, as for tandem build. May be repeated."`
	UserIDs        []string `name:"user-ids" sep:"none" placeholder:"PATH" help:"Ids of users, likewise."`
	AppAttributes  []string `sep:"none" placeholder:"PATH" help:"JSON Lines of further attributes of apps, joined by --app-id-column, as for tandem build; those of other apps are passed over. They are held in memory. May be repeated."`
	UserAttributes []string `sep:"none" placeholder:"PATH" help:"JSON Lines of further attributes of users, likewise."`
	columnFlags

	Again bool `help:"Write events without an eventId, and rows, again, though they were written before: as new events. Not to go on after a failure."`
}

func (liveImportCommand) Help() string {
	return `Reads all of it before it writes anything: a line that is no event, a row that a build would reject, or, with --store, one that does not fit what is released, is named, and nothing is written. Then it writes a thousand events at a time, in their order; one that fails ends it, and it says how many are written.

An event without an event_id gets one of the content of its file and the number of its line, so that a file that is imported again, or after a failure, counts once. That holds for a day at least. So a takedown that was restored meanwhile is not written again: the exit code is 1 then, and the apps are named, as are, with --store, rows that were removed since. --again writes them as new events; what has an eventId of its own takes another.

With --store it says how many users were forgotten and came back, since their rows were imported.

Examples:

    tandem live import --store store events.jsonl

    tandem live import --server 127.0.0.1:8080 --apps today/apps.parquet --model-version 2026-11-22

A file of events:

    {"takedown": {"app": "app-0000042", "reason": "malware"}}
    {"upsert": {"id": "app-new", "modelVersion": "2026-11-22", "vector": [0.25, -1.5], "attributes": {"min_age": {"int": "12"}}}}
    {"setAttributes": {"id": "app-0000007", "attributes": {"free": {"bool": true}}, "window": {"until": "2026-11-26T00:00:00Z"}}}`
}

// check returns an error unless the flags say what to import, and where.
func (c *liveImportCommand) check() error {
	if err := c.liveWriteFlags.check(); err != nil {
		return err
	}
	towers := len(c.Apps) + len(c.Users)
	switch {
	case len(c.Files)+towers == 0:
		return usagef("what to import is missing: accepted are files of events, --apps=PATH and --users=PATH")
	case towers == 0 && c.Model+c.ModelVersion != "":
		return usagef("--model and --model-version go with --apps and --users: each event of a file has its own")
	case len(c.Apps) == 0 && len(c.AppIDs)+len(c.AppAttributes) > 0:
		return usagef("--app-ids and --app-attributes go with --apps")
	case len(c.Users) == 0 && len(c.UserIDs)+len(c.UserAttributes) > 0:
		return usagef("--user-ids and --user-attributes go with --users")
	case towers > 0:
		if err := shard.CheckID(c.ModelVersion); err != nil {
			return usagef("--model-version: %w", err)
		}
	}
	return nil
}

func (c *liveImportCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	sources, err := c.sources(e)
	defer func() {
		for _, s := range sources {
			err = errors.Join(err, s.Close())
		}
	}()
	if err != nil {
		return err
	}
	w, err := c.liveWriteFlags.open(e)
	if err != nil {
		return err
	}
	defer closing(&err, w)
	p := newProgress(e.stderr)
	defer p.Done()
	if c.Again {
		for _, s := range sources {
			s.rename()
		}
	}
	p.Stage("read events", -1)
	n, err := vet(e.ctx, sources, w, p.Step)
	if err != nil {
		return err
	}
	p.Stage("write events", n)
	im := importer{w: w, progress: p.Step}
	err = im.run(e.ctx, sources)
	p.Done()
	noteBack(e, im.back)
	if err != nil {
		next := "the same command writes the rest: events that were written count once"
		if isWrongEvent(err) {
			next = "mend that event; what comes after it is not written"
		}
		return fmt.Errorf("after %s of %s events, which are written: %s\n  %s", wording.Count(im.events), wording.Count(n), err.Error(), next)
	}
	im.lost.warn(e)
	if im.full != nil {
		full := fmt.Errorf("there is no room for all: %s of %s events are written, and all among them that take apps down or restore them: %s\n  once a snapshot is released that was built from newer inputs, the same command writes the rest: events that were written count once", wording.Count(im.events), wording.Count(n), im.full.Error())
		return errors.Join(full, im.lost.err())
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, struct {
			Position shard.Position `json:"position"`
			Events   int64          `json:"events"`
			Repeated int            `json:"repeated_events"`
		}{im.position, im.events, im.repeated})
	} else {
		_, err = fmt.Fprintf(e.stdout, "position %s, %s%s\n", im.position, wording.Plural(im.events, "event"), repeatedText(im.repeated, int(im.events)))
	}
	if err != nil {
		return err
	}
	return errors.Join(c.await(e, w.store(), im.position), im.lost.err())
}

// sourced is one place of a source.
type sourced struct {
	place string              // for people
	event *tandemv1.LiveEvent // nil if it is none
	named bool                // by its file, and not by its place
	err   error               // why it cannot be written
}

// eventSource yields events of files: whenever it is read the same ones.
type eventSource interface {
	io.Closer
	// each calls do for each event, which may keep it. It ends with the error of do.
	each(ctx context.Context, do func(sourced) error) error
	// rename has events that are not named get other ids than ever before.
	rename()
}

// sources opens all that is to be imported: what an error leaves open is returned, too.
func (c *liveImportCommand) sources(e *environment) (list []eventSource, err error) {
	if len(c.Files) > 0 {
		s, err := openEvents(e.ctx, c.Files)
		if err != nil {
			return list, err
		}
		list = append(list, s)
	}
	for _, t := range []struct {
		kind                   shard.Kind
		paths, ids, attributes []string
	}{{shard.Apps, c.Apps, c.AppIDs, c.AppAttributes}, {shard.Users, c.Users, c.UserIDs, c.UserAttributes}} {
		if len(t.paths) == 0 {
			continue
		}
		o, err := c.columnFlags.tower(t.kind)
		if err != nil {
			return list, usageError{err}
		}
		o.Paths, o.IDs = t.paths, t.ids
		attributes := c.joined(o)
		attributes.Paths = t.attributes
		s, err := openRows(e.ctx, t.kind, o, attributes, c.Model, c.ModelVersion)
		if err != nil {
			return list, err
		}
		list = append(list, s)
		for _, note := range s.notes {
			fmt.Fprintf(e.stderr, "note: %s: %s\n", t.kind, release.Escape(note))
		}
	}
	return list, nil
}

// refusedEventsError says what is wrong with events that were to be imported.
type refusedEventsError struct {
	refused, all int64
	first        []string
}

func (e *refusedEventsError) Error() string {
	text := fmt.Sprintf("%s of %s events cannot be written, so none was:", wording.Count(e.refused), wording.Count(e.all))
	for _, line := range e.first {
		text += "\n  " + line
	}
	if more := e.refused - int64(len(e.first)); more > 0 {
		text += fmt.Sprintf("\n  and %s more", wording.Count(more))
	}
	return text
}

// vet reads all events, and returns how many there are, or what is wrong with them.
func vet(ctx context.Context, sources []eventSource, w liveWriter, step func(int64)) (n int64, err error) {
	refused, ids := &refusedEventsError{}, eventIDs{}
	for _, s := range sources {
		err := s.each(ctx, func(at sourced) error {
			if refused.all++; refused.all%batchEvents == 0 {
				step(refused.all)
			}
			err := at.err
			if err == nil {
				var event live.Event
				if event, err = w.vet(ctx, at.event); err == nil && at.named {
					err = ids.add(&event)
				}
			}
			if err == nil {
				return nil
			}
			if refusedEvent := (*live.EventError)(nil); at.event != nil && !errors.As(err, &refusedEvent) {
				return fmt.Errorf("%s: %w", at.place, err) // it is not the event's
			}
			if refused.refused++; len(refused.first) < namedEvents {
				refused.first = append(refused.first, at.place+": "+err.Error())
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	if refused.refused > 0 {
		return 0, refused
	}
	if refused.all == 0 {
		return 0, errors.New("there is no event in what was named")
	}
	return refused.all, nil
}

// isWrongEvent reports whether an event was refused for what it is, and will be again.
func isWrongEvent(err error) bool {
	code := connect.CodeOf(err)
	return errors.Is(err, live.ErrEvent) || errors.Is(err, live.ErrEventConflict) || code == connect.CodeAlreadyExists || code == connect.CodeInvalidArgument
}

// importer writes events, many at a time.
type importer struct {
	w        liveWriter
	progress func(int64)

	batch  []*tandemv1.LiveEvent
	places []string // of them
	bytes  int

	position shard.Position
	events   int64 // that are written
	repeated int   // of them, those that had been written before
	back     int   // users who had been forgotten
	lost     lostEvents

	full error           // why there was no room for some events; nil if there was for all
	late map[string]bool // towers and ids of which events may be written later
}

// wait reports whether an event is not to be written now, since there was no room for what
// came before it, and appended again that would count after it.
func (im *importer) wait(event *tandemv1.LiveEvent) bool {
	if im.full == nil {
		return false
	}
	change, tower, id := subject(event)
	switch key := tower + " " + id; change {
	case "takedown", "restore":
		return false
	case "remove", "forget":
		return im.late[key]
	default:
		im.late[key] = true
		return true
	}
}

// ranFull notes that there was no room for some events of a batch.
func (im *importer) ranFull(err error) {
	if im.full = err; im.late == nil {
		im.late = map[string]bool{}
	}
	for _, event := range im.batch {
		im.wait(event)
	}
}

func (im *importer) run(ctx context.Context, sources []eventSource) error {
	for _, s := range sources {
		err := s.each(ctx, func(at sourced) error {
			if at.err != nil { // though it was right when it was read first
				return fmt.Errorf("%s: %w", at.place, at.err)
			}
			if im.wait(at.event) {
				return nil
			}
			size := proto.Size(at.event)
			if len(im.batch) == batchEvents || im.bytes+size > batchBytes {
				if err := im.flush(ctx); err != nil {
					return err
				}
			}
			im.batch, im.places, im.bytes = append(im.batch, at.event), append(im.places, at.place), im.bytes+size
			return nil
		})
		if err != nil {
			return err
		}
	}
	return im.flush(ctx)
}

func (im *importer) flush(ctx context.Context) error {
	if len(im.batch) == 0 {
		return nil
	}
	done, err := im.w.write(ctx, im.batch)
	im.back += done.back
	switch {
	case err != nil && !fullWrite(err):
		if done.missing > 0 {
			im.events += int64(len(im.batch) - done.missing)
		}
		return placed(err, im.places)
	case err != nil:
		im.ranFull(placed(err, im.places))
		if done.missing == 0 { // none was written
			done.missing = len(im.batch)
		} else {
			im.position = done.position
		}
	default:
		im.position = done.position
	}
	im.lost.note(ctx, im.w, im.batch, done)
	im.events, im.repeated = im.events+int64(len(im.batch)-done.missing), im.repeated+done.repeated
	im.batch, im.places, im.bytes = im.batch[:0], im.places[:0], 0
	im.progress(im.events)
	return nil
}

// eventFiles are files of JSON Lines.
type eventFiles struct {
	set *input.Set
	ids map[string]string // what event ids begin with, by the names of files
}

func openEvents(ctx context.Context, paths []string) (_ *eventFiles, err error) {
	paths = slices.Clone(paths)
	for i, path := range paths {
		if path == "-" {
			paths[i] = "/dev/stdin"
		}
	}
	set, err := input.Open(ctx, paths, tower.AcceptAttributes, input.Options{})
	if err != nil {
		return nil, err
	}
	described, err := set.Describe(ctx, "events", nil)
	if err != nil {
		return nil, errors.Join(err, set.Close())
	}
	s := &eventFiles{set, map[string]string{}}
	for i, f := range set.Files() {
		s.ids[f.Name()] = string(described[i].Digest[:importIDDigits])
	}
	return s, nil
}

// Close implements [io.Closer].
func (s *eventFiles) Close() error { return s.set.Close() }

func (s *eventFiles) rename() {
	for name := range s.ids {
		s.ids[name] = newEventID()
	}
}

func (s *eventFiles) each(ctx context.Context, do func(sourced) error) error {
	err := tower.ReadLines(ctx, s.set.Files(), maxEventLine, func(f input.File, number int64, line []byte) error {
		if len(bytes.TrimSpace(line)) == 0 {
			return nil
		}
		place := fmt.Sprintf("%s line %d", f.Name(), number)
		event := &tandemv1.LiveEvent{}
		if err := protojson.Unmarshal(line, event); err != nil {
			return do(sourced{place: place, err: plainJSONError(err)})
		}
		named := event.EventId != ""
		if !named {
			event.EventId = fmt.Sprintf("%s-%d", s.ids[f.Name()], number)
		}
		return do(sourced{place: place, event: event, named: named})
	})
	return errors.Join(err, s.set.Unchanged())
}

// plainJSONError is an error of protojson with the same spaces on every run, and of bounded
// length.
func plainJSONError(err error) error {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return errors.New(shortened(text, 300))
}

// towerRows are rows of one tower, each of which is an upsert.
type towerRows struct {
	kind                shard.Kind
	options             tower.Options
	model, modelVersion string
	id                  string // what event ids begin with
	names               []string
	joined              map[string][]attribute.Value // further attributes by id; nil without
	joinedNames         []string
	notes               []string
}

// openRows opens the files of a tower, and reads further attributes.
func openRows(ctx context.Context, kind shard.Kind, o tower.Options, attributes tower.AttributeOptions, model, modelVersion string) (_ *towerRows, err error) {
	s := &towerRows{kind: kind, options: o, model: model, modelVersion: modelVersion}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.options.Files, err = input.Open(ctx, o.Paths, tower.AcceptRows, input.Options{Partitions: len(o.PartitionAttributes) > 0}); err != nil {
		return nil, err
	}
	described, err := s.options.Files.Describe(ctx, string(kind), nil)
	if err != nil {
		return nil, err
	}
	if len(o.IDs) > 0 {
		if s.options.IDFiles, err = input.Open(ctx, o.IDs, tower.AcceptIDs, input.Options{}); err != nil {
			return nil, err
		}
		ids, err := s.options.IDFiles.Describe(ctx, string(kind)+"-ids", nil)
		if err != nil {
			return nil, err
		}
		described = append(described, ids...)
	}
	r, err := tower.Open(ctx, s.options)
	if err != nil {
		return nil, s.explain(err)
	}
	s.names, s.notes = r.Schema().Names(), r.Notes()
	if err := r.Close(); err != nil {
		return nil, err
	}
	if len(attributes.Paths) > 0 {
		if attributes.Files, err = input.Open(ctx, attributes.Paths, tower.AcceptAttributes, input.Options{}); err != nil {
			return nil, err
		}
		defer closing(&err, attributes.Files)
		further, err := attributes.Files.Describe(ctx, string(kind)+"-attributes", nil)
		if err != nil {
			return nil, err
		}
		described = append(described, further...)
		if err := s.join(ctx, attributes); err != nil {
			return nil, err
		}
	}
	// What the rows become depends on the flags, too: with others it is another event.
	text := fmt.Sprintf("%q %q %q %q %q %q %q %q %q", kind, model, modelVersion, s.names, o.IDColumn, o.EmbeddingColumn, o.AttributeColumns, fmt.Sprint(o.RenameColumns), fmt.Sprint(o.AttributeTypes))
	for _, in := range described {
		text += " " + string(in.Digest)
	}
	sum := appendlog.HashOf([]byte(text))
	s.id = hex.EncodeToString(sum[:])[:importIDDigits]
	return s, nil
}

// explain says how to go on after an error of the files of a tower.
func (s *towerRows) explain(err error) error {
	if errors.As(err, new(*tower.ColumnsError)) {
		err = fmt.Errorf("%w (--ignore-column skips one)", err)
	}
	return err
}

// join reads further attributes.
func (s *towerRows) join(ctx context.Context, o tower.AttributeOptions) (err error) {
	r, err := tower.OpenAttributes(ctx, o)
	if err != nil {
		return err
	}
	defer closing(&err, r)
	s.joinedNames, s.joined = r.Schema().Names(), map[string][]attribute.Value{}
	if _, err := attribute.NewSchema(append(r.Schema().Fields(), fieldsNamed(s.names)...)); err != nil {
		return fmt.Errorf("%s: %w", s.kind, err)
	}
	for n := 0; ; n++ {
		if n%batchEvents == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		row, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			s.notes = append(s.notes, r.Notes()...)
			return nil
		case err != nil:
			return err
		case len(row.Problems) > 0:
			return fmt.Errorf("%s: %s (id %.64q)", r.Place(row.Line), row.Problems[0].Detail, row.ID)
		}
		if _, twice := s.joined[row.ID]; twice {
			return fmt.Errorf("%s: attributes of id %.64q were on an earlier line", r.Place(row.Line), row.ID)
		}
		s.joined[row.ID] = slices.Clone(row.Attributes)
	}
}

// fieldsNamed returns fields of those names, of any type.
func fieldsNamed(names []string) []attribute.Field {
	list := make([]attribute.Field, len(names))
	for i, name := range names {
		list[i] = attribute.Field{Name: name, Type: attribute.Bool}
	}
	return list
}

// Close implements [io.Closer]. It may be called twice.
func (s *towerRows) Close() error {
	var errs []error
	for _, set := range []*input.Set{s.options.Files, s.options.IDFiles} {
		if set != nil {
			errs = append(errs, set.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *towerRows) rename() { s.id = newEventID() }

func (s *towerRows) each(ctx context.Context, do func(sourced) error) (err error) {
	r, err := tower.Open(ctx, s.options)
	if err != nil {
		return err
	}
	defer closing(&err, r)
	seen := map[string]int64{}
	for n := 0; ; n++ {
		if n%batchEvents == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		row, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return s.options.Files.Unchanged()
		case err != nil:
			return err
		}
		place := fmt.Sprintf("%s, row %d (id %.64q)", s.kind, row.Number, row.ID)
		before, twice := seen[row.ID]
		seen[row.ID] = row.Number
		var event *tandemv1.LiveEvent
		switch {
		case len(row.Problems) > 0:
			err = errors.New(row.Problems[0].Detail)
		case twice:
			err = fmt.Errorf("row %d has the same id", before)
		default:
			event = s.event(row)
		}
		if err := do(sourced{place: place, event: event, err: err}); err != nil {
			return err
		}
	}
}

// event returns the upsert of a row.
func (s *towerRows) event(row *tower.Row) *tandemv1.LiveEvent {
	u := &tandemv1.Upsert{
		Tower: tandemv1.Tower_TOWER_APPS, Id: row.ID, Model: s.model, ModelVersion: s.modelVersion,
		Vector: slices.Clone(row.Vector), Attributes: map[string]*tandemv1.AttributeValue{},
	}
	if s.kind == shard.Users {
		u.Tower = tandemv1.Tower_TOWER_USERS
	}
	add := func(names []string, values []attribute.Value) {
		for i, v := range values {
			if !v.Absent() {
				u.Attributes[names[i]] = wire.AttributeValue(v)
			}
		}
	}
	add(s.names, row.Attributes)
	add(s.joinedNames, s.joined[row.ID])
	return &tandemv1.LiveEvent{EventId: fmt.Sprintf("%s-%d", s.id, row.Number), Change: &tandemv1.LiveEvent_Upsert{Upsert: u}}
}
