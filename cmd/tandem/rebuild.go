package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

type snapshotVerifyCommand struct {
	snapshotFlags
	Repair  string `placeholder:"STORE" help:"Replace what is damaged or missing by what this store has of the snapshot; a folder or a URL."`
	Rebuild bool   `help:"Build it again of the same inputs, which are named as for tandem build, and compare the digests."`

	Apps  []string `sep:"none" placeholder:"PATH" help:"With --rebuild: app tower. May be repeated."`
	Users []string `sep:"none" placeholder:"PATH" help:"With --rebuild: user tower. May be repeated."`
	towerFiles
	gateFiles
	Threads int  `default:"${threads}" placeholder:"N" help:"Threads to build on (default all cores, here ${default})."`
	JSON    bool `help:"Print JSON."`
}

func (snapshotVerifyCommand) Help() string {
	return `Does what tandem verify does for a snapshot: reads every byte of it where the store has it, and proves checksums, bounds and that every node of every graph can be reached.

With --repair it first replaces each shard, and the manifest, that is missing or is not what its name says by the one of another store, if that has it whole; says which they were; and exits with 0 if the snapshot is whole then. A server that has mapped a damaged file keeps it until it is started again.

With --rebuild it also builds the snapshot again, in a temporary folder (TMPDIR says where), with the parameters that its manifest records. The inputs may be in other folders than they were, under the same names; their SHA-256 are compared with the manifest first. It prints "same digest", or the first thing that differs and exits with 1.

Examples:

    tandem snapshot verify --store s3://bucket?region=eu-west-1 4be1

    tandem snapshot verify --store store 4be1 --repair s3://bucket?region=eu-west-1

    tandem snapshot verify --store store 4be1 --rebuild --apps towers/apps.parquet --users towers/users.parquet`
}

func (c *snapshotVerifyCommand) inputs() *inputs {
	return &inputs{c.Apps, c.Users, c.towerFiles, c.gateFiles}
}

func (c *snapshotVerifyCommand) Run(e *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	return verifying(e, c.JSON, func(r *verification) error {
		if c.Repair != "" {
			return c.repair(e, r)
		}
		return c.verify(e, r)
	})
}

// verify verifies a snapshot, and builds it again if it is to.
func (c *snapshotVerifyCommand) verify(e *environment, r *verification) (err error) {
	p := newTransfers(e.stderr)
	defer p.Done()
	o := c.cacheFlags.options()
	o.Progress = p.Transfer
	store, digest, err := openStore(e, c.Store, c.Snapshot, o)
	if err != nil {
		return err
	}
	defer closing(&err, store)
	if !c.Rebuild {
		return r.snapshot(e, store, digest)
	}
	m, err := store.Manifest(e.ctx, digest)
	if err != nil {
		return err
	}
	options, err := c.options(e, store, m)
	if err != nil {
		return err
	}
	defer closing(&err, options.Opened)
	if err := r.snapshot(e, store, digest); err != nil {
		return err
	}
	return rebuild(e, r, digest, m, options)
}

// check returns an error if flags do not go together.
func (c *snapshotVerifyCommand) check() error {
	switch {
	case c.Threads < 1:
		return usagef("threads is %d, want at least 1", c.Threads)
	case c.Repair != "" && c.Rebuild:
		return usagef("--repair and --rebuild do not go together: repair it first")
	}
	if c.Rebuild {
		return nil
	}
	for _, f := range c.inputs().flags() {
		if f.path != "" {
			return usagef("%s is %s, which needs --rebuild", f.flag, f.path)
		}
	}
	return nil
}

// options returns how to build the snapshot again, or what is other than it was.
func (c *snapshotVerifyCommand) options(e *environment, store *snapshots.Store, m *manifest.Manifest) (builder.Options, error) {
	o, err := builder.FromManifest(m)
	if err != nil {
		return o, fmt.Errorf("rebuild: %w", err)
	}
	o.Threads, o.PreviousStore = c.Threads, store
	if o.Live, err = e.readLive(store); err != nil {
		return o, err
	}
	c.inputs().set(&o)
	if err := checkPrevious(e, store, o.Previous); err != nil {
		return o, err
	}
	if err := o.CheckSources(m.Inputs); err != nil {
		return o, c.inputs().byFlags(err)
	}
	p := newProgress(e.stderr)
	defer p.Done()
	o.Progress = p
	if o.Opened, err = builder.OpenInputs(e.ctx, o, nil); err != nil {
		return o, err
	}
	found, err := o.Opened.Describe(e.ctx, p)
	if err == nil {
		err = c.inputs().byFlags(builder.CompareInputs(m.Inputs, found))
	}
	if err != nil {
		return o, errors.Join(err, o.Opened.Close())
	}
	return o, nil
}

