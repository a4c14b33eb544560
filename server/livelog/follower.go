package livelog

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects"
)

// ErrUnread is the class of every error that says that the log was not read yet.
var ErrUnread = errors.New("the live log is not read yet")

const (
	// A log that could not be read at the start is tried again after firstRetry, and then
	// twice as long each time, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = 10 * time.Second
	// unreadEvery is how often it is told at most that the store does not answer, and
	// misfitsEvery that something does not fit, and fullEvery that there is no room.
	unreadEvery  = 30 * time.Second
	misfitsEvery = 10 * time.Second
	fullEvery    = time.Minute
	// tick is how often the age of the proof is compared with the fence for those who watch
	// health, and mendEvery how often a layer is made anew that could not be gone on with.
	tick      = 250 * time.Millisecond
	mendEvery = 2 * time.Second
	// hedgeShare is which part of the fence a look is waited for before another is made beside
	// it, so that one which hangs, and the one after it, leave time for a proof.
	hedgeShare = 3
)

// Options say how the log is followed. Fence must be set; of others the zero value is none,
// or the default of package live.
type Options struct {
	Fence       time.Duration // beyond which answers are refused
	AnswerStale bool          // or, if this is set, flagged
	Writes      bool          // whether [Follower.Append] may be called
	Poll        time.Duration
	Memory      appendlog.Memory // empty: none
	// Reached is a position that a person says the log has reached, as ReachedFrom names it: see
	// [live.Options].
	Reached     shard.Position
	ReachedFrom string
	// AtLeast returns a position that the log must have reached, and by what that is known.
	AtLeast func(context.Context) (shard.Position, string, error)
	Accept  *shard.Position // accepts the log as it is, at this position
	Room    live.Room       // for what is upserted
	// Check returns why an event is not to be written; see [live.Options].
	Check func(*live.Event) error
	// Viewed, if set, is called with each view of the log, before anybody else has it.
	Viewed func(*live.View)
	// Unfenced is for a node of a cluster, which answers at the positions that it is asked at:
	// its routers have the fence.
	Unfenced bool
	// Changed is called when [Follower.Refuses] may have changed.
	Changed func()
	// Published is called when layers have got another position, or could not go on. It must
	// not call the follower. Default: nobody is told.
	Published func()
	Events    *events.Listener
}

// Follower follows the live log of one store, and lays it over snapshots. Its methods may be
// called from any number of goroutines; those that need the log fail with [ErrUnread] before
// Open has returned.
type Follower struct {
	bucket  *objects.Bucket
	o       Options
	replica atomic.Pointer[live.Replica] // nil before it is read

	mu     sync.Mutex // held while layers are changed, within the lock of the replica
	layers map[layer]struct{}

	told  state
	fresh fresh
	log   string        // the id of the log; guarded by mu
	first chan struct{} // is closed with the first proof
	once  sync.Once
}

// state is what is known of the log that is there, and what was told of it.
type state struct {
	mu     sync.Mutex
	log    tandemv1.LogState
	failed error     // why the last look proved nothing
	unread bool      // whether it was told that the store does not answer, since the last proof
	at     time.Time // when it was last
	full   time.Time // when it was told last that there is no room
}

// New returns what follows the live log in a bucket once it is opened.
func New(bucket *objects.Bucket, o Options) *Follower {
	o.Room.Bytes, o.Room.Rows = cmp.Or(o.Room.Bytes, live.DefaultRoomBytes), cmp.Or(o.Room.Rows, live.DefaultRoomRows)
	if o.Published == nil {
		o.Published = func() {}
	}
	return &Follower{bucket: bucket, o: o, layers: map[layer]struct{}{}, first: make(chan struct{})}
}

