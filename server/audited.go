package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/release"
)

// Audit says how the recall of live queries is audited.
type Audit struct {
	// CPU is the share of one processor that audits may take, up to 1: of a server that of its own;
	// of a router that of all nodes together, for its audits; of a node its own for those of all
	// routers. Default: 0, no audits.
	CPU float64
	// Author is who rolls back where a release says that servers do.
	Author string
	// Recorded, if set, is called with each audit. It must not wait.
	Recorded func(audit.Audit)
}

// followRecall has a service audit, if it is to. The caller runs what it returns.
func (s *Service) followRecall(c *Config) *audit.Auditor {
	if c.Audit.CPU <= 0 {
		return nil
	}
	o := audit.Config{CPU: min(c.Audit.CPU, 1), Events: s.events, Author: c.Audit.Author, Recorded: c.Audit.Recorded}
	if s.router != nil {
		o.Exact = s.exactElsewhere
	}
	if c.Snapshot == "" {
		o.Releases = release.New(c.Store)
	}
	s.audits = audit.New(o)
	return s.audits
}

// exactElsewhere is an [audit.Exact] of nodes.
func (s *Service) exactElsewhere(ctx context.Context, t *shard.Tower, q *shard.Query) (*shard.Answer, time.Duration, error) {
	exact, used, err := s.router.Audit(ctx, t, q)
	refused, _ := errors.AsType[*remote.Refusal](err)
	_, gone := errors.AsType[*router.GoneError](err)
	switch {
	case gone, errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%w: %w", audit.ErrLate, err)
	case refused != nil && (refused.Reason == remote.Overloaded || refused.Reason == remote.Stopping):
		err = fmt.Errorf("%w: %w", audit.ErrBusy, err)
	}
	return exact, used, err
}

// Audits returns what audits, nil if nothing does.
func (s *Service) Audits() *audit.Auditor { return s.audits }

// audit has the arms of a state audited once they answer, in place of those before.
func (s *Service) audit(next *state) {
	if s.audits == nil {
		return
	}
	if next == nil {
		s.audits.Serve(nil, false)
		return
	}
	served := make([]audit.Served, len(next.arms))
	for i := range next.arms {
		a := &next.arms[i]
		served[i] = audit.Served{
			Generation: a.generation, Name: a.name, Snapshot: a.snapshot.Digest(), Manifest: a.snapshot.Manifest(),
			Idle: a.weight == 0, Floor: a.floor,
		}
	}
	for i, arm := range s.audits.Serve(served, next.autoRollback) {
		next.arms[i].audited = arm
	}
}

// Hold implements [audit.Holder].
func (s *serving) Hold() bool { return s.acquire() }

// Release implements [audit.Holder].
func (s *serving) Release() { s.release() }

// offer offers an answer to be audited.
func (p *pinned) offer(q *query, found *shard.Answer) {
	p.audited.Offer(audit.Answered{Tower: q.tower, Query: &q.Query, Found: found, Holder: p.serving})
}

// recallStatus says what audits know of an arm; nil if it is not audited.
func recallStatus(a *audit.Auditor, arm *audit.Arm) *tandemv1.ArmRecall {
	strata := arm.Look()
	if len(strata) == 0 {
		return nil
	}
	out := &tandemv1.ArmRecall{Rollback: a.Rollback()}
	for i := range strata {
		s := stratumStatus(&strata[i])
		switch strata[i].Kind {
		case audit.All:
			out.All = s
		case audit.Plan:
			out.Plans = append(out.Plans, s)
		case audit.Segment:
			out.Segments = append(out.Segments, s)
		case audit.Ef:
			out.Ef = s
		case audit.Node:
			out.Nodes = append(out.Nodes, s)
		}
	}
	if err := arm.Failure(); err != nil {
		out.Failure = shortText(err.Error())
	}
	return out
}

func stratumStatus(s *audit.Stratum) *tandemv1.RecallStratum {
	out := &tandemv1.RecallStratum{
		Name: s.Name, Audits: uint32(min(s.Audits, math.MaxUint32)), AuditsTotal: s.Total, EnoughData: s.Enough,
		Recall: s.Recall, WorstDecile: s.WorstDecile, Reference: s.Reference, Low: s.Low, High: s.High, Floor: s.Floor,
	}
	if s.Audits > 0 {
		out.Since = timestamppb.New(s.Since)
	}
	if s.Alarm != nil {
		out.Alarm = &tandemv1.RecallAlarm{
			Since: timestamppb.New(s.Alarm.Since), Onset: timestamppb.New(s.Alarm.Onset), Why: s.Alarm.String(),
		}
	}
	return out
}
