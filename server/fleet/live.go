package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
)

// comparePoll is how often servers are asked again where they are at different positions.
const comparePoll = 100 * time.Millisecond

// LiveAnswer is what one server says of the live log.
type LiveAnswer struct {
	Server Server
	Status *tandemv1.GetLiveStatusResponse // nil if there is an error
	Err    error                           // why it has said nothing, as that of [Answer]
}

// Position returns where in the log the server is.
func (a *LiveAnswer) Position() shard.Position { return wire.Position(a.Status.GetPosition()) }

// AskLive asks all servers at once what they know of the live log, and returns their answers
// in the order of the servers. One that has not answered within 5 seconds is not waited for.
func (f *Fleet) AskLive(ctx context.Context) []LiveAnswer {
	return each(f, func(s Server) LiveAnswer { return f.askLive(ctx, s) })
}

func (f *Fleet) askLive(ctx context.Context, s Server) LiveAnswer {
	client := tandemv1connect.NewLiveServiceClient(f.HTTP, s.URL, Bounded())
	status, err := bounded(ctx, answerTimeout, client.GetLiveStatus, &tandemv1.GetLiveStatusRequest{})
	return LiveAnswer{Server: s, Status: status, Err: err}
}

// ProofAnswer is what one server says of whether it can return apps.
type ProofAnswer struct {
	Server Server
	Proof  *tandemv1.ProveResponse // nil if there is an error
	Err    error                   // why it has said nothing, as that of [Answer]
}

// Prove asks all servers at once whether they can return apps, and returns their answers in
// the order of the servers. Each has some time to reach the position that the request demands,
// and to answer.
func (f *Fleet) Prove(ctx context.Context, request *tandemv1.ProveRequest, limit time.Duration) []ProofAnswer {
	return each(f, func(s Server) ProofAnswer {
		proof, err := bounded(ctx, limit, tandemv1connect.NewLiveServiceClient(f.HTTP, s.URL, Bounded()).Prove, request)
		if err == nil && len(proof.Apps) != len(request.Apps) {
			proof, err = nil, fmt.Errorf("it answers for %d apps, %d were asked about", len(proof.Apps), len(request.Apps))
		}
		return ProofAnswer{Server: s, Proof: proof, Err: err}
	})
}

// LiveUnconfirmedError says that not every server has read the live log up to a position.
// What is written up to it is written all the same.
type LiveUnconfirmedError struct {
	Position shard.Position
	Took     time.Duration // how long they were waited for
	Servers  []Unconfirmed // at least one
}

// Error implements [error]. It names the servers, and not what each of them does.
func (e *LiveUnconfirmedError) Error() string {
	return unconfirmed("position "+e.Position.String(), e.Servers, e.Took)
}

// AwaitedLive is a position that servers are to reach.
type AwaitedLive struct {
	Position shard.Position
	// Includes returns an error unless the log of the store has an entry of that hash, in
	// hexadecimal digits, at a position: a server is believed of hashes, not of numbers, which
	// are used again in a store that was restored from a copy.
	Includes func(ctx context.Context, at shard.Position, hash string) error
}

// AwaitLive waits until every server has read the live log up to a position. The error is a
// [*LiveUnconfirmedError], when ctx ends, or as soon as one of them never will.
func (f *Fleet) AwaitLive(ctx context.Context, a AwaitedLive) error {
	start := time.Now()
	silent := f.await(ctx, func(ctx context.Context, s Server) (bool, error) {
		w := liveWaiter{fleet: f, server: s, AwaitedLive: a}
		reached, err := w.await(ctx)
		if !reached && err == nil {
			return false, w.late()
		}
		return err != nil, err
	})
	if len(silent) > 0 {
		return &LiveUnconfirmedError{Position: a.Position, Took: time.Since(start), Servers: silent}
	}
	return nil
}

// liveWaiter waits for one server.
type liveWaiter struct {
	fleet  *Fleet
	server Server
	AwaitedLive

	said   LiveAnswer // what it said last
	silent error      // why it does not answer now
	broken time.Time  // since when it says that it does not follow the log
	looked time.Time  // when the log was last asked whether it has the server's entry
	why    error      // why it has not
}

// await returns true when the server is at the position or behind it, false when ctx ends
// before, and an error if it never will be.
func (w *liveWaiter) await(ctx context.Context) (bool, error) {
	for {
		a := w.fleet.askLive(ctx, w.server)
		switch {
		case a.Err == nil:
			w.said, w.silent = a, nil
		case connect.CodeOf(a.Err) == connect.CodeUnimplemented:
			return false, &NoLiveError{a.Err}
		case ctx.Err() == nil:
			w.silent = a.Err
		case w.said.Status == nil && w.silent == nil:
			w.silent = errors.New("no answer yet")
		}
		if a.Err == nil {
			if reached, err := w.judge(ctx); reached || err != nil {
				return reached, err
			}
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(statusPoll):
		}
	}
}

