package live

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

// Accept has the log of the store, which is another one than was followed, such as a copy
// that was restored, be the one that counts: a new log goes on from where it ends, and all
// who follow the store follow that. A person decides so, and says why. Common is the last
// entry that is known to be in both; if it is the largest number, all are taken to be.
// Inputs of snapshots that reflect later entries of the log that is left are taken for older
// than what follows.
//
// Where entries were passed over ([Options].PassGaps), of which none is in both, a checkpoint
// sums up what there is without them, so that everyone reads it so. After an error of that the
// log still has the gap, and Accept can be called again on another replica that passes over it.
func (r *Replica) Accept(ctx context.Context, reason string, common uint64) (shard.Position, error) {
	p, err := r.accept(ctx, reason, common)
	if err == nil && len(r.lost) > 0 {
		if _, err = r.sum(ctx); err != nil {
			err = fmt.Errorf("it could not be summed up without what is missing, and is not read until it is accepted again: %w", err)
		}
	}
	if err != nil {
		return shard.Position{}, fmt.Errorf("accept the live log: %w", err)
	}
	return p, nil
}

func (r *Replica) accept(ctx context.Context, reason string, common uint64) (shard.Position, error) {
	if err := checkText("reason", reason, MaxReason); err != nil {
		return shard.Position{}, err
	}
	if len(r.lost) > 0 {
		if r.o.WithoutKey { // what there is without them could not be summed up
			return shard.Position{}, errWithoutKey
		}
		common = min(common, r.lost[0].From-1)
	}
	r.committing.Lock()
	defer r.committing.Unlock()
	r.mu.Lock()
	after := r.state.position
	now := r.clock()
	r.mu.Unlock()
	c := Commit{
		Previous: after.Hash, Log: now.Format("20060102T150405.000Z") + "-" + newID()[:16], Time: now,
		Author: r.o.Author, Writer: r.writer, Accepted: &Accepted{reason, min(common, after.Sequence)},
	}
	_, _ = rand.Read(c.nonce[:]) // it never fails
	if c.Log <= after.Log {
		return shard.Position{}, fmt.Errorf("the clock of this machine says %s, before log %.80q began", now.Format(time.RFC3339), after.Log)
	}
	data, err := c.encode()
	if err != nil {
		return shard.Position{}, err
	}
	extend := func() error { return r.log.Extend(ctx, appendlog.Position(after), time.Time{}, data, 0) }
	if err := r.bucket.Spend(extend); err != nil {
		if errors.Is(err, appendlog.ErrConflict) || appendlog.IsBroken(err) {
			return shard.Position{}, err
		}
		return shard.Position{}, fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.take(ctx, appendlog.Entry{Sequence: after.Sequence + 1, Data: data}); err != nil {
		return shard.Position{}, fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	return r.state.position.Shard(), nil
}
