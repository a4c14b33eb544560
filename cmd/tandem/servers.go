package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/wording"
)

// serverFlags name servers that follow the releases.
type serverFlags struct {
	clientFlags
	Server []string `sep:"none" variable:"TANDEM_SERVER" placeholder:"HOST:PORT" help:"Server that follows the store, by its address or its URL. May be repeated."`
}

// fleet returns the servers, or an error if one is not named as it can be.
func (f *serverFlags) fleet() (*fleet.Fleet, error) {
	client, err := f.client(0)
	if err != nil {
		return nil, err
	}
	all := &fleet.Fleet{HTTP: client}
	for _, name := range f.Server {
		url, err := f.url(name)
		if err != nil {
			return nil, err
		}
		all.Servers = append(all.Servers, fleet.Server{Name: name, URL: url})
	}
	return all, nil
}

// serverInfo is what one server says of itself, for people and as JSON.
type serverInfo struct {
	Server string                      `json:"server"`
	Error  string                      `json:"error,omitempty"`  // why it has said nothing
	Status *tandemv1.GetStatusResponse `json:"status,omitempty"` // nil then
	// Faults are what is wrong with what it serves, or with what it knows.
	Faults []string `json:"faults,omitempty"`
	// Live is where in the live log it is; nil if it does not say.
	Live *serverLive `json:"live,omitempty"`

	phase  string
	unread error // why its last look at the log failed
}

// serverLive is where in the live log a server is, for people and as JSON.
type serverLive struct {
	Position  shard.Position `json:"position"`
	Staleness *float64       `json:"staleness_seconds,omitempty"` // of the proof that the log ends there
}

// newServerLive returns where in the live log a server says that it is, nil if it does not.
func newServerLive(a *fleet.LiveAnswer) *serverLive {
	if a.Status == nil {
		return nil
	}
	l := &serverLive{Position: a.Position()}
	if s := a.Status.Staleness; s != nil {
		age := fleet.Staleness(s).Seconds()
		l.Staleness = &age
	}
	return l
}

func (l *serverLive) String() string {
	switch {
	case l == nil:
		return "-"
	case l.Staleness == nil:
		return l.Position.String() + ", not proved"
	}
	return fmt.Sprintf("%s, %s", l.Position, agoText(secondsOf(*l.Staleness)))
}

// newServerInfo returns what a server says where the entry of a generation and a hash was
// released last; what it knows may be of an age.
func newServerInfo(a fleet.Answer, generation uint64, hash appendlog.Hash, maxStaleness time.Duration) serverInfo {
	info := serverInfo{Server: a.Server.Name, Status: a.Status, phase: a.Phase(), unread: a.Unread()}
	if a.Err != nil {
		info.Error = ofServer(a.Err)
	}
	for _, fault := range a.Faults(generation, hash, maxStaleness) {
		info.Faults = append(info.Faults, ofServer(fault))
	}
	return info
}

// ofServer is the text of an error of a server, in one line with what its answer says for
// programs, and with how to go on.
func ofServer(err error) string {
	text := bounded(err.Error())
	if r := refusalOf(err); r != nil {
		text += r.inLine()
	}
	if errors.As(err, new(*fleet.NotFollowingError)) {
		text += "; if the store was restored on purpose, release again with --restored"
	}
	if errors.As(err, new(*fleet.LiveNotFollowingError)) {
		text += "; if the store was restored on purpose, tandem live accept makes its log the one that counts"
	}
	return text
}

// await waits for some time until every server serves a release, and tells people when.
func (f *serverFlags) await(e *environment, r fleet.Awaited, limit time.Duration) error {
	servers, err := f.fleet()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	start := time.Now()
	err = servers.Await(ctx, r)
	if silent := (*fleet.UnconfirmedError)(nil); errors.As(err, &silent) {
		return unconfirmedBy(silent.Error(), silent.Servers, e.ctx.Err() != nil)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "%s serving generation %d after %s\n", wording.Plural(len(f.Server), "server"), r.Generation, time.Since(start).Round(time.Millisecond))
	return nil
}

// unconfirmedBy says which servers do not have what is written, and a line for each why.
func unconfirmedBy(text string, servers []fleet.Unconfirmed, interrupted bool) error {
	if interrupted {
		text += ", when it was interrupted"
	}
	for _, s := range servers {
		text += fmt.Sprintf("\n  %s: ", s.Server.Name)
		if s.Never {
			text += "it never will: "
		}
		text += ofServer(s.Err)
	}
	return errors.New(text)
}

// secondsOf is the opposite of [time.Duration.Seconds]. What is too long for a duration is the
// longest one.
func secondsOf(s float64) time.Duration {
	if ns := s * float64(time.Second); ns < math.MaxInt64 {
		return time.Duration(ns)
	}
	return math.MaxInt64
}
