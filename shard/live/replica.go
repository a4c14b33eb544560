package live

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects"
)

var (
	// ErrOtherLog is the class of every error that says that a position is of a log that the
	// one which is followed does not go on from.
	ErrOtherLog = errors.New("the position is of another log")
	// ErrEnded is the class of the error that says that a replica's Run has ended.
	ErrEnded = errors.New("the live log is followed no more")

	// errAccepted says that a person has accepted the log, which is read anew then: it may lack
	// what was read before.
	errAccepted = errors.New("the log was accepted by a person")
)

// Options say how a replica follows and appends. A zero field means its default.
type Options struct {
	// Author is who appends what no other author is given of. Default: nobody.
	Author string
	// Poll is how long the replica waits before it looks at the log again. Default:
	// [DefaultPoll], and [DefaultFolderPoll] in a folder.
	Poll time.Duration
	// Hedge is how long a look at the log is without an answer before another is made beside
	// it: much less than a proof may be old. Default: that of package appendlog.
	Hedge time.Duration
	// Timeout is how long an append takes at most whose context has no deadline, and the
	// writing of one entry. Default: 15 seconds.
	Timeout time.Duration
	// Check returns an error if an event does not fit what it is for. It is asked of each
	// event before it is written, again whenever another writer was first, and not of one
	// that is in the log already. One goroutine at a time asks it. What it returns is what
	// the append returns, with nothing of it written. Default: all fit.
	Check func(*Event) error
	// Room is what may be upserted and set.
	Room Room
	// Apply is told of each entry: what the state is by now, and what has changed, before
	// the view that has it is published. It may use the state until it returns. One goroutine
	// at a time calls it. It is not told what Open has read, see [Replica.Read].
	Apply func(s *State, changes []Change)
	// Published is handed each view, that of Open too, before View returns it, and Append and
	// Wait return for it. One goroutine at a time calls it, after Apply.
	Published func(v *View)
	// Memory remembers the highest position which was published, so that an older copy of the
	// log is not followed: in a file for the address of the store, and in more that its copies
	// share. Processes may share them. A file beside each, with .lock behind its name, is
	// locked while that is written. Their folders are made. Default: nothing remembers.
	Memory appendlog.Memory
	// AtLeast is a position that the log is known to have reached, such as snapshots and
	// releases tell it, by AtLeastFrom. Its hash may be zero.
	AtLeast     Position
	AtLeastFrom string // such as "the newest release"
	// Reached is a position that a person says the log has reached, as ReachedFrom names it. One
	// without the id of a log is of the first: a log that was accepted since is not opened then,
	// see [UnnamedLogError].
	Reached     shard.Position
	ReachedFrom string // such as "--live-at-least"
	// Accept is the position of a log that a person accepts although it is not the one that
	// was followed before: it is followed if it ends there when it is opened, and is what is
	// remembered from then on.
	Accept *shard.Position
	// PassGaps has entries that are missing passed over when the log is opened, for
	// [Replica.Accept]: what they have changed is lost, see [Replica.Lost]. Default: they are
	// an error, a [*GapError].
	PassGaps bool
	// WithoutKey reads the log as [ReadWithoutKey] does. Append takes no events about users then,
	// and no checkpoint is written. The view is not one to serve.
	WithoutKey bool
	// Failed is told why a look at the log proved nothing, or an entry could not be applied:
	// the view stays, and its proof gets older. See [appendlog.IsBroken] and [ErrVersion].
	// Several goroutines may call it; of the replica it may use the view only.
	Failed func(error)
	// Proved is told that the log ended where the view is, at a moment after asked.
	Proved func(at Position, asked time.Time)
	// Summed is told of each checkpoint that Run has written, or failed to.
	Summed func(Summed)
}

// Summed says how a checkpoint was written.
type Summed struct {
	Sequence uint64
	Bytes    int
	Took     time.Duration
	Err      error

	log string
}

// What there is room for by default.
const (
	DefaultRoomBytes = 1 << 30
	DefaultRoomRows  = 100_000
)

