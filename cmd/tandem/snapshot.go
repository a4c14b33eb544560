package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// snapshotCommand is `tandem snapshot`.
type snapshotCommand struct {
	Ls     snapshotLsCommand     `cmd:"" help:"List the snapshots of a store."`
	Show   snapshotShowCommand   `cmd:"" help:"Show a snapshot's manifest."`
	Verify snapshotVerifyCommand `cmd:"" help:"Prove that a snapshot is whole."`
	Diff   snapshotDiffCommand   `cmd:"" help:"Show how two snapshots differ."`
	Copy   snapshotCopyCommand   `cmd:"" help:"Copy a snapshot to another store."`
	Rm     snapshotRmCommand     `cmd:"" help:"Remove snapshots that no release needs."`
	Gc     snapshotGcCommand     `cmd:"" help:"Delete what no release and no rule keeps."`
}

// snapshotFlags name one snapshot of a store.
type snapshotFlags struct {
	requiredStoreFlags
	Snapshot string `arg:"" optional:"" placeholder:"DIGEST" help:"The snapshot's digest or the beginning of it; by default what is released to most traffic."`
}

// open opens the store and resolves the snapshot. The caller closes the store.
func (f *snapshotFlags) open(e *environment) (*snapshots.Store, manifest.Digest, error) {
	return openStore(e, f.Store, f.Snapshot, f.cacheFlags.options())
}

type snapshotLsCommand struct {
	askedFlags
	JSON bool `help:"Print JSON."`
}

func (snapshotLsCommand) Help() string {
	return `Newest first. One whose manifest, or whose runs of the gates, cannot be read is listed with what is known of it, and the exit code is 1.

Example:

    tandem snapshot ls --store store`
}

// listedSnapshot is a line of `tandem snapshot ls`.
type listedSnapshot struct {
	Snapshot     manifest.Digest `json:"snapshot"`
	Model        string          `json:"model"`
	ModelVersion string          `json:"model_version"`
	Published    time.Time       `json:"published"`
	Apps         int             `json:"apps"`
	Users        int             `json:"users"`
	Shards       int             `json:"shards"`
	Bytes        int64           `json:"bytes"`
	Arm          string          `json:"arm,omitempty"` // that serves it now
	Gates        string          `json:"gates"`         // what they came to, in a few words
	GateRows     []gates.Row     `json:"gate_rows"`     // what each came to; empty if none was run
}

func (c *snapshotLsCommand) Run(e *environment) error {
	server, err := c.server(e)
	if err != nil {
		return err
	}
	var list []listedSnapshot
	var corrupt []error // of snapshots that are listed all the same
	if server != nil {
		list, corrupt, err = server.listed(e.ctx)
	} else {
		list, corrupt, err = c.list(e)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, list)
	} else {
		err = writeSnapshots(e.stdout, list)
	}
	return errors.Join(append([]error{err}, corrupt...)...)
}

// list returns the snapshots of a store; the errors are of those that are listed all the same.
func (c *snapshotLsCommand) list(e *environment) (list []listedSnapshot, corrupt []error, err error) {
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return nil, nil, err
	}
	defer closing(&err, store)
	published, err := store.Snapshots(e.ctx)
	if err != nil {
		return nil, nil, err
	}
	releases := release.New(store)
	beside, err := besideReleased(e, releases)
	if err != nil {
		return nil, nil, err
	}
	if beside.Lost != nil {
		// Who begins it anew has to know with what.
		fmt.Fprintf(e.stderr, "what is released is not known: %v\n", beside.Lost)
	}
	list = []listedSnapshot{}
	for _, p := range published {
		d, err := releases.Describe(e.ctx, p, beside)
		switch {
		case errors.Is(err, snapshots.ErrNoSnapshot):
			continue // removed meanwhile
		case err != nil:
			return nil, nil, err
		case d.Err != nil:
			corrupt = append(corrupt, d.Err)
		}
		list = append(list, lineOf(d))
	}
	return list, corrupt, nil
}

// lineOf returns a line of `tandem snapshot ls`.
func lineOf(d *release.Description) listedSnapshot {
	line := listedSnapshot{Snapshot: d.Digest, Published: d.Time.UTC(), Arm: strings.Join(d.Arms, "+")}
	line.setGates(d.Verdict, d.Err)
	m := d.Manifest
	if m == nil {
		return line
	}
	line.Model, line.ModelVersion = m.Model, m.ModelVersion
	line.Apps, line.Users, line.Shards = m.Apps.Rows, m.Users.Rows, len(m.Apps.Shards)+len(m.Users.Shards)
	for _, s := range m.Shards() {
		line.Bytes += s.Size
	}
	return line
}

