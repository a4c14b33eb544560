package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/release"
)

const (
	// statusPoll is how often a server is asked what it serves while one waits for it.
	statusPoll = 50 * time.Millisecond
	// logPoll is how often the log is asked then.
	logPoll = time.Second
	// brokenFor is how long a server must say that it does not follow the log of the store
	// for that to be final: longer than it rests between two looks.
	brokenFor = 10 * time.Second
)

// Log tells of the log of releases, as [release.Releases] does.
type Log interface {
	// Includes returns an error unless the log has a release, and behind it, or as it, the
	// entry of another generation and hash.
	Includes(ctx context.Context, r *release.Release, generation uint64, hash appendlog.Hash) error
}

// Awaited is a release that servers are to serve.
type Awaited struct {
	*release.Release
	Releases Log // of the store that they follow
	// Accepted says that the release accepts the log as it is, so that a server that does
	// not follow it will.
	Accepted bool
}

// UnconfirmedError says that not every server serves a release. The release is written all
// the same.
type UnconfirmedError struct {
	Generation uint64
	Took       time.Duration // how long they were waited for
	Servers    []Unconfirmed // at least one
}

// Unconfirmed is a server that does not serve a release.
type Unconfirmed struct {
	Server Server
	Never  bool  // whether it never will, however long one waits
	Err    error // what it does instead
}

// Error implements [error]. It names the servers, and not what each of them does.
func (e *UnconfirmedError) Error() string {
	return unconfirmed(fmt.Sprintf("generation %d", e.Generation), e.Servers, e.Took)
}

// unconfirmed says that servers do not have what is written, without what each does instead.
func unconfirmed(what string, servers []Unconfirmed, took time.Duration) string {
	names := make([]string, len(servers))
	for i, s := range servers {
		names[i] = s.Server.Name
	}
	return fmt.Sprintf("%s is written, not confirmed by %s after %s", what, strings.Join(names, ", "), took.Round(time.Millisecond))
}

// Await waits until every server serves a release, or one that was appended behind it. The
// error is an [*UnconfirmedError], when ctx ends, or as soon as one of them never will.
func (f *Fleet) Await(ctx context.Context, r Awaited) error {
	start := time.Now()
	silent := f.await(ctx, func(ctx context.Context, s Server) (bool, error) {
		w := waiter{fleet: f, server: s, Awaited: r}
		served, err := w.await(ctx)
		if !served && err == nil {
			return false, w.late()
		}
		return err != nil, err
	})
	if len(silent) > 0 {
		return &UnconfirmedError{Generation: r.Generation, Took: time.Since(start), Servers: silent}
	}
	return nil
}

// await waits for all servers at once, for each by wait, and returns those that are not as
// they should be, and why: when wait's context ends, which is soon after one never will be.
func (f *Fleet) await(ctx context.Context, wait func(context.Context, Server) (never bool, err error)) (silent []Unconfirmed) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, u := range each(f, func(s Server) Unconfirmed {
		never, err := wait(ctx, s)
		if never {
			cancel()
		}
		return Unconfirmed{s, never, err}
	}) {
		if u.Err != nil {
			silent = append(silent, u)
		}
	}
	return silent
}

// waiter waits for one server.
type waiter struct {
	fleet  *Fleet
	server Server
	Awaited

	said   Answer    // what it said last
	silent error     // why it does not answer now
	broken time.Time // since when it says that it does not follow the log
	looked time.Time // when the log was last asked whether what it serves follows the release
	why    error     // why that is not so
}

// await returns true when the server serves the release or what came after it, false when
// ctx ends before, and an error if it never will.
func (w *waiter) await(ctx context.Context) (bool, error) {
	for {
		a := w.fleet.ask(ctx, w.server)
		switch {
		case a.Err == nil:
			w.said, w.silent = a, nil
		case ctx.Err() == nil:
			w.silent = a.Err
		case w.said.Status == nil && w.silent == nil:
			w.silent = errors.New("no answer yet")
		}
		if a.Err == nil {
			if served, err := w.judge(ctx); served || err != nil {
				return served, err
			}
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(statusPoll):
		}
	}
}

// judge returns whether what the server has said is enough, or an error if it never will
// be.
func (w *waiter) judge(ctx context.Context) (bool, error) {
	s := w.said.Status
	switch {
	case s.Unreleased:
		return false, w.other()
	case s.Hash == w.Hash.String():
		return true, nil
	case s.Hash == "" && s.Generation >= w.Generation:
		return false, w.other()
	}
	if s.Generation > w.Generation && time.Since(w.looked) >= logPoll {
		var hash appendlog.Hash
		if err := hash.UnmarshalText([]byte(s.Hash)); err != nil {
			return false, err
		}
		if w.why = w.Releases.Includes(ctx, w.Release, s.Generation, hash); w.why == nil {
			return true, nil
		}
		w.looked = time.Now()
	}
	err := following(s)
	if err == nil || w.Accepted {
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

// other says what the server has said that it serves.
func (w *waiter) other() error { return &OtherError{w.said.Status, w.Generation, w.Hash} }

// late says what the server does instead.
func (w *waiter) late() error {
	if w.silent != nil {
		return fmt.Errorf("it does not answer: %w", w.silent)
	}
	err := w.other()
	if apart := following(w.said.Status); apart != nil {
		return fmt.Errorf("%w; %w", err, apart)
	}
	err = fmt.Errorf("%w, %s", err, w.said.Phase())
	if text := w.said.Status.Error; text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	if unread := w.said.Unread(); unread != nil {
		err = fmt.Errorf("%w; %w", err, unread)
	}
	if w.why != nil && w.said.Status.Generation > w.Generation {
		err = fmt.Errorf("%w; %w", err, w.why)
	}
	return err
}