// Room is what may be upserted and set. Takedowns, what restores, removes or forgets, and
// windows of nothing else need none.
type Room struct {
	// Bytes of all records, about. Default: [DefaultRoomBytes].
	Bytes int64
	// Rows of apps, and rows of users, for each model version. Default: [DefaultRoomRows].
	Rows int
}

// Replica follows the live log of a store, and appends to it. Its methods may be called by
// any number of goroutines.
type Replica struct {
	bucket *objects.Bucket
	log    *appendlog.Log
	o      Options
	writer [8]byte

	vouched string
	lost    []Gap
	now     atomic.Pointer[published]
	running atomic.Bool
	due     chan struct{} // has an element when a checkpoint is
	summing sync.Mutex    // of who writes a checkpoint
	queue   queue

	committing sync.Mutex // of who appends; also guards what follows
	turns      turns
	settled    uint64 // the last entry that is known to outlast a crash

	mu          sync.Mutex // guards what follows
	state       *State
	tail        tail
	recent      []seenWriter
	foreign     uint64 // entries of others that were applied
	unpublished bool   // the state has what the view has not
}

// published is a view, and what is closed when another takes its place.
type published struct {
	view *View
	next chan struct{}
}

// Open reads the live log of a store: its last checkpoint, and all entries behind it. The
// error is a [*TimeTravelError] if it is not the one that is remembered. Whoever opens a
// replica has it follow by [Replica.Run].
func Open(ctx context.Context, bucket *objects.Bucket, o Options) (*Replica, error) {
	if o.Timeout <= 0 {
		o.Timeout = 15 * time.Second
	}
	if o.Room.Bytes <= 0 {
		o.Room.Bytes = DefaultRoomBytes
	}
	if o.Room.Rows <= 0 {
		o.Room.Rows = DefaultRoomRows
	}
	if o.Check == nil {
		o.Check = func(*Event) error { return nil }
	}
	if o.Apply == nil {
		o.Apply = func(*State, []Change) {}
	}
	if o.Published == nil {
		o.Published = func(*View) {}
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	if o.Proved == nil {
		o.Proved = func(Position, time.Time) {}
	}
	if o.Summed == nil {
		o.Summed = func(Summed) {}
	}
	r := &Replica{
		bucket: bucket, log: logOf(bucket, o.Poll, o.Hedge), o: o,
		due: make(chan struct{}, 1), queue: queue{news: make(chan struct{}, 1)},
	}
	_, _ = rand.Read(r.writer[:]) // it never fails
	if err := r.open(ctx); err != nil {
		return nil, fmt.Errorf("open the live log: %w", err)
	}
	return r, nil
}

func (r *Replica) open(ctx context.Context) error {
	known, from, err := r.recall() // before the log is read, with which others go on
	if err != nil {
		return err
	}
	l, err := load(ctx, r.log, r.bucket, loading{r.o.PassGaps, r.o.WithoutKey})
	if err != nil {
		return err
	}
	r.state, r.tail, r.lost = l.state, l.tail, l.lost
	accepted := false
	if r.vouched, accepted, err = r.vouch(known, from); err != nil {
		return err
	}
	if accepted {
		if err := r.o.Memory.Accept(ctx, appendlog.Position(r.state.position)); err != nil {
			return err
		}
	}
	return r.publish(ctx, &Proof{})
}

// vouch returns by what the log is known to be no older copy, where known is what was
// remembered in memory, and an error if it is one that nobody has accepted.
func (r *Replica) vouch(known Position, memory string) (vouched string, accepted bool, err error) {
	type source struct {
		at   Position
		from string
	}
	told := source{r.o.AtLeast, r.o.AtLeastFrom}
	if told.from == "" {
		told.from = "what it was told"
	}
	found := r.state.position
	reached := Position{Log: r.o.Reached.Log, Sequence: r.o.Reached.Sequence}
	if reached != (Position{}) && reached.Log == "" && found.Log != "" {
		return "", false, &UnnamedLogError{Reached: r.o.Reached, From: r.o.ReachedFrom, Found: found.Shard()}
	}
	for _, s := range []source{{known, memory}, told, {reached, r.o.ReachedFrom}} {
		if s.at == (Position{}) {
			continue
		}
		sure, err := r.state.reaches(s.at)
		switch {
		case err != nil && r.o.Accept != nil && *r.o.Accept == found.Shard():
			return "a person, who has accepted " + describe(found.Shard()), true, nil
		case err != nil:
			return "", false, &TimeTravelError{Known: s.at, From: s.from, Moved: s.from == copyMemory, Found: found, Err: err}
		case sure && vouched == "":
			vouched = s.from + " of " + describe(s.at.Shard())
		}
	}
	return vouched, false, nil
}

// Vouched returns by what the replica knew, when it was opened, that the log is not an older
// copy of what it was, such as "its own memory of entry 17"; empty if by nothing.
func (r *Replica) Vouched() string { return r.vouched }

// Lost returns the entries that were missing when the log was opened, and were passed over.
func (r *Replica) Lost() []Gap { return r.lost }

// View returns what is known by now.
func (r *Replica) View() *View { return r.now.Load().view }

// Read hands over the state, which does not change until f returns. Options.Apply is told of
// what changes from then on.
func (r *Replica) Read(f func(s *State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.state)
}

// Hint has the replica look at the log at once.
func (r *Replica) Hint() { r.log.Hint() }

// Wait waits until the view has a position. The error is of class [ErrOtherLog] if the log
// does not go on from that of the position, or has gone on without it, and else that of ctx.
func (r *Replica) Wait(ctx context.Context, p shard.Position) error {
	for {
		now := r.now.Load()
		at := now.view.Position
		common, known := now.view.Lineage.Common(p.Log)
		switch {
		case p.Sequence == 0, p.Log == at.Log && p.Sequence <= at.Sequence, p.Log != at.Log && known && p.Sequence <= common:
			return nil
		case p.Log != at.Log:
			return fmt.Errorf("wait for %s, and the log is at %s: %w", describe(p), describe(at.Shard()), ErrOtherLog)
		}
		r.log.Hint()
		select {
		case <-now.next:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, and the log is at %s: %w", describe(p), describe(at.Shard()), ctx.Err())
		}
	}
}

// Run follows the log, appends what it is given, and writes checkpoints when they are due,
// until ctx ends. It returns the error of ctx. It can be called once.
func (r *Replica) Run(ctx context.Context) error {
	if r.running.Swap(true) {
		return errors.New("the live log is followed already, or was")
	}
	var working sync.WaitGroup
	working.Go(func() { r.follow(ctx) })
	working.Go(func() { r.commits(ctx) })
	if !r.o.WithoutKey {
		working.Go(func() { r.sums(ctx) })
	}
	working.Wait()
	r.queue.end()
	return ctx.Err()
}

const (
	// slowest is how many polls lie between two attempts to go on after an error.
	slowest = 8
	// slowestReload bounds the pauses before a state is read anew that could not be.
	slowestReload = 30 * time.Second
)

// follow applies what others append.
func (r *Replica) follow(ctx context.Context) {
	w := appendlog.Watcher{
		At: r.at,
		Apply: func(e appendlog.Entry) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.take(ctx, e)
		},
		Proved: func(asked time.Time) { r.proved(ctx, asked) },
		Failed: r.o.Failed,
	}
	first := slowest * r.log.Poll()
	for pause := first; ; {
		err := r.log.Watch(ctx, r.at(), w)
		if ctx.Err() != nil {
			return
		}
		restored := (*appendlog.RestoredError)(nil)
		accepted := errors.Is(err, errAccepted)
		again := accepted || errors.As(err, &restored) || errors.Is(err, appendlog.ErrCompacted)
		if again {
			err = r.reload(ctx, restored, accepted)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			pause = first
			continue
		}
		r.o.Failed(err)
		if !rest(ctx, pause) {
			return
		}
		if again {
			pause = min(2*pause, max(slowestReload, first))
		}
	}
}