// checkPrevious returns an error if the snapshot that the gates compared with is gone.
func checkPrevious(e *environment, store *snapshots.Store, previous manifest.Digest) error {
	if previous == "" {
		return nil
	}
	_, err := store.Manifest(e.ctx, previous)
	if errors.Is(err, snapshots.ErrNoSnapshot) {
		return fmt.Errorf("the snapshot that its gates compared it with: %w; tandem snapshot copy brings it back from another store", err)
	}
	return err
}

// inputFlag is a flag that names an input,
// and the paths that it was given.
type inputFlag struct{ role, flag, path string }

// flags returns the flags of the inputs, in the order of a manifest.
func (in *inputs) flags() []inputFlag {
	return []inputFlag{
		{"apps", "--apps", strings.Join(in.apps, ", ")},
		{"apps-ids", "--app-ids", strings.Join(in.AppIDs, ", ")},
		{"apps-attributes", "--app-attributes", strings.Join(in.AppAttributes, ", ")},
		{"apps-graph", "--graph", in.Graph},
		{"users", "--users", strings.Join(in.users, ", ")},
		{"users-ids", "--user-ids", strings.Join(in.UserIDs, ", ")},
		{"users-attributes", "--user-attributes", strings.Join(in.UserAttributes, ", ")},
		{"app-segments", "--segments", in.Segments},
		{"gates", "--gates", in.Gates},
		{"interactions", "--interactions", strings.Join(in.Interactions, ", ")},
	}
}

// flag returns the flag of a role; it is empty if there is none.
func (in *inputs) flag(role string) inputFlag {
	for _, f := range in.flags() {
		if f.role == role {
			return f
		}
	}
	return inputFlag{}
}

// byFlags returns an error of the builder about inputs in the words of the flags that name
// them.
func (in *inputs) byFlags(err error) error {
	if missing := (*builder.MissingInputsError)(nil); errors.As(err, &missing) {
		var flags []string
		for _, m := range missing.Inputs {
			f := in.flag(m.Role)
			if f.flag == "" {
				return fmt.Errorf("rebuild: the snapshot was built from %s of the role %.80q, which no flag names", m.Name, m.Role)
			}
			flags = append(flags, f.flag+"=PATH of "+m.Name)
		}
		return usagef("missing flags: %s: the snapshot was built from them", strings.Join(flags, ", "))
	}
	if extra := (*builder.ExtraInputError)(nil); errors.As(err, &extra) {
		f := in.flag(extra.Role)
		return usagef("%s is %s, the snapshot was built without", f.flag, f.path)
	}
	if differ := (*builder.InputsError)(nil); errors.As(err, &differ) {
		f := in.flag(differ.Role)
		return fmt.Errorf("%s differs: %s is %s, whose %s", differ.Role, f.flag, f.path, differ.Difference())
	}
	return err
}

// rebuild builds a snapshot again, and returns an error that names the first thing that is
// not as it was.
func rebuild(e *environment, r *verification, digest manifest.Digest, want *manifest.Manifest, o builder.Options) (err error) {
	dir, err := os.MkdirTemp("", "tandem-rebuild-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store, err := snapshots.CreateStore(e.ctx, dir, snapshots.Options{})
	if err != nil {
		return err
	}
	defer closing(&err, store)
	report, err := build(e, store, o)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	r.Verified[len(r.Verified)-1].Rebuilt = report.Digest
	if report.Digest == digest {
		note := ""
		if want.Tool != toolRelease {
			note = fmt.Sprintf(", built by %q and again by %q", want.Tool, toolRelease)
		}
		fmt.Fprintf(r.out, "snapshot %s was built again: same digest%s\n", digest, note)
		return nil
	}
	difference := want.Difference(report.Manifest)
	if left, now := want.Forgotten(), report.Manifest.Forgotten(); left != now {
		difference = fmt.Sprintf("forgotten users: it was built without %s, now %d are left out: who was forgotten since, or came back, is an input that no file has; %s",
			wording.Plural(left, "forgotten user"), now, difference)
	}
	if want.Tool != toolRelease {
		difference = fmt.Sprintf("tool: it was built by %q, this is %q; %s", want.Tool, toolRelease, difference)
	}
	return fmt.Errorf("snapshot %s was built again as %s, which differs: %s", digest, report.Digest, difference)
}
