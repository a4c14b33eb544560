package upkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Left is a place in a store that has something of a user, or may have.
type Left struct {
	Where string `json:"where"` // an object, or several: "snapshot 4be1...", "releases/000000000007.json"
	What  string `json:"what"`  // it has
	Until string `json:"until"` // it is there
	Sure  bool   `json:"sure"`  // whether it was looked for and found
}

// Find says what of a store has something of a user, or may have, and until when. State is
// what its live log amounts to. It opens one shard of each snapshot, which it downloads of a
// store that is no folder, and reads every manifest, release and run of the gates; of
// recorded queries, outcomes, joined sets and the live log it says how many objects there are. As are
// other texts that stand for the user in those.
func Find(ctx context.Context, store *snapshots.Store, log *live.State, user string, as ...string) ([]Left, error) {
	f := &finding{store: store, log: log, user: user, as: as, list: []Left{}}
	for _, look := range []func(context.Context) error{f.snapshots, f.texts, f.liveLog, f.rows, f.staging, f.builds} {
		if err := look(ctx); err != nil {
			return nil, fmt.Errorf("look for the user: %w", err)
		}
	}
	return f.list, nil
}

// finding is a Find in progress.
type finding struct {
	store *snapshots.Store
	log   *live.State
	user  string
	as    []string // what stands for the user in what is recorded
	list  []Left
}

func (f *finding) found(where, what, until string) {
	f.list = append(f.list, Left{where, what, until, true})
}

func (f *finding) maybe(where, what, until string) {
	f.list = append(f.list, Left{where, what, until, false})
}

// snapshots looks into the user tower of every snapshot.
func (f *finding) snapshots(ctx context.Context) error {
	needed, err := release.New(f.store).Live(ctx)
	if err != nil && !errors.Is(err, release.ErrNone) {
		return err
	}
	list, err := f.store.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		m, err := f.store.Manifest(ctx, p.Digest)
		if errors.Is(err, snapshots.ErrNoSnapshot) {
			continue // collected meanwhile
		}
		if err != nil {
			return err
		}
		until := "a collection deletes it, as its rules say"
		if slices.Contains(needed, p.Digest) {
			until = "ten more releases are made without it, and a collection deletes it then"
		}
		has, err := snapshots.Has(ctx, f.store, m, shard.Users, f.user)
		if err != nil {
			return err
		}
		if has {
			f.found("snapshot "+string(p.Digest), "a row in its user tower: id, vector, attributes; servers do not return it", until)
		}
		if m.Gates != nil && slices.ContainsFunc(slices.Concat(m.Gates.Checks, m.Gates.Undecided), func(c manifest.GateCheck) bool { return isExample(c.Text, f.user) }) {
			f.found("manifest of snapshot "+string(p.Digest), "the id, as an example in the report of its gates", until)
		}
	}
	return nil
}