// rest waits, and reports whether ctx has not ended.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// at returns where the replica stands in the log.
func (r *Replica) at() appendlog.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return appendlog.Position(r.state.position)
}

// take applies an entry, unless it has been applied, and publishes the view that has it. The
// caller holds mu.
func (r *Replica) take(ctx context.Context, e appendlog.Entry) error {
	if e.Sequence <= r.state.position.Sequence {
		hash := appendlog.HashOf(e.Data)
		if known, ok := r.state.past.entry(e.Sequence); ok && known.hash != [16]byte(hash[:16]) {
			return fmt.Errorf("%w: entry %d is another one (%s) than was applied", appendlog.ErrForked, e.Sequence, hash.Short())
		}
		return nil
	}
	if c, _, _, err := decodeHeader(e.Data); err == nil && c.Accepted != nil && c.Writer != r.writer && c.Previous == r.state.position.Hash {
		return errAccepted
	}
	changes, err := applyFrom(ctx, r.bucket, r.state, e)
	if err != nil {
		return err
	}
	r.tail.entries++
	r.tail.bytes += int64(len(e.Data))
	r.see(e)
	r.tell(ctx, changes, r.View().Proof.next())
	return nil
}

// tell tells what has changed, and publishes the view that has it. The caller holds mu.
func (r *Replica) tell(ctx context.Context, changes []Change, proof *Proof) {
	r.o.Apply(r.state, changes)
	if err := r.publish(ctx, proof); err != nil {
		r.unpublished = true // until the next proof
		r.o.Failed(err)
	}
}