// setGates says what gates came to; unknown is why that is not known, if it is not.
func (l *listedSnapshot) setGates(v *gates.Verdict, unknown error) {
	l.GateRows = []gates.Row{}
	switch {
	case v != nil:
		l.Gates, l.GateRows = gates.Summary(v.Rows), v.Rows
		if n := len(v.Loosened); n > 0 {
			l.Gates += fmt.Sprintf(", %s loosened", wording.Plural(n, "limit"))
		}
	case unknown != nil:
		l.Gates = "not known"
	default:
		l.Gates = "not run"
	}
}

func writeSnapshots(w io.Writer, list []listedSnapshot) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no snapshots; tandem build makes one")
		return err
	}
	t := newTable(w)
	fmt.Fprintln(t, "snapshot\tmodel\tversion\tpublished\tapps\tusers\tshards\tsize\tarm\tgates")
	for _, s := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", s.Snapshot.Short(), s.Model, s.ModelVersion,
			s.Published.Format(time.RFC3339), wording.Count(s.Apps), wording.Count(s.Users), s.Shards, wording.Bytes(s.Bytes), s.Arm, s.Gates)
	}
	return t.Flush()
}

type snapshotShowCommand struct {
	askedFlags
	Snapshot string `arg:"" optional:"" placeholder:"DIGEST" help:"The snapshot's digest or the beginning of it; by default what is released to most traffic."`
	JSON     bool   `help:"Print JSON."`
}

func (snapshotShowCommand) Help() string {
	return `Shows what it was built from and how, its shards, recall and segments. It opens no shard.

Example:

    tandem snapshot show --store store 4be1`
}

func (c *snapshotShowCommand) Run(e *environment) (err error) {
	server, err := c.server(e)
	if err != nil {
		return err
	}
	if server != nil {
		digest, m, verdict, err := server.snapshot(e, c.Snapshot)
		if err != nil {
			return err
		}
		return presentSnapshot(e.stdout, digest, m, verdict, c.JSON)
	}
	store, digest, err := openStore(e, c.Store, c.Snapshot, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	m, err := store.Manifest(e.ctx, digest)
	if err != nil {
		return err
	}
	return showSnapshot(e, store, digest, m, c.JSON)
}

type snapshotCopyCommand struct {
	snapshotFlags
	To   string `required:"" placeholder:"STORE" help:"Store to copy to; a folder is made if need be."`
	JSON bool   `help:"Print JSON."`
}

func (snapshotCopyCommand) Help() string {
	return `Shards that the other store has are read, and copied again only if they are not whole. A copy that was interrupted goes on when it is run again.

A snapshot whose inputs reflect a position of a live log belongs to the store that has the log: build it without one for another store.

What the gates have found comes along, first of all, unless the other store has runs of its own.

Example:

    tandem snapshot copy --store store --to s3://bucket?region=eu-west-1 4be1`
}

func (c *snapshotCopyCommand) Run(e *environment) (err error) {
	p := newTransfers(e.stderr)
	defer p.Done()
	o := c.cacheFlags.options()
	o.Progress, o.Waiting = p.Transfer, newWaiting(e.stderr)
	store, digest, err := openStore(e, c.Store, c.Snapshot, o)
	if err != nil {
		return err
	}
	defer closing(&err, store)
	to, err := snapshots.CreateStore(e.ctx, c.To, o)
	if err != nil {
		return err
	}
	defer closing(&err, to)
	// Before the snapshot: nobody there releases it without what speaks against it.
	same, err := gates.CopyRecords(e.ctx, to.Objects(), store.Objects(), digest)
	if err != nil {
		return err
	}
	if err := to.Copy(e.ctx, store, digest); err != nil {
		return err
	}
	p.Done()
	m, err := to.Manifest(e.ctx, digest)
	if err != nil {
		return err
	}
	if m.Live != nil && m.Live.Sequence > 0 {
		fmt.Fprintf(e.stderr, "its inputs reflect the live log of %s up to %s; where it is served from %s, what that has in a live log of its own counts over it from behind that number on\n", c.Store, m.Live, c.To)
	}
	if !same {
		fmt.Fprintf(e.stderr, "%s has runs of the gates of its own, and those of %s were not copied; tandem gate runs them anew\n", c.To, c.Store)
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, struct {
			Snapshot    manifest.Digest `json:"snapshot"`
			To          string          `json:"to"`
			GatesCopied bool            `json:"gates_copied"` // else the store has runs of its own
		}{digest, c.To, same})
	}
	_, err = fmt.Fprintf(e.stdout, "snapshot %s is in %s\n", digest, c.To)
	return err
}

