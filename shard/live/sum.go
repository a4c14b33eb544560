package live

import (
	"context"
	"fmt"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

// A checkpoint is due when what is behind the last is this much, so that a process that
// starts need not read more, and a log that grows is summed up seldom.
const (
	tailEntries = 4096
	tailBytes   = 16 << 20 // and half of the last checkpoint
)

func (t *tail) due() bool {
	return t.damaged > 0 || t.entries >= tailEntries || t.bytes >= max(tailBytes, t.checkpoint/2)
}

// sums writes checkpoints that are due, until ctx ends.
func (r *Replica) sums(ctx context.Context) {
	for {
		select {
		case <-r.due:
		case <-ctx.Done():
			return
		}
		begun := time.Now()
		s, err := r.sumIfDue(ctx)
		if ctx.Err() != nil || s.Sequence == 0 && err == nil {
			continue
		}
		s.Took, s.Err = time.Since(begun), err
		r.o.Summed(s)
		if err != nil && !rest(ctx, time.Minute) {
			return
		}
	}
}

// sumIfDue writes a checkpoint unless another process has.
func (r *Replica) sumIfDue(ctx context.Context) (Summed, error) {
	list, err := r.log.Checkpoints(ctx)
	if err != nil {
		return Summed{}, err
	}
	due := false
	r.mu.Lock()
	if at := r.state.position.Sequence; len(list) > 0 {
		if last := list[len(list)-1]; last.Sequence > r.tail.damaged && last.Sequence <= at && at-last.Sequence < uint64(r.tail.entries) {
			r.tail = r.tail.after(int(at-last.Sequence), last.Size)
		}
	}
	due = r.tail.due()
	r.mu.Unlock()
	if !due {
		return Summed{}, nil
	}
	return r.sum(ctx)
}

// after returns what is behind a later checkpoint that so many entries follow.
func (t tail) after(entries int, checkpoint int64) tail {
	return tail{checkpoint: checkpoint, entries: entries, bytes: t.bytes * int64(entries) / int64(max(t.entries, 1))}
}

// Checkpoint writes a checkpoint of the log as it is known, and returns its position. Where
// there is no entry it writes none. Run writes them by itself, when they are due.
func (r *Replica) Checkpoint(ctx context.Context) (shard.Position, error) {
	s, err := r.sum(ctx)
	if err != nil {
		return shard.Position{}, fmt.Errorf("checkpoint of the live log: %w", err)
	}
	return shard.Position{Log: s.log, Sequence: s.Sequence}, nil
}

func (r *Replica) sum(ctx context.Context) (Summed, error) {
	if r.o.WithoutKey {
		return Summed{}, errWithoutKey
	}
	r.summing.Lock()
	defer r.summing.Unlock()
	r.mu.Lock()
	f, before := r.state.freeze(), r.tail
	r.mu.Unlock()
	if f.position.Sequence == 0 {
		return Summed{}, nil
	}
	done := Summed{Sequence: f.position.Sequence, log: f.position.Log}
	if f.position.Sequence <= before.damaged {
		return done, fmt.Errorf("%s, of entry %d: %w: another can be written once an entry follows", names.CheckpointKey(before.damaged), before.damaged, ErrDamaged)
	}
	data, err := f.encode()
	if err != nil {
		return done, err
	}
	done.Bytes = len(data)
	if err := r.log.Sum(ctx, f.position.Sequence, data); err != nil {
		return done, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.position.Log == f.position.Log && r.tail.entries >= before.entries {
		r.tail = tail{checkpoint: int64(len(data)), entries: r.tail.entries - before.entries, bytes: r.tail.bytes - before.bytes}
	}
	return done, nil
}

// Trim deletes the entries that a checkpoint sums up which is older than a duration, by the
// store's clock, but for the last of them, and older checkpoints: whoever was cut off for
// less reads on. The duration is [appendlog.LeastAge] at least. Nothing is deleted if that
// checkpoint is damaged.
func (r *Replica) Trim(ctx context.Context, older time.Duration) (appendlog.Trimmed, error) {
	return r.log.Trim(ctx, older, false)
}

// Trimmable says what Trim would delete.
func (r *Replica) Trimmable(ctx context.Context, older time.Duration) (appendlog.Trimmed, error) {
	return r.log.Trim(ctx, older, true)
}