// publish remembers where the state is, and has queries see it. The caller holds mu.
func (r *Replica) publish(ctx context.Context, proof *Proof) error {
	s := r.state
	if s.position.Sequence > 0 {
		if err := r.keep(ctx, s); err != nil {
			return err
		}
	}
	r.unpublished = false
	view := &View{Position: s.position, Digest: s.Digest(), Down: s.down, Forgotten: s.gone, Lineage: s.lineage, Proof: proof}
	r.o.Published(view)
	if old := r.now.Swap(&published{view, make(chan struct{})}); old != nil {
		close(old.next)
	}
	return nil
}

// proved notes that the log ended where the replica was, or further, at a moment after
// asked. What was applied since was not there then.
func (r *Replica) proved(ctx context.Context, asked time.Time) {
	at, err := r.renew(ctx, asked)
	if err != nil {
		r.o.Failed(err)
		return
	}
	r.o.Proved(at, asked)
}

func (r *Replica) renew(ctx context.Context, asked time.Time) (Position, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unpublished {
		if err := r.publish(ctx, r.View().Proof.next()); err != nil {
			return Position{}, err
		}
	}
	view := r.View()
	view.Proof.renew(asked)
	return view.Position, nil
}

// reload reads the log anew: entries are gone that a checkpoint sums up, or a person has
// accepted another log, or, as accepted says, this one.
func (r *Replica) reload(ctx context.Context, restored *appendlog.RestoredError, accepted bool) error {
	l, err := load(ctx, r.log, r.bucket, loading{keyless: r.o.WithoutKey})
	if err != nil {
		return fmt.Errorf("read the live log again: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.state
	proof := r.View().Proof.next()
	if l.state.position.Log > old.position.Log {
		if !accepted {
			proof = &Proof{}
		}
	} else if _, err := l.state.reaches(old.position); err != nil || restored != nil {
		return fmt.Errorf("read the live log again: %w", errors.Join(err, asError(restored)))
	}
	for _, two := range [][2]*State{{old, l.state}, {l.state, old}} {
		if two[0].key == nil {
			continue
		}
		if err := two[1].SetKey(two[0].key.key); err != nil {
			return fmt.Errorf("read the live log again: %w", err)
		}
	}
	changes := difference(old, l.state)
	r.state, r.tail = l.state, l.tail
	r.tell(ctx, changes, proof)
	return nil
}

// asError returns e as an error, nil if it is.
func asError(e *appendlog.RestoredError) error {
	if e == nil {
		return nil
	}
	return e
}