// judge returns whether the server is where it should be, or an error if it never will be.
func (w *liveWaiter) judge(ctx context.Context) (bool, error) {
	is := w.said.Position()
	if is.Log > w.Position.Log {
		return false, &OtherLogError{is}
	}
	if is.Compare(w.Position) >= 0 && time.Since(w.looked) >= logPoll {
		if w.why = w.Includes(ctx, is, w.said.Status.Hash); w.why == nil {
			return true, nil
		}
		w.looked = time.Now()
	}
	err := followingLive(w.said.Status)
	if err == nil {
		w.broken = time.Time{}
		return false, nil
	}
	if w.broken.IsZero() {
		w.broken = time.Now()
	}
	if time.Since(w.broken) >= brokenFor {
		return false, err
	}
	return false, nil
}

// late says where the server is instead.
func (w *liveWaiter) late() error {
	if w.silent != nil {
		return fmt.Errorf("it does not answer: %w", w.silent)
	}
	err := fmt.Errorf("it is at position %s, %s", w.said.Position(), proved(w.said.Status))
	if apart := followingLive(w.said.Status); apart != nil {
		return fmt.Errorf("%w; %w", err, apart)
	}
	if unread := w.said.Unread(); unread != nil {
		err = fmt.Errorf("%w; %w", err, unread)
	}
	if w.why != nil && w.said.Position().Compare(w.Position) >= 0 {
		err = fmt.Errorf("%w; %w", err, w.why)
	}
	return err
}

// proved says how old a server's proof is that the log ends where it is.
func proved(s *tandemv1.GetLiveStatusResponse) string {
	if s.GetStaleness() == nil {
		return "not proved to be the last"
	}
	is := Staleness(s.Staleness)
	if is == unknown {
		return "not proved to be the last"
	}
	return fmt.Sprintf("proved to be the last %s ago", age(is))
}

// NoLiveError says that a server follows no live log: it is of an earlier version.
type NoLiveError struct{ Err error }

// Error implements [error].
func (e *NoLiveError) Error() string {
	return fmt.Sprintf("it follows no live log, since it is of an earlier version: %v", e.Err)
}

// Unwrap returns what it has answered.
func (e *NoLiveError) Unwrap() error { return e.Err }

// OtherLogError says that a server follows a log which a person has accepted later than the
// one in question.
type OtherLogError struct{ Position shard.Position }

// Error implements [error].
func (e *OtherLogError) Error() string {
	return fmt.Sprintf("it is at position %s of a log that was accepted later", e.Position)
}

// LiveNotFollowingError says that the live log of the store does not go on from the one that
// a server has followed, so that nothing new reaches it.
type LiveNotFollowingError struct {
	Log string // what the server says of the log
}

// Error implements [error].
func (e *LiveNotFollowingError) Error() string {
	return "it does not follow the live log of the store: " + e.Log
}

// followingLive returns a [*LiveNotFollowingError] if a server does not follow the live log.
func followingLive(s *tandemv1.GetLiveStatusResponse) error {
	switch s.GetLogState() {
	case tandemv1.LogState_LOG_STATE_FORKED, tandemv1.LogState_LOG_STATE_BEHIND, tandemv1.LogState_LOG_STATE_GAP:
		return &LiveNotFollowingError{s.GetLogError()}
	}
	return nil
}

// Unread returns why a server could not read the log when it looked last, nil if it could.
// That alone is no fault, until its proof is older than its fence.
func (a *LiveAnswer) Unread() error {
	if a.Status.GetLogState() != tandemv1.LogState_LOG_STATE_UNREAD {
		return nil
	}
	return errors.New("its last look at the live log failed: " + a.Status.GetLogError())
}

// FenceError says that a server's proof of where the live log ends is older than its fence.
type FenceError struct {
	Age, Fence time.Duration
	Answers    bool // whether it answers all the same, and says so in its answers
}

// Error implements [error].
func (e *FenceError) Error() string {
	does := "refuses queries"
	if e.Answers {
		does = "marks its answers as stale"
	}
	if e.Age == unknown {
		return fmt.Sprintf("it has no proof of where the live log ends whose age it can tell, and its fence is %s: it %s", e.Fence, does)
	}
	return fmt.Sprintf("its last proof of where the live log ends is %s old, beyond its fence of %s: it %s", age(e.Age), e.Fence, does)
}

// faults returns what is wrong with what one server says, whatever others say.
func (a *LiveAnswer) faults() (list []error) {
	if a.Status == nil {
		return nil
	}
	if err := followingLive(a.Status); err != nil {
		list = append(list, err)
	}
	age, fence := Staleness(a.Status.Staleness), a.Status.Fence.AsDuration()
	switch {
	case a.Status.Staleness == nil:
		list = append(list, errors.New("it follows no live log"))
	case fence > 0 && age > fence:
		list = append(list, &FenceError{age, fence, a.Status.AnswersStale})
	}
	return list
}

// DifferError says that a server has something else than others at a position: its entry is
// another one, so that it follows another log, or what all events amount to is.
type DifferError struct {
	Is, Other LiveKnown
	Names     []string // of all who have what the other has
}