// Open reads the log to its end. It tries until ctx ends, but for a log that must not be
// followed: that error is of class [live.ErrTimeTravel], or a [*live.UnnamedLogError].
func (f *Follower) Open(ctx context.Context) error {
	start := time.Now()
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		r, err := f.open(ctx)
		switch {
		case err == nil:
			f.replica.Store(r)
			f.told.proved()
			r.Read(func(s *live.State) {
				if err := s.Passed(); err != nil {
					f.o.Events.Live(events.Live{Change: events.LivePassed, Err: err})
				}
			})
			at := r.View().Position
			f.o.Events.Live(events.Live{Change: events.LiveRead, Log: at.Log, Sequence: at.Sequence, Took: time.Since(start), NoTimeTravel: f.Vouched()})
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, live.ErrTimeTravel), errors.As(err, new(*live.UnnamedLogError)):
			return err
		}
		f.told.fail(err)
		f.o.Events.Live(events.Live{Change: events.LiveNotRead, Err: err, Retry: retry})
		timer := time.NewTimer(retry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// open reads the log to its end.
func (f *Follower) open(ctx context.Context) (*live.Replica, error) {
	atLeast, from, err := f.o.AtLeast(ctx)
	if err != nil {
		return nil, err
	}
	return live.Open(ctx, f.bucket, live.Options{
		Poll: f.o.Poll, Hedge: f.o.Fence / hedgeShare, Check: f.o.Check, Memory: f.o.Memory, Room: f.o.Room,
		AtLeast: live.Position{Log: atLeast.Log, Sequence: atLeast.Sequence}, AtLeastFrom: from, Accept: f.o.Accept,
		Reached: f.o.Reached, ReachedFrom: f.o.ReachedFrom,
		Apply: f.applied, Published: f.published, Failed: f.failed, Proved: f.proved,
		Summed: func(s live.Summed) {
			f.o.Events.Live(events.Live{Change: events.LiveCheckpoint, Sequence: s.Sequence, Bytes: s.Bytes, Took: s.Took, Err: s.Err})
		},
	})
}

// Run follows the log, and writes what is appended, until ctx ends. It is called once Open
// has returned nil.
func (f *Follower) Run(ctx context.Context) {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { f.watch(watching) })
	err := f.replica.Load().Run(ctx)
	stop()
	watch.Wait()
	if ctx.Err() == nil {
		f.told.fail(err)
		f.o.Events.Live(events.Live{Change: events.LiveUnfollowed, Err: err})
	}
}

// Await waits for the first proof that the log ends where it was read to, for which Run must
// be running. The error is that of ctx.
func (f *Follower) Await(ctx context.Context) error {
	select {
	case <-f.first:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Fence returns how old a proof may be.
func (f *Follower) Fence() time.Duration { return f.o.Fence }

// AnswersStale reports whether answers beyond the fence are flagged, and not refused.
func (f *Follower) AnswersStale() bool { return f.o.AnswerStale }

// Writes reports whether the log is written to.
func (f *Follower) Writes() bool { return f.o.Writes }

// Memory returns the file that remembers how far the log of this store was read; empty if none
// does.
func (f *Follower) Memory() string {
	if len(f.o.Memory) == 0 {
		return ""
	}
	return f.o.Memory[0]
}

// IsRead reports whether Open has returned.
func (f *Follower) IsRead() bool { return f.replica.Load() != nil }

// Position returns the position that the log was read to, the zero position before it was.
func (f *Follower) Position() shard.Position {
	if r := f.replica.Load(); r != nil {
		return r.View().Position.Shard()
	}
	return shard.Position{}
}

// Entry returns the position that the log was read to, with the hash of the entry there, and false
// before it was read.
func (f *Follower) Entry() (live.Position, bool) {
	if r := f.replica.Load(); r != nil {
		return r.View().Position, true
	}
	return live.Position{}, false
}

// Forgotten returns the users who are forgotten, as far as the log was read; nobody before it
// was.
func (f *Follower) Forgotten() live.Forgotten {
	if r := f.replica.Load(); r != nil {
		return r.View().Forgotten
	}
	return live.Forgotten{}
}

// Age returns how old the last proof is, 0 before the log was read.
func (f *Follower) Age() time.Duration {
	if r := f.replica.Load(); r != nil {
		return r.View().Proof.Age()
	}
	return 0
}

// Refuses reports whether queries are refused now, because the proof is older than the fence.
func (f *Follower) Refuses() bool { return !f.o.AnswerStale && f.Age() > f.o.Fence }

// Vouched says by what it is known that the log is no older copy, such as the memory of an
// earlier position; empty for nothing.
func (f *Follower) Vouched() string {
	r := f.replica.Load()
	if r == nil {
		return ""
	}
	return r.Vouched()
}

// State returns what the last look at the log has found, and why if that is not the log that
// is followed.
func (f *Follower) State() (tandemv1.LogState, error) {
	f.told.mu.Lock()
	defer f.told.mu.Unlock()
	return f.told.log, f.told.failed
}

// Wait waits until the log was read up to a position. The error is that of ctx, or of class
// [live.ErrOtherLog] if it is a position of another log.
func (f *Follower) Wait(ctx context.Context, p shard.Position) error {
	r := f.replica.Load()
	if r == nil {
		return ErrUnread
	}
	return r.Wait(ctx, p)
}

// Append appends events; see [live.Replica.Append].
func (f *Follower) Append(ctx context.Context, list []live.Event) (live.Receipt, error) {
	r := f.replica.Load()
	if r == nil {
		return live.Receipt{}, ErrUnread
	}
	return r.Append(ctx, list)
}

// Full tells that an upsert was refused for want of room.
func (f *Follower) Full(err error) {
	f.told.mu.Lock()
	tell := objects.Elapsed(f.told.full) >= fullEvery
	if tell {
		f.told.full = time.Now()
	}
	f.told.mu.Unlock()
	if tell {
		f.o.Events.Live(events.Live{Change: events.LiveFull, Err: err})
	}
}

// Room returns what there is room for, of what is upserted, and how many bytes that has.
func (f *Follower) Room() (room live.Room, used int64) {
	room = f.o.Room
	if r := f.replica.Load(); r != nil {
		r.Read(func(s *live.State) { used = s.Bytes() })
	}
	return room, used
}

// Pending returns what was upserted for model versions of which none of some layers is.
func (f *Follower) Pending(layers []Over) []live.Pending {
	r := f.replica.Load()
	if r == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(f.fresh.get(r)), func(p live.Pending) bool {
		return slices.ContainsFunc(layers, func(l Over) bool {
			s := l.Shape()
			return s.Model == p.Model && s.ModelVersion == p.ModelVersion
		})
	})
}

// freshShare is how much longer than it takes what is upserted stays counted: the log is not
// followed meanwhile.
const freshShare = 50

// fresh is what was upserted, as it was counted last.
type fresh struct {
	mu    sync.Mutex
	list  []live.Pending
	until time.Time // when it is to be counted again
}

// get counts what was upserted, unless that was done lately. The list does not change.
func (c *fresh) get(r *live.Replica) []live.Pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	if start := time.Now(); start.After(c.until) {
		r.Read(func(s *live.State) { c.list = s.Fresh() })
		now := time.Now()
		c.until = now.Add(freshShare * now.Sub(start))
	}
	return c.list
}

