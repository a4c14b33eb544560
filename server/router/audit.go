package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// NotAuditedError says that no node takes the audit of a shard.
type NotAuditedError struct {
	Of remote.ShardID
	// Nodes are those that could be asked for the shard, and do not audit.
	Nodes []string
}

// Error implements error.
func (e *NotAuditedError) Error() string {
	if len(e.Nodes) == 0 {
		return fmt.Sprintf("no node that audits is ready for %s", e.Of)
	}
	return fmt.Sprintf("no node audits %s: not %.300s, where --audit-cpu is 0, or the build cannot", e.Of, strings.Join(e.Nodes, ", "))
}

// GoneError says that no node has a shard at the position of an audit any more.
type GoneError struct {
	Of remote.ShardID
	At shard.Position
}

// Error implements error.
func (e *GoneError) Error() string {
	return fmt.Sprintf("no node has %s at position %s of the live log any more", e.Of, e.At)
}

// Audit returns the answer to a query that a tower of a [Layer] was asked, as exact scans find it,
// and how much time of a processor those took on nodes. The query asks for the exact scan.
//
// Which replica scans a shard is drawn at random, so that what one of them has wrong is not left to
// itself to judge. One that refuses, or fails, is followed by others. Nothing is asked twice at a
// time, and none of it counts in what the router knows of how nodes answer: scans take as long as
// the budgets of nodes have it.
//
// The error is the context's, a [*NotAuditedError], a [*GoneError], or that of the replica that
// was asked last.
func (r *Router) Audit(ctx context.Context, t *shard.Tower, q *shard.Query) (answer *shard.Answer, used time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, remote.AuditTime)
	defer cancel()
	run := &auditing{end: cancel}
	parts := make([]shard.Part, len(t.Parts()))
	for i, p := range t.Parts() {
		asked, ok := p.(*part)
		if !ok {
			return nil, 0, fmt.Errorf("audit: part %s is of no node", p.Info().Name)
		}
		parts[i] = &auditedPart{asked, run}
	}
	exact, err := t.With(parts, nil, t.Refused())
	if err != nil {
		return nil, 0, err
	}
	answer, err = exact.Search(ctx, q)
	return answer, run.used, cmp.Or(run.err, err) // all parts have ended
}

// auditing is what is known of an audit under way.
type auditing struct {
	end context.CancelFunc

	mu   sync.Mutex
	used time.Duration // of processors of nodes
	err  error         // of the first part that could not be scanned
}

// failed ends an audit for an error: all parts are needed.
func (a *auditing) failed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = cmp.Or(a.err, err)
	a.end()
}

func (a *auditing) spend(used time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used += used
}

// auditedPart is a part that is scanned for an audit.
type auditedPart struct {
	*part
	run *auditing
}

// Search implements [shard.Part].
func (p *auditedPart) Search(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	err := p.scan(ctx, r, reply)
	if err != nil {
		p.run.failed(err)
	}
	return err
}

// scan asks replicas until one has answered.
func (p *auditedPart) scan(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	at, err := p.moment(r.Moment)
	if err != nil {
		return err
	}
	asked := *r
	asked.Moment = at
	list, err := p.auditors()
	if err != nil {
		return err
	}
	for _, one := range list[:min(len(list), maxTries)] {
		var used time.Duration
		used, err = one.node.Audit(ctx, p.of, &asked, p.names, reply)
		p.run.spend(used)
		if err == nil || !retryable(ctx, err) {
			return err
		}
	}
	if refused, ok := errors.AsType[*remote.Refusal](err); ok && refused.Reason == remote.PositionGone {
		return &GoneError{p.of, p.at}
	}
	return err
}

// auditors returns the replicas that take an audit at the position of the part, in random order.
func (p *auditedPart) auditors() ([]*peer, error) {
	var list []*peer
	var without []string
	gone := false
	for _, one := range *p.now.Load() {
		switch {
		case one.spare || one.late || one.isOut():
		case !one.audits:
			without = append(without, one.address)
		case one.has(p.at):
			list = append(list, one.peer)
		default:
			gone = gone || one.log != p.at.Log || p.at.Sequence < one.oldest
		}
	}
	switch {
	case len(list) > 0:
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		return list, nil
	case gone:
		return nil, &GoneError{p.of, p.at}
	}
	slices.Sort(without)
	return nil, &NotAuditedError{p.of, without}
}
