package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// source is the snapshot or the shard files that a command reads.
type source struct {
	storeFlags
	Objects []string `arg:"" optional:"" name:"what" sep:"none" help:"With --store a snapshot's digest or the beginning of it, by default what is released to most traffic; without, the paths of shard files."`
}

// check returns an error if nothing is named, or more than one snapshot.
func (s *source) check() error {
	switch {
	case s.Store == "" && (len(s.Objects) == 0 || slices.Contains(s.Objects, "")):
		return usagef("expected shard files, or --store DIR with or without a snapshot")
	case s.Store != "" && len(s.Objects) > 1:
		return usagef("--store takes one snapshot, not %d; shard files go without it", len(s.Objects))
	}
	return nil
}

// snapshot returns the snapshot that is named, empty for what is released.
func (s *source) snapshot() string {
	if len(s.Objects) == 0 {
		return ""
	}
	return s.Objects[0]
}

type verifyCommand struct {
	source
}

func (verifyCommand) Help() string {
	return `Reads every byte: checksums, bounds, ids, attributes, that every node of every graph can be reached, and that files are what their names say. Prints everything that is wrong and exits with 1 if anything is.

Examples:

    tandem verify --store store

    tandem verify store/shards/*.shard`
}

func (c *verifyCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if c.Store == "" {
		return c.files(e)
	}
	p := newTransfers(e.stderr)
	defer p.Done()
	o := c.cacheFlags.options()
	o.Progress = p.Transfer
	store, digest, err := openStore(e, c.Store, c.snapshot(), o)
	if err != nil {
		return err
	}
	defer closing(&err, store)
	return verifySnapshot(e, store, digest)
}

// verifySnapshot verifies a snapshot and says what is wrong with it.
func verifySnapshot(e *environment, store *snapshots.Store, digest manifest.Digest) error {
	shards := 0
	err := snapshots.Verify(e.ctx, store, digest, func(name string) {
		shards++
		fmt.Fprintf(e.stdout, "verify %s\n", name)
	})
	if err != nil {
		return notWhole(e, "snapshot "+string(digest), err)
	}
	fmt.Fprintf(e.stdout, "snapshot %s is whole: %s\n", digest, wording.Plural(shards, "shard"))
	return nil
}

// files verifies each shard file, whether those before it are whole or not.
func (c *verifyCommand) files(e *environment) error {
	bad := 0
	for _, path := range c.Objects {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		err := c.file(e, path)
		if err == nil {
			continue
		}
		if len(c.Objects) == 1 {
			return err
		}
		bad++
		fmt.Fprintf(e.stderr, "tandem verify: %v\n", err)
	}
	if bad > 0 {
		return fmt.Errorf("%d of %s not whole", bad, wording.Plural(len(c.Objects), "shard"))
	}
	return nil
}

// file verifies one shard file.
func (c *verifyCommand) file(e *environment, path string) error {
	s, err := shard.Open(path)
	if err == nil {
		err = errors.Join(s.Check(), s.Close())
	}
	name, named := strings.CutSuffix(filepath.Base(path), ".shard")
	if want := manifest.Digest(name); named && want.Valid() {
		if got, _, sumErr := snapshots.SumFile(path); sumErr == nil && got != want {
			err = errors.Join(err, fmt.Errorf("verify shard %s: its SHA-256 is %s", path, got))
		}
	}
	if err != nil {
		return notWhole(e, "shard "+path, err)
	}
	fmt.Fprintf(e.stdout, "shard %s is whole\n", path)
	return nil
}

// notWhole prints everything that is wrong, one a line.
func notWhole(e *environment, what string, err error) error {
	if e.ctx.Err() != nil {
		return err
	}
	all := strings.Split(err.Error(), "\n") // errors.Join puts one on a line
	for _, line := range all {
		fmt.Fprintf(e.stderr, "tandem verify: %s\n", line)
	}
	count := wording.Plural(len(all), "error")
	if !sections.IsDamaged(err) && !errors.Is(err, sections.ErrVersion) && !errors.Is(err, objects.ErrNotFound) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, snapshots.ErrNoSnapshot) {
		return fmt.Errorf("whether %s is whole is not known: %s", what, count)
	}
	return fmt.Errorf("%s is not whole: %s", what, count)
}