// Error implements [error].
func (e *DifferError) Error() string {
	names := strings.Join(e.Names, ", ")
	if e.Is.Hash != e.Other.Hash {
		return fmt.Sprintf("its entry of position %s is another one (%.12s) than that of %s (%.12s)", e.Is.Position, e.Is.Hash, names, e.Other.Hash)
	}
	return fmt.Sprintf("at position %s its digest is %.12s, that of %s is %.12s", e.Is.Position, e.Is.Digest, names, e.Other.Digest)
}

// BehindError says that a server has not come to a position at which another one is.
type BehindError struct {
	Is, Other shard.Position
	Name      string        // of the other
	Waited    time.Duration // how long it was waited for
}

// Error implements [error].
func (e *BehindError) Error() string {
	return fmt.Sprintf("it is at position %s, and was not at %s, where %s is, after %s", e.Is, e.Other, e.Name, age(e.Waited))
}

// LiveKnown is what somebody has found the events up to a position to amount to.
type LiveKnown struct {
	Name     string // by which people know who it was
	Position shard.Position
	Hash     string // of the entry there, in hexadecimal digits; empty before the first
	Digest   string
}

// same reports whether two have found the same.
func (k LiveKnown) same(o LiveKnown) bool { return k.Hash == o.Hash && k.Digest == o.Digest }

// LiveComparison is what servers say of the live log, and what is wrong with it.
type LiveComparison struct {
	Answers []LiveAnswer // the last of each server, in the order of the servers
	Faults  [][]error    // of each, in their order
}

// CompareLive asks all servers what they know of the live log, again and again until all are
// at one position, which takes a moment where somebody writes, but for no longer than settle.
// It compares what they have said at the same positions, with that of others and with truth,
// which somebody has found who has read the log, or is nil. And it finds who has not come to
// where another was at first. A server that does not answer has no faults.
func (f *Fleet) CompareLive(ctx context.Context, settle time.Duration, truth *LiveKnown) *LiveComparison {
	var far LiveKnown // who was farthest when all were asked first
	if truth != nil {
		far = *truth
	}
	said := map[shard.Position][]LiveKnown{} // by each server once
	start := time.Now()
	c := &LiveComparison{}
	for round := 0; ; round++ {
		c.Answers = f.AskLive(ctx)
		at := map[shard.Position]bool{}
		if truth != nil {
			at[truth.Position] = true
		}
		for i := range c.Answers {
			a := &c.Answers[i]
			if a.Status == nil {
				continue
			}
			k := LiveKnown{a.Server.Name, a.Position(), a.Status.Hash, a.Status.Digest}
			at[k.Position] = true
			if !slices.ContainsFunc(said[k.Position], func(o LiveKnown) bool { return o.Name == k.Name }) {
				said[k.Position] = append(said[k.Position], k)
			}
			if round == 0 && far.Position.Compare(k.Position) < 0 {
				far = k
			}
		}
		if len(at) < 2 || time.Since(start) >= settle || !pause(ctx, comparePoll) {
			break
		}
	}
	for i := range c.Answers {
		a := &c.Answers[i]
		list := a.faults()
		if a.Status != nil {
			if is := a.Position(); is.Compare(far.Position) < 0 {
				list = append(list, &BehindError{is, far.Position, far.Name, time.Since(start)})
			}
			if err := differing(a.Server.Name, said, truth); err != nil {
				list = append(list, err)
			}
		}
		c.Faults = append(c.Faults, list)
	}
	return c
}

// pause waits for some time, and returns false if ctx ends before.
func pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// differing returns a [*DifferError] if a server has said something else at some position than
// the truth, or else than most who have said something: of the first such position. Where as
// many say one thing as another, each of them differs.
func differing(name string, said map[shard.Position][]LiveKnown, truth *LiveKnown) error {
	positions := slices.SortedFunc(maps.Keys(said), shard.Position.Compare)
	for _, p := range positions {
		i := slices.IndexFunc(said[p], func(k LiveKnown) bool { return k.Name == name })
		if i < 0 {
			continue
		}
		is := said[p][i]
		if truth != nil && truth.Position == p {
			if !is.same(*truth) {
				return &DifferError{is, *truth, []string{truth.Name}}
			}
			continue
		}
		own, most := alike(said[p], is), []LiveKnown(nil)
		for _, k := range said[p] {
			if other := alike(said[p], k); !k.same(is) && len(other) > len(most) {
				most = other
			}
		}
		if len(most) >= len(own) {
			names := make([]string, len(most))
			for i, k := range most {
				names[i] = k.Name
			}
			return &DifferError{is, most[0], names}
		}
	}
	return nil
}

// alike returns those who have said the same as one of them.
func alike(list []LiveKnown, as LiveKnown) (out []LiveKnown) {
	for _, k := range list {
		if k.same(as) {
			out = append(out, k)
		}
	}
	return out
}
