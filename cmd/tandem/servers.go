package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/release"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

const (
	// answerTimeout is how long a server may take to say what it serves.
	answerTimeout = 5 * time.Second
	// statusPoll is how often a server is asked what it serves while one waits for it.
	statusPoll = 50 * time.Millisecond
	// logPoll is how often the log is asked then.
	logPoll = time.Second
	// brokenFor is how long a server must say that it does not follow the log of the store
	// for that to be final: longer than it rests between two looks.
	brokenFor = 10 * time.Second
	// restoredHint is how to go on where servers do not follow the log.
	restoredHint = "if the store was restored on purpose, release again with --restored"
)

// serverFlags name servers that follow the releases.
type serverFlags struct {
	Server []string `sep:"none" placeholder:"HOST:PORT" help:"Server that follows the store, by its address or its URL. May be repeated."`
}

// check returns an error unless every server is named as it can be.
func (f *serverFlags) check() error {
	for _, address := range f.Server {
		if _, err := serverURL(address); err != nil {
			return err
		}
	}
	return nil
}

// serverInfo is what one server says of itself.
type serverInfo struct {
	Server string                      `json:"server"`
	Error  string                      `json:"error,omitempty"`  // why it has said nothing
	Status *tandemv1.GetStatusResponse `json:"status,omitempty"` // nil then
	// Faults are what is wrong with what it serves, or with what it knows.
	Faults []string `json:"faults,omitempty"`
}

