package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tandem-ann/tandem/shard"
)

// source is the snapshot or the shard file that a command reads.
type source struct {
	Store  string `placeholder:"DIR" help:"Store of the snapshot."`
	Object string `arg:"" optional:"" name:"what" help:"With --store a snapshot's digest or the beginning of it, by default the newest; without, the path of a shard file."`
}

// check returns an error if nothing is named.
func (s *source) check() error {
	if s.Store == "" && s.Object == "" {
		return usagef("expected a shard file, or --store DIR with or without a snapshot")
	}
	return nil
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

func (c *verifyCommand) Run(e *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Store == "" {
		return c.file(e)
	}
	store, digest, err := openStore(c.Store, c.Object)
	if err != nil {
		return err
	}
	shards := 0
	err = shard.VerifySnapshot(e.ctx, store, digest, func(name string) {
		shards++
		fmt.Fprintf(e.stdout, "verify %s\n", name)
	})
	if err != nil {
		return c.failed(e, "snapshot "+string(digest), err)
	}
	fmt.Fprintf(e.stdout, "snapshot %s is whole: %d shards\n", digest, shards)
	return nil
}

// file verifies one shard file.
func (c *verifyCommand) file(e *environment) error {
	s, err := shard.Open(c.Object)
	if err == nil {
		err = errors.Join(s.Check(), s.Close())
	}
	name, named := strings.CutSuffix(filepath.Base(c.Object), ".shard")
	if want := shard.Digest(name); named && want.Valid() {
		if got, _, sumErr := shard.SumFile(c.Object); sumErr == nil && got != want {
			err = errors.Join(err, fmt.Errorf("verify shard %s: its SHA-256 is %s", c.Object, got))
		}
	}
	if err != nil {
		return c.failed(e, "shard "+c.Object, err)
	}
	fmt.Fprintf(e.stdout, "shard %s is whole\n", c.Object)
	return nil
}

// failed prints everything that is wrong, one a line.
func (c *verifyCommand) failed(e *environment, what string, err error) error {
	if e.ctx.Err() != nil {
		return err
	}
	all := strings.Split(err.Error(), "\n") // errors.Join puts one on a line
	for _, line := range all {
		fmt.Fprintf(e.stderr, "tandem verify: %s\n", line)
	}
	return fmt.Errorf("%s is not whole: %d errors", what, len(all))
}
