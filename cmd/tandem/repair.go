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
func (c *snapshotVerifyCommand) repair(e *environment) (err error) {
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
	mended := 0
	err = snapshots.Repair(e.ctx, store, from, digest, func(name string) {
		fmt.Fprintf(e.stdout, "verify %s\n", name)
	}, func(file string, was error) {
		mended++
		fmt.Fprintf(e.stdout, "mended %s: %v\n", file, was)
	})
	if err != nil {
		return notWhole(e, fmt.Sprintf("snapshot %s, of which %s mended,", digest, wording.Plural(mended, "file")), err)
	}
	fmt.Fprintf(e.stdout, "snapshot %s is whole: %s mended\n", digest, wording.Plural(mended, "file"))
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