// proved notes that a look has found the log that is followed.
func (f *Follower) proved(live.Position, time.Time) {
	f.once.Do(func() { close(f.first) })
	was, unread := f.told.proved()
	switch {
	case Broken(was):
		f.o.Events.Live(events.Live{Change: events.LiveMended})
	case unread:
		f.o.Events.Live(events.Live{Change: events.LiveReadable})
	}
}

func (s *state) proved() (was tandemv1.LogState, unread bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, unread = s.log, s.unread
	s.log, s.failed, s.unread = tandemv1.LogState_LOG_STATE_FOLLOWED, nil, false
	return was, unread
}

// failed notes why a look proved nothing.
func (f *Follower) failed(err error) {
	switch change := f.told.fail(err); change {
	case events.LiveUnreadable, events.LiveBroken:
		f.o.Events.Live(events.Live{Change: change, Err: err})
	}
}

// fail returns what is to be told, 0 for nothing. A look that could not be made takes back
// nothing of what an earlier one has found; one that has found something damaged does.
func (s *state) fail(err error) events.LiveChange {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, now := s.log, StateOf(err)
	if now == tandemv1.LogState_LOG_STATE_UNREAD && Broken(was) && !errors.Is(err, live.ErrDamaged) {
		return 0
	}
	s.log, s.failed = now, err
	switch {
	case now == was:
	case Broken(now):
		return events.LiveBroken
	case objects.Elapsed(s.at) >= unreadEvery:
		s.at, s.unread = time.Now(), true
		return events.LiveUnreadable
	}
	return 0
}

// unproved is the age of a proof that there is not.
const unproved = time.Duration(math.MaxInt64)

// watch tells when the age of the proof crosses the fence, and mends layers, until ctx ends.
func (f *Follower) watch(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	past, told, next, longest := false, false, f.o.Fence, time.Duration(0)
	for mended := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if objects.Elapsed(mended) >= mendEvery {
			mended = time.Now()
			if f.broken() {
				f.mend()
			}
			f.trim()
		}
		age := f.Age()
		switch {
		case age == unproved: // why it is not read yet is told
		case age > next:
			_, failed := f.State()
			f.o.Events.Live(events.Live{Change: events.LivePast, Staleness: age, Err: failed, Refused: !f.o.AnswerStale, Unfenced: f.o.Unfenced})
			next, told = max(2*next, unreadEvery), true
		case age <= f.o.Fence && told:
			f.o.Events.Live(events.Live{Change: events.LiveWithin, Staleness: longest})
			next, longest, told = f.o.Fence, 0, false
		}
		if age != unproved {
			longest = max(longest, age)
		}
		if now := age > f.o.Fence; now != past {
			past = now
			f.o.Changed()
		}
	}
}

// Poll returns how long it waits between two looks.
func (f *Follower) Poll() time.Duration { return live.Log(f.bucket, f.o.Poll).Poll() }
