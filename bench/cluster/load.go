package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
)

// mostUnderWay bounds what waits for answers; more count as failed.
const mostUnderWay = 2000

// sender asks routers at times that are drawn beforehand.
type sender struct {
	o         *Options
	site      *Site
	oracle    *Oracle
	registers *registers
	tally     *tally
	alone     bool         // the server that has all shards is asked instead of routers
	writing   sync.RWMutex // held by all who write; locked, nobody does
}

// run asks until ctx ends, and waits for all answers.
func (s *sender) run(ctx context.Context, seed uint64) {
	random := rand.New(rand.NewPCG(s.o.Seed, seed))
	users := rand.NewZipf(random, s.o.Skew, 1, uint64(len(s.oracle.Users)-1))
	room := make(chan struct{}, mostUnderWay)
	var asking sync.WaitGroup
	defer asking.Wait()
	for at := time.Now(); ; {
		at = at.Add(time.Duration(random.ExpFloat64() / s.o.Rate * float64(time.Second)))
		if rest(ctx, time.Until(at)) != nil {
			return
		}
		q, user, draw := s.oracle.Questions[random.IntN(len(s.oracle.Questions))], int(users.Uint64()), random.Uint64()
		due := at
		select {
		case room <- struct{}{}:
			asking.Go(func() {
				defer func() { <-room }()
				s.one(due, q, user, draw)
			})
		default:
			s.tally.failed(due, time.Now(), "unsent", "too many queries wait for answers", noExcuse)
		}
	}
}

// router returns a router that may be asked, which those that know what is ready would take.
func (s *sender) router(draw uint64) *routing {
	if s.alone {
		return s.site.alone
	}
	list := make([]*routing, 0, MaxRouters)
	for _, r := range s.site.routers {
		if !r.out.Load() {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[draw%uint64(len(list))]
}

// one asks one query that is due at a time, and judges the answer.
func (s *sender) one(due time.Time, q question, user int, draw uint64) {
	s.tally.lag(time.Since(due))
	r := s.router(draw)
	if r == nil {
		s.tally.failed(due, time.Now(), "no router", "all routers are restarted", noExcuse)
		return
	}
	ctx, cancel := context.WithDeadline(context.Background(), due.Add(s.o.Deadline))
	defer cancel()
	process, full := r.asked.Load(), r.full.Load()
	before := process.newest.Load()
	a, err := process.retrieval.Retrieve(ctx, connect.NewRequest(q.request(s.oracle.Users[user])))
	came := time.Now()
	if err != nil {
		reason := codeOf(err)
		text := fmt.Sprintf("%s %s", due.Format(time.TimeOnly), r.name)
		if process.older {
			text += " of the older program"
		}
		s.tally.failed(due, came, reason, fmt.Sprintf("%s: after %s: %v", text, came.Sub(due).Round(time.Millisecond), err), r.excuse(process, full, reason))
		return
	}
	at := wire.Position(a.Msg.Live)
	found, text := s.oracle.judge(a.Msg, q, user, came, s.registers, s.o.Fence+s.o.Deadline)
	if found == right && before != nil && at.Compare(*before) < 0 {
		found, text = older, fmt.Sprintf("it has answered from position %s before", before)
	}
	if found != right {
		text = fmt.Sprintf("%s, %s, user %s, snapshot %.12s, generation %d, position %s: %s", r.name, q, s.oracle.Users[user], a.Msg.Snapshot, a.Msg.Generation, at, text)
	}
	process.answered(at)
	s.tally.answered(due, came, found, text, len(a.Msg.Candidates))
}

// excuse returns why a query that a router was asked may have failed: full is whether its disk
// was when it was asked.
func (r *routing) excuse(process *clients, full bool, reason string) excuse {
	switch {
	case process.killed.Load() && reason == strings.ToLower(reason): // it has not given any itself
		return wasKilled
	case full || r.full.Load():
		return fullDisk
	}
	return noExcuse
}

// answered notes that the process has answered from a position.
func (c *clients) answered(at shard.Position) {
	for {
		before := c.newest.Load()
		if before != nil && at.Compare(*before) <= 0 || c.newest.CompareAndSwap(before, &at) {
			return
		}
	}
}

// codeOf names why a query failed: the reason, or else the code.
func codeOf(err error) string {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return "connection"
	}
	for _, d := range coded.Details() {
		if v, err := d.Value(); err == nil {
			if info, ok := v.(*errdetails.ErrorInfo); ok {
				return info.Reason
			}
		}
	}
	return coded.Code().String()
}

const (
	// registered is how many apps are taken down and restored, and writers who does that.
	registered = 16
	writers    = 2
	// writePause is the mean time between two writes of a writer.
	writePause = 400 * time.Millisecond
)

// write takes apps down and restores them until ctx ends: those whose number modulo the writers
// is the writer's. Each write is sent again, under its id, until it is acknowledged.
func (s *sender) write(ctx context.Context, writer int) {
	random := rand.New(rand.NewPCG(s.o.Seed, 1000+uint64(writer)))
	down := map[int32]bool{}
	for n := 0; ; n++ {
		if rest(ctx, time.Duration(random.ExpFloat64()*float64(writePause))) != nil {
			return
		}
		app := int32(random.IntN(registered/writers)*writers + writer)
		down[app] = !down[app]
		event := &tandemv1.LiveEvent{EventId: fmt.Sprintf("w%d-%d-%d", s.o.Seed, writer, n)}
		if down[app] {
			event.Change = &tandemv1.LiveEvent_Takedown{Takedown: &tandemv1.Takedown{App: s.oracle.apps[app], Reason: "a measurement"}}
		} else {
			event.Change = &tandemv1.LiveEvent_Restore{Restore: &tandemv1.Restore{App: s.oracle.apps[app]}}
		}
		w := s.registers.issue(app, down[app], time.Now())
		for !s.writeOnce(ctx, w, event, random) {
			if rest(ctx, 50*time.Millisecond) != nil {
				return
			}
		}
	}
}

// writeOnce sends a write to one of the servers, and reports whether it was acknowledged.
func (s *sender) writeOnce(ctx context.Context, w *write, event *tandemv1.LiveEvent, random *rand.Rand) bool {
	s.writing.RLock()
	defer s.writing.RUnlock()
	to := s.site.alone
	if r := s.router(random.Uint64()); r != nil && random.IntN(2) == 0 {
		to = r
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Deadline)
	defer cancel()
	a, err := to.asked.Load().live.Write(ctx, connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{event}, Author: "tandem bench cluster"}))
	if err != nil {
		s.registers.retried()
		return false
	}
	s.registers.ack(w, wire.Position(a.Msg.Position).Sequence, time.Now())
	return true
}