// serverStatus asks a server what it serves.
func serverStatus(ctx context.Context, address string) (*tandemv1.GetStatusResponse, error) {
	base, err := serverURL(address)
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer, err := tandemv1connect.NewAdminServiceClient(http.DefaultClient, base).GetStatus(asking, connect.NewRequest(&tandemv1.GetStatusRequest{}))
	if err != nil && ctx.Err() == nil && errors.Is(asking.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("no answer within %s", answerTimeout)
	}
	if r := refusalOf(err); r != nil {
		r.inLine = true
		return nil, r
	}
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// statuses asks all servers at once.
func (f *serverFlags) statuses(ctx context.Context) []serverInfo {
	list := make([]serverInfo, len(f.Server))
	var asking sync.WaitGroup
	for i, address := range f.Server {
		asking.Go(func() {
			s, err := serverStatus(ctx, address)
			if list[i] = (serverInfo{Server: address, Status: s}); err != nil {
				list[i].Error = err.Error()
			}
		})
	}
	asking.Wait()
	return list
}

// judge finds what is wrong with a server where the entry of a generation and a hash was
// released last; nothing was if generation is 0. What it knows may be of an age.
func (s *serverInfo) judge(generation uint64, hash appendlog.Hash, maxStaleness time.Duration) {
	if s.Status == nil {
		return
	}
	unreleased := s.Status.Unreleased || s.Status.Generation == 0 && len(s.Status.Arms) > 0 // as earlier versions say it
	fault := func(format string, args ...any) { s.Faults = append(s.Faults, fmt.Sprintf(format, args...)) }
	switch {
	case unreleased:
		fault("%s", otherThan(s.Status, generation, hash))
	case generation == 0 && s.Status.Generation != 0:
		fault("it serves generation %d, and nothing is released", s.Status.Generation)
	case generation == 0 || s.Status.Hash == hash.String():
	default:
		fault("%s", otherThan(s.Status, generation, hash))
	}
	if brokenLog(s.Status) {
		fault("%s", notFollowing(s.Status))
	} else if s.Status.Error != "" {
		fault("%s", s.Status.Error)
	}
	if age := s.Status.GetStaleness().AsDuration(); age > maxStaleness {
		fault("it has not seen for %s what is released", seconds(age))
	}
}

// unread says why a server could not read the log when it looked last; empty if it could.
func unread(s *tandemv1.GetStatusResponse) string {
	if s.GetLogState() != tandemv1.LogState_LOG_STATE_UNREAD {
		return ""
	}
	return "its last look at the log failed: " + s.GetLogError()
}

// otherThan says what a server serves instead of the entry of a generation and a hash.
func otherThan(s *tandemv1.GetStatusResponse, generation uint64, hash appendlog.Hash) string {
	switch {
	case s.Generation == 0 && len(s.Arms) == 0:
		return "it serves nothing yet"
	case s.Unreleased:
		which := "A SNAPSHOT"
		if len(s.Arms) > 0 {
			which = fmt.Sprintf("SNAPSHOT %.12s", s.Arms[0].Snapshot)
		}
		return fmt.Sprintf("IT SERVES %s WHATEVER IS RELEASED: nobody has asked what its gates have found, and no release takes its place", which)
	case s.Generation == 0:
		return "it serves a snapshot without a release"
	case s.Hash == "":
		return fmt.Sprintf("it serves generation %d and does not say which entry of the log that is: it is of an earlier version", s.Generation)
	case s.Generation == generation:
		return fmt.Sprintf("it serves another generation %d (%.12s) than is released (%s)", generation, s.Hash, hash.Short())
	}
	return fmt.Sprintf("it serves generation %d", s.Generation)
}

// brokenLog reports whether the log of the store does not go on from the one that a server
// has followed.
func brokenLog(s *tandemv1.GetStatusResponse) bool {
	switch s.LogState {
	case tandemv1.LogState_LOG_STATE_FORKED, tandemv1.LogState_LOG_STATE_BEHIND, tandemv1.LogState_LOG_STATE_GAP:
		return true
	}
	return false
}

func phaseName(s *tandemv1.GetStatusResponse) string {
	return strings.ToLower(strings.TrimPrefix(s.Phase.String(), "PHASE_"))
}

// await waits until every server serves a release, or one that was appended behind it. It
// ends early if one cannot. Accepted says that the release accepts the log as it is. The
// release is written whatever comes of it, and an error says so.
func (f *serverFlags) await(e *environment, releases *release.Releases, r *release.Release, accepted bool, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	start := time.Now()
	why := make([]string, len(f.Server)) // a server has not confirmed it
	var waiting sync.WaitGroup
	for i, address := range f.Server {
		waiting.Go(func() {
			w := awaited{address: address, releases: releases, release: r, accepted: accepted}
			served, err := w.await(ctx)
			switch {
			case err != nil:
				why[i] = "it never will: " + err.Error()
				cancel()
			case !served:
				why[i] = w.late()
			}
		})
	}
	waiting.Wait()
	took := time.Since(start).Round(time.Millisecond)
	var silent, lines []string
	for i, address := range f.Server {
		if why[i] != "" {
			silent = append(silent, address)
			lines = append(lines, fmt.Sprintf("\n  %s: %s", address, why[i]))
		}
	}
	if len(silent) > 0 {
		text := fmt.Sprintf("generation %d is written, not confirmed by %s after %s", r.Generation, strings.Join(silent, ", "), took)
		if e.ctx.Err() != nil {
			text += ", when it was interrupted"
		}
		return errors.New(text + strings.Join(lines, ""))
	}
	fmt.Fprintf(e.stderr, "%s generation %d after %s\n", plural(int64(len(f.Server)), "server")+" serving", r.Generation, took)
	return nil
}

// awaited is a server that is to serve a release.
type awaited struct {
	address  string
	releases *release.Releases
	release  *release.Release
	accepted bool

	status *tandemv1.GetStatusResponse // what it said last
	silent error                       // why it does not answer now
	broken time.Time                   // since when it says that it does not follow the log
	looked time.Time                   // when the log was last asked whether what it serves follows the release
	why    error                       // why that is not so
}

// await returns true when the server serves the release or what came after it, false when
// ctx ends before, and an error if it never will.
func (w *awaited) await(ctx context.Context) (bool, error) {
	for {
		s, err := serverStatus(ctx, w.address)
		switch {
		case err == nil:
			w.status, w.silent = s, nil
		case ctx.Err() == nil:
			w.silent = err
		case w.status == nil && w.silent == nil:
			w.silent = errors.New("no answer yet")
		}
		if err == nil {
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
func (w *awaited) judge(ctx context.Context) (bool, error) {
	s, r := w.status, w.release
	switch {
	case s.Unreleased:
		return false, errors.New(otherThan(s, r.Generation, r.Hash))
	case s.Hash == r.Hash.String():
		return true, nil
	case s.Hash == "" && s.Generation >= r.Generation:
		return false, errors.New(otherThan(s, r.Generation, r.Hash))
	}
	if s.Generation > r.Generation && time.Since(w.looked) >= logPoll {
		var hash appendlog.Hash
		if err := hash.UnmarshalText([]byte(s.Hash)); err != nil {
			return false, err
		}
		if w.why = w.releases.Includes(ctx, r, s.Generation, hash); w.why == nil {
			return true, nil
		}
		w.looked = time.Now()
	}
	if !brokenLog(s) || w.accepted {
		w.broken = time.Time{}
		return false, nil
	}
	if w.broken.IsZero() {
		w.broken = time.Now()
	}
	if time.Since(w.broken) >= brokenFor {
		return false, errors.New(notFollowing(s))
	}
	return false, nil
}

// late says what the server does instead.
func (w *awaited) late() string {
	if w.silent != nil {
		return "it does not answer: " + w.silent.Error()
	}
	text := otherThan(w.status, w.release.Generation, w.release.Hash)
	if brokenLog(w.status) {
		return text + "; " + notFollowing(w.status)
	}
	if text += ", " + phaseName(w.status); w.status.Error != "" {
		text += ": " + w.status.Error
	}
	if why := unread(w.status); why != "" {
		text += "; " + why
	}
	if w.why != nil && w.status.Generation > w.release.Generation {
		text += "; " + w.why.Error()
	}
	return text
}

// notFollowing says why a server does not follow the log, and how to go on.
func notFollowing(s *tandemv1.GetStatusResponse) string {
	return fmt.Sprintf("it does not follow the log of the store: %s; %s", s.LogError, restoredHint)
}
