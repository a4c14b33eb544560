package main

import (
	"errors"
	"fmt"
	"io"
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

// orFiles says that the arguments may be files, where no store is meant.
func (*source) orFiles() {}

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
	JSON bool `help:"Print JSON."`
}

func (verifyCommand) Help() string {
	return `Reads every byte: checksums, bounds, ids, attributes, that every node of every graph can be reached, and that files are what their names say. Prints everything that is wrong and exits with 1 if anything is.

Examples:

    tandem verify --store store

    tandem verify store/shards/*.shard`
}

func (c *verifyCommand) Run(e *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	return verifying(e, c.JSON, func(r *verification) (err error) {
		if c.Store == "" {
			return c.files(e, r)
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
		return r.snapshot(e, store, digest)
	})
}

// verification is what was verified, for people and as JSON.
type verification struct {
	Verified []*verified `json:"verified"`

	out io.Writer // for people; nothing is shown there if it is to be JSON
}

// verified is what was found of a snapshot or of a shard file.
type verified struct {
	Snapshot manifest.Digest `json:"snapshot,omitempty"`
	File     string          `json:"file,omitempty"` // the path of a shard file
	Whole    bool            `json:"whole"`
	Shards   []string        `json:"shards,omitempty"`  // of the snapshot that were read
	Mended   []mendedFile    `json:"mended,omitempty"`  // files that another store had whole
	Rebuilt  manifest.Digest `json:"rebuilt,omitempty"` // the digest of what it was built again as
	Errors   []string        `json:"errors,omitempty"`  // all that is wrong
}

// mendedFile is a file that was replaced, and what was wrong with it.
type mendedFile struct {
	File string `json:"file"`
	Was  string `json:"was"`
}

// verifying runs a verification and prints what it has found as JSON if it is to, whether all is
// whole or not.
func verifying(e *environment, asJSON bool, verify func(r *verification) (err error)) error {
	r := &verification{out: e.stdout}
	if asJSON {
		r.out = io.Discard
	}
	err := verify(r)
	if asJSON && len(r.Verified) > 0 {
		err = errors.Join(wording.WriteJSON(e.stdout, r), err)
	}
	return err
}

// of begins with a snapshot or a file.
func (r *verification) of(v *verified) *verified {
	r.Verified = append(r.Verified, v)
	return v
}

// read tells that a shard of a snapshot is being read.
func (r *verification) read(v *verified, name string) {
	v.Shards = append(v.Shards, name)
	fmt.Fprintf(r.out, "verify %s\n", name)
}

// snapshot verifies a snapshot and says what is wrong with it.
func (r *verification) snapshot(e *environment, store *snapshots.Store, digest manifest.Digest) error {
	v := r.of(&verified{Snapshot: digest})
	if err := snapshots.Verify(e.ctx, store, digest, func(name string) { r.read(v, name) }); err != nil {
		return v.notWhole(e, "snapshot "+string(digest), err)
	}
	v.Whole = true
	fmt.Fprintf(r.out, "snapshot %s is whole: %s\n", digest, wording.Plural(len(v.Shards), "shard"))
	return nil
}

// files verifies each shard file, whether those before it are whole or not.
func (c *verifyCommand) files(e *environment, r *verification) error {
	bad := 0
	for _, path := range c.Objects {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		err := r.file(e, path)
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
func (r *verification) file(e *environment, path string) error {
	v := r.of(&verified{File: path})
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
		return v.notWhole(e, "shard "+path, err)
	}
	v.Whole = true
	fmt.Fprintf(r.out, "shard %s is whole\n", path)
	return nil
}

// notWhole prints everything that is wrong, one a line.
func (v *verified) notWhole(e *environment, what string, err error) error {
	v.Errors = strings.Split(err.Error(), "\n") // errors.Join puts one on a line
	if e.ctx.Err() != nil {
		return err
	}
	for _, line := range v.Errors {
		fmt.Fprintf(e.stderr, "tandem verify: %s\n", line)
	}
	count := wording.Plural(len(v.Errors), "error")
	if !sections.IsDamaged(err) && !errors.Is(err, sections.ErrVersion) && !errors.Is(err, objects.ErrNotFound) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, snapshots.ErrNoSnapshot) {
		return fmt.Errorf("whether %s is whole is not known: %s", what, count)
	}
	return fmt.Errorf("%s is not whole: %s", what, count)
}
