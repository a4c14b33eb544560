package release

import (
	"context"
	"errors"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Beside is what is released, as far as it matters to what is said of snapshots.
type Beside struct {
	Now        *Release         // the newest release that can be read; nil if there is none
	Unreadable *UnreadableError // what was released last, if it cannot be read
	Lost       error            // of class [ErrLost], where what is released is not known

	lately []manifest.Digest
}

// Beside returns what is released by now.
func (r *Releases) Beside(ctx context.Context) (*Beside, error) {
	b := &Beside{}
	var err error
	b.Now, b.Unreadable, err = r.Newest(ctx)
	switch {
	case errors.Is(err, ErrLost):
		b.Lost = err
	case err != nil && !errors.Is(err, ErrNone):
		return nil, err
	}
	if b.Now != nil {
		b.lately = r.Lately(ctx, b.Now)
	}
	return b, nil
}

// Arms returns the names of the arms that serve a snapshot.
func (b *Beside) Arms(d manifest.Digest) (names []string) {
	if b.Now == nil {
		return nil
	}
	for _, a := range b.Now.Arms {
		if a.Snapshot == d {
			names = append(names, a.Name)
		}
	}
	return names
}

// Description is a snapshot of a store beside what is released.
type Description struct {
	snapshots.Published
	Manifest *manifest.Manifest // nil if it cannot be read
	Arms     []string           // of the newest release, that serve it
	Verdict  *gates.Verdict     // of its gates; nil if none were run, or if that is not known
	// Err is why the manifest, or what the gates have found, is not known: what is there
	// cannot be read.
	Err error
}

// Describe describes a snapshot. An error is of class [snapshots.ErrNoSnapshot] if it was
// removed meanwhile.
func (r *Releases) Describe(ctx context.Context, p snapshots.Published, beside *Beside) (*Description, error) {
	d := &Description{Published: p, Arms: beside.Arms(p.Digest)}
	var err error
	if d.Manifest, err = r.store.Manifest(ctx, p.Digest); err == nil {
		d.Verdict, err = r.Verdict(ctx, p.Digest, beside)
	}
	if errors.Is(err, sections.ErrCorrupt) {
		d.Err, err = err, nil
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Verdict returns what all runs of the gates on a snapshot amount to beside what is released;
// nil if none were run.
func (r *Releases) Verdict(ctx context.Context, d manifest.Digest, beside *Beside) (*gates.Verdict, error) {
	v, err := gates.Judge(ctx, r.store, d, beside.lately...)
	if errors.Is(err, gates.ErrNotRun) {
		return nil, nil
	}
	return v, err
}