// texts looks into releases and runs of the gates, which stay.
func (f *finding) texts(ctx context.Context) error {
	for _, of := range []struct {
		prefix, what string
		has          func(data []byte) bool
	}{
		{"releases/", "the id, as a key that is pinned to an arm", func(data []byte) bool {
			r, err := release.Decode(data)
			return err == nil && slices.ContainsFunc(r.Arms, func(a release.Arm) bool { return slices.Contains(a.Pins, f.user) })
		}},
		{"gates/", "the id, as an example in a run of the gates from before the store had a live log", func(data []byte) bool {
			var run any
			return json.Unmarshal(data, &run) == nil && hasExample(run, f.user)
		}},
	} {
		for o, err := range f.store.Objects().List(ctx, of.prefix) {
			if err != nil {
				return err
			}
			if path.Ext(o.Key) != ".json" {
				continue
			}
			data, err := f.store.Objects().Read(ctx, o.Key)
			if errors.Is(err, objects.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if of.has(data) {
				f.found(o.Key, of.what, "ever: it is not deleted")
			}
		}
	}
	return nil
}

// liveLog says which entries and checkpoints are older than what forgets the user.
func (f *finding) liveLog(ctx context.Context) error {
	found, err := readObjects(ctx, f.store.Objects())
	if err != nil {
		return err
	}
	const what, until = "vectors and attributes that were upserted of the user", "a collection deletes them, once a checkpoint that is later than what forgets the user is as old as it keeps entries for"
	behind := found.last + 1 // the number from which on there is nothing of the user
	if h, is := f.log.Forgotten().Lookup(f.user); is {
		gone, _ := f.log.Forgotten().Get(h)
		behind = gone.Sequence
	}
	if found.first > 0 && found.first < behind {
		f.maybe(fmt.Sprintf("entries %d to %d of the live log", found.first, min(behind-1, found.last)), what, until)
	}
	for _, n := range found.checkpoints {
		if n < behind {
			f.maybe(fmt.Sprintf("checkpoint %d of the live log", n), what, until)
		}
	}
	return nil
}

// rows says how many files of recorded queries, of outcomes and of joined sets there are that no collection is
// known to have looked into since the user is forgotten.
func (f *finding) rows(ctx context.Context) error {
	set, until := "", "the next collection once the user is forgotten takes them out"
	forgotten := func(text string) bool { _, is := f.log.Forgotten().Lookup(text); return is }
	if forgotten(f.user) && !slices.ContainsFunc(f.as, func(text string) bool { return !forgotten(text) }) {
		set, until = f.log.Forgotten().Digest(), "a collection an hour or more after the file was written has looked into it"
	}
	bucket := f.store.Objects()
	for _, of := range []struct {
		where, what string
		unswept     func(ctx context.Context, set string) (int, error)
	}{
		{"recorded queries", "requests with the user's id, and their answers", querylog.Of(bucket).Unswept},
		{"outcomes", "what the user did with apps, under the id", outcomes.Of(bucket).Unswept},
		{"joined sets", "what the user was served and did, under the id", func(ctx context.Context, set string) (int, error) { return joined.Unswept(ctx, bucket, set) }},
	} {
		n, err := of.unswept(ctx, set)
		if err != nil {
			return err
		}
		if n > 0 {
			f.maybe(of.where+", "+wording.Plural(n, "file"), of.what, until)
		}
	}
	return nil
}

// staging lists the builds of a store in a folder that were kept.
func (f *finding) staging(ctx context.Context) error {
	var kept []string
	for o, err := range f.store.Objects().List(ctx, "staging/") {
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(o.Key, "staging/"), "/")
		if name = "staging/" + name; !slices.Contains(kept, name) {
			kept = append(kept, name)
		}
	}
	for _, name := range kept {
		f.maybe(name, "rows of a build that runs, or was interrupted", fmt.Sprintf("the build ends, or %d days later a collection deletes it", int(snapshots.KeptLife.Hours()/24)))
	}
	return nil
}

// builds lists the builds in steps that are not committed.
func (f *finding) builds(ctx context.Context) error {
	rows := map[string]bool{}
	for o, err := range f.store.Objects().List(ctx, "builds/") {
		if err != nil {
			return err
		}
		id, name, _ := strings.Cut(strings.TrimPrefix(o.Key, "builds/"), "/")
		if name != snapshots.BuildPlan && name != snapshots.BuildCommitted {
			rows["builds/"+id] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		f.maybe(name, "rows of a build in steps, and texts about them", fmt.Sprintf("the build is committed, or a collection deletes it %d days after something of it was written last", int(snapshots.BuildLife.Hours()/24)))
	}
	return nil
}

// hasExample reports whether a text of a JSON value has an id as an example.
func hasExample(v any, id string) bool {
	switch v := v.(type) {
	case string:
		return isExample(v, id)
	case []any:
		return slices.ContainsFunc(v, func(v any) bool { return hasExample(v, id) })
	case map[string]any:
		for _, v := range v {
			if hasExample(v, id) {
				return true
			}
		}
	}
	return false
}

// isExample reports whether a text of a gate lists an id after the words that begin a list of
// examples, and not only as a part of another id.
func isExample(text, id string) bool {
	_, examples, _ := strings.Cut(text, "e.g. ")
	for at := 0; ; at++ {
		i := strings.Index(examples[at:], id)
		if i < 0 {
			return false
		}
		at += i
		before, _ := utf8.DecodeLastRuneInString(examples[:at])
		after, _ := utf8.DecodeRuneInString(examples[at+len(id):])
		if !ofWord(before) && !ofWord(after) {
			return true
		}
	}
}

func ofWord(c rune) bool { return c == '-' || c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c) }
