package builder

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/upkeep"
	"github.com/tandem-ann/tandem/shard/wording"
)

// readLive reads the live log of the store that is built into, unless the caller has, and
// checks the position in it.
func (o *Options) readLive(ctx context.Context, store *snapshots.Store) error {
	if o.Live == nil {
		var err error
		if o.Live, err = live.Read(ctx, store.Objects()); err != nil {
			return fmt.Errorf("read the live log: %w", err)
		}
		if o.LivePosition == nil && o.Live.Position().Shard() != (shard.Position{}) {
			o.LivePosition = &shard.Position{}
		}
	}
	if o.LivePosition == nil {
		return nil
	}
	if err := CheckLivePosition(*o.LivePosition, o.Live); err != nil {
		return err
	}
	return upkeep.CheckInputs(ctx, store.Objects(), *o.LivePosition, o.Model, o.ModelVersion)
}

// checkSettled returns a [*upkeep.SettledError] if a collection has settled, since the build
// began, what its inputs lack.
func (b *build) checkSettled(ctx context.Context) error {
	var inputs shard.Position // of inputs of which nobody has said anything
	if b.LivePosition != nil {
		inputs = *b.LivePosition
	}
	return upkeep.CheckInputs(ctx, b.store.Objects(), inputs, b.Model, b.ModelVersion)
}

// CheckLivePosition returns an error unless the inputs of a build can reflect a position of a
// live log: one that the log has reached, or one of a log that it has replaced.
func CheckLivePosition(p shard.Position, log *live.State) error {
	head := log.Position().Shard()
	if p.Log == head.Log && p.Sequence > head.Sequence || p.Log > head.Log {
		return fmt.Errorf("live position is %s, and the live log of the store ends at %s; accepted: up to that", p, head)
	}
	return nil
}

// forgotten are the users of a store who are forgotten, and which of them a build has met.
// A nil one is nobody.
type forgotten struct {
	set live.Forgotten
	met map[live.UserHash]bool
}

func newForgotten(log *live.State) *forgotten {
	set := log.Forgotten()
	if set.Len() == 0 {
		return nil
	}
	return &forgotten{set: set, met: map[live.UserHash]bool{}}
}

// leave reports whether a user is to be left out, and notes it.
func (f *forgotten) leave(id string) bool {
	if f == nil {
		return false
	}
	hash, is := f.set.Lookup(id)
	if is {
		f.met[hash] = true
	}
	return is
}

// function returns what says whether a user is forgotten; nil if nobody is.
func (f *forgotten) function() func(string) bool {
	if f == nil {
		return nil
	}
	return f.set.Has
}

// digest returns that of all who are forgotten; empty if nobody is.
func (f *forgotten) digest() manifest.Digest {
	if f == nil {
		return ""
	}
	return manifest.Digest(f.set.Digest())
}

// input describes those who were met as an input of the snapshot: the same files, and the
// same users who were left out, give the same digest, whoever else is forgotten.
func (f *forgotten) input() manifest.Input {
	var hashes [][]byte
	for h := range f.met {
		hashes = append(hashes, h[:])
	}
	slices.SortFunc(hashes, bytes.Compare)
	data := bytes.Join(hashes, nil)
	return manifest.Input{Role: manifest.ForgottenRole, Name: "live", Size: int64(len(data)), Digest: manifest.Sum(data)}
}

// noteForgotten records which users were left out.
func (b *build) noteForgotten() {
	if b.forgotten == nil || len(b.forgotten.met) == 0 {
		return
	}
	b.manifest.Inputs = append(b.manifest.Inputs, b.forgotten.input())
	b.Progress.Note(fmt.Sprintf("users: left out %s of the inputs", wording.Plural(len(b.forgotten.met), "forgotten user")))
}