type snapshotRmCommand struct {
	requiredStoreFlags
	Snapshots []string `arg:"" name:"digest" help:"Digests of snapshots, or the beginnings of them."`
	JSON      bool     `help:"Print JSON."`
}

func (snapshotRmCommand) Help() string {
	return `Refuses a snapshot that one of the last ten releases serves. tandem snapshot gc frees the space of its shards.

Example:

    tandem snapshot rm --store store 4be1 77c0`
}

func (c *snapshotRmCommand) Run(e *environment) (err error) {
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	var digests []manifest.Digest
	for _, ref := range c.Snapshots {
		if ref == "" {
			return usagef("a digest is empty; accepted: the beginning of one, or all of it")
		}
		d, err := store.Resolve(e.ctx, ref)
		if err != nil {
			return err
		}
		digests = append(digests, d)
	}
	removed := []manifest.Digest{}
	for _, d := range digests {
		if err = store.Remove(e.ctx, d, neededBy(store)); err != nil {
			break
		}
		removed = append(removed, d)
		if !c.JSON {
			fmt.Fprintf(e.stdout, "removed snapshot %s\n", d)
		}
	}
	if c.JSON { // those before an error, too
		err = errors.Join(err, wording.WriteJSON(e.stdout, struct {
			Removed []manifest.Digest `json:"removed"`
		}{removed}))
	}
	return err
}

type snapshotGcCommand struct {
	requiredStoreFlags
	Keep    int           `default:"3" placeholder:"N" help:"Newest snapshots to keep (default ${default})."`
	KeepFor time.Duration `default:"168h" placeholder:"TIME" help:"Keep snapshots published within this time (default ${default})."`
	Grace   time.Duration `default:"24h" placeholder:"TIME" help:"Keep shards without a snapshot, and unfinished files, that were written within this time (default ${default})."`
	DryRun  bool          `help:"Say what would be deleted, and delete nothing."`
	JSON    bool          `help:"Print JSON."`

	upkeepFlags

	Unreleased bool `help:"Nothing in the store was ever released, and it may have no snapshot. Without it, gc deletes no snapshot while it finds no release, and no shard while it finds no snapshot: they may be on a disk that is not mounted."`
}

func (snapshotGcCommand) Help() string {
	return `Says why it keeps what it keeps. Keeps what the last ten releases serve, what is being published or released meanwhile, and what the rules say; deletes other snapshots, shards that no snapshot has, and what was left by processes that died. It deletes nothing while it does not know what to keep: while a release or a manifest cannot be read or is missing. It may run at any time, beside builds, releases and servers; one that was interrupted goes on when it is run again.

Then it keeps short what is beside snapshots. Of the live log it settles what every snapshot in the store reflects, writes a checkpoint if the last is old, and deletes entries once a checkpoint that has them is older than --live-keep. Recorded queries go that are older than --record-keep, outcomes that are older than --outcome-keep, joined sets of days that ended longer than --joined-keep ago, and of what stays that of users who are forgotten. It fails if something of a forgotten user may be in the live log for longer than --forget-within: run it daily.

Example:

    tandem snapshot gc --store store --keep 7 --dry-run`
}

// collectedInfo is what `tandem snapshot gc` deleted.
type collectedInfo struct {
	DryRun    bool              `json:"dry_run"`
	Snapshots []manifest.Digest `json:"snapshots"`
	Shards    []manifest.Digest `json:"shards"`
	Bytes     int64             `json:"bytes"`
	Leftovers []string          `json:"leftovers"`
	Kept      []keptInfo        `json:"kept"`
	Young     int               `json:"young_shards"` // kept since they are younger than --grace
	upkeepInfo
	Error string `json:"error,omitempty"` // what ended it before it was done
}

// keptInfo is a snapshot that `tandem snapshot gc` kept.
type keptInfo struct {
	Snapshot manifest.Digest    `json:"snapshot"`
	Arm      string             `json:"arm,omitempty"` // that serves it now
	Why      []snapshots.Reason `json:"why"`
}

