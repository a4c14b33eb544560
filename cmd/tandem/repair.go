package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// repair verifies a snapshot and mends its files from another store.
func (c *snapshotVerifyCommand) repair(e *environment, r *verification) (err error) {
	p := newTransfers(e.stderr)
	defer p.Done()
	o := c.cacheFlags.options()
	o.Progress = p.Transfer
	store, err := snapshots.OpenStore(e.ctx, c.Store, o)
	if err != nil {
		return err
	}
	defer closing(&err, store)
	from, err := snapshots.OpenStore(e.ctx, c.Repair, o)
	if err != nil {
		return err
	}
	defer closing(&err, from)
	digest, err := c.resolve(e, store, from)
	if err != nil {
		return err
	}
	v := r.of(&verified{Snapshot: digest})
	err = snapshots.Repair(e.ctx, store, from, digest, func(name string) { r.read(v, name) }, func(file string, was error) {
		v.Mended = append(v.Mended, mendedFile{file, was.Error()})
		fmt.Fprintf(r.out, "mended %s: %v\n", file, was)
	})
	mended := wording.Plural(len(v.Mended), "file")
	if err != nil {
		return v.notWhole(e, fmt.Sprintf("snapshot %s, of which %s mended,", digest, mended), err)
	}
	v.Whole = true
	fmt.Fprintf(r.out, "snapshot %s is whole: %s mended\n", digest, mended)
	return nil
}

// resolve returns the snapshot that is to be repaired. If its manifest is missing, the
// other store knows what the beginning of its digest means.
func (c *snapshotVerifyCommand) resolve(e *environment, store, from *snapshots.Store) (manifest.Digest, error) {
	if c.Snapshot == "" {
		return released(e, store)
	}
	list, err := store.Snapshots(e.ctx)
	if err != nil {
		return "", err
	}
	here := slices.ContainsFunc(list, func(p snapshots.Published) bool { return strings.HasPrefix(string(p.Digest), c.Snapshot) })
	if here {
		return store.Resolve(e.ctx, c.Snapshot)
	}
	return from.Resolve(e.ctx, c.Snapshot)
}