func (c *snapshotGcCommand) Run(e *environment) (err error) {
	switch {
	case c.Keep < 0:
		return usagef("--keep is %d, want at least 0", c.Keep)
	case c.KeepFor < 0:
		return usagef("--keep-for is %s, want at least 0", c.KeepFor)
	case c.Grace < 0:
		return usagef("--grace is %s, want at least 0", c.Grace)
	}
	if err := c.upkeepFlags.check(); err != nil {
		return err
	}
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	done, err := store.Collect(e.ctx, snapshots.CollectOptions{
		Live: neededBy(store), Keep: c.Keep, KeepFor: c.KeepFor, Grace: c.Grace, Unreleased: c.Unreleased, DryRun: c.DryRun,
	})
	if errors.Is(err, snapshots.ErrNothingLive) {
		err = fmt.Errorf("%w; if there never was a release, say so with --unreleased", err)
	}
	if errors.As(err, new(*snapshots.MissingShardError)) {
		err = fmt.Errorf("%w with tandem snapshot verify --repair", err)
	}
	if err != nil && len(done.Snapshots)+len(done.Shards)+len(done.Leftovers) > 0 && !c.DryRun {
		err = fmt.Errorf("%w; before that it deleted %s; run it again to go on", err, describeCollected(done))
	}
	kept := []keptInfo{}
	now, _, newestErr := release.New(store).Newest(e.ctx) // else nothing says what serves, and gc has said why
	for _, k := range done.Kept {
		info := keptInfo{Snapshot: k.Snapshot, Why: k.Why}
		if newestErr == nil {
			info.Arm = armsOf(now, k.Snapshot)
		}
		kept = append(kept, info)
	}
	kempt := upkeepInfo{}
	if err == nil { // else it is not known what to keep
		kempt, err = c.keep(e, store, c.DryRun)
	}
	return errors.Join(err, c.write(e.stdout, done, kept, kempt, err))
}

// armsOf names the arms of a release that serve a snapshot.
func armsOf(r *release.Release, d manifest.Digest) string {
	var names []string
	for _, a := range r.Arms {
		if a.Snapshot == d {
			names = append(names, a.Name)
		}
	}
	return strings.Join(names, "+")
}

// why says for people why a snapshot was kept.
func (c *snapshotGcCommand) why(k keptInfo) string {
	var texts []string
	for _, reason := range k.Why {
		text := "a build, a copy, a release or a server needs it meanwhile"
		switch reason {
		case snapshots.KeptLive:
			text = "one of the last ten releases has it"
			if k.Arm != "" {
				text = "it serves as " + k.Arm
			}
		case snapshots.KeptNewest:
			text = fmt.Sprintf("it is one of the newest %d (--keep)", c.Keep)
		case snapshots.KeptYoung:
			text = fmt.Sprintf("it was published within %s (--keep-for)", c.KeepFor)
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// write says what was deleted, even if an error came after it.
func (c *snapshotGcCommand) write(w io.Writer, done *snapshots.Collected, kept []keptInfo, kempt upkeepInfo, failed error) error {
	if c.JSON {
		info := collectedInfo{DryRun: c.DryRun, Snapshots: done.Snapshots, Shards: done.Shards, Bytes: done.Bytes, Leftovers: done.Leftovers, Kept: kept, Young: done.Young, upkeepInfo: kempt}
		if failed != nil {
			info.Error = failed.Error() + goOn(failed)
		}
		return wording.WriteJSON(w, info)
	}
	verb := "deleted"
	if c.DryRun {
		verb = "would delete"
	}
	for _, d := range done.Snapshots {
		fmt.Fprintf(w, "%s snapshot %s\n", verb, d)
	}
	for _, name := range done.Leftovers {
		fmt.Fprintf(w, "%s leftover %s\n", verb, name)
	}
	for _, k := range kept {
		fmt.Fprintf(w, "kept snapshot %s: %s\n", k.Snapshot, c.why(k))
	}
	if done.Young > 0 {
		fmt.Fprintf(w, "kept %s that no snapshot has, written within %s (--grace)\n", wording.Plural(done.Young, "shard"), c.Grace)
	}
	c.upkeepFlags.write(w, kempt, c.DryRun)
	var err error
	if failed == nil { // else the error says it
		_, err = fmt.Fprintf(w, "%s %s\n", verb, describeCollected(done))
	}
	return err
}

func describeCollected(done *snapshots.Collected) string {
	return fmt.Sprintf("%s, %s with %s, %s", wording.Plural(len(done.Snapshots), "snapshot"),
		wording.Plural(len(done.Shards), "shard"), wording.Bytes(done.Bytes), wording.Plural(len(done.Leftovers), "leftover"))
}

// neededBy returns what lists the snapshots that releases need.
func neededBy(store *snapshots.Store) func(context.Context) ([]manifest.Digest, error) {
	return release.New(store).Live
}
