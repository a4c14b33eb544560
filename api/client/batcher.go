package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// batcher collects calls of Retrieve that are made at the same time.
type batcher struct {
	client *Client

	mu   sync.Mutex
	open *batch // nil if none is
}

// batch is calls that are made as one.
type batch struct {
	requests []*tandemv1.RetrieveRequest
	waiting  []chan Result
	ctx      context.Context // of all its calls: it has the values of the first one's, and the earliest deadline
	cancel   context.CancelFunc
	left     int // how many of its callers have not given up
	end      time.Time
	timer    *time.Timer
}

// retrieve adds a call to a batch and waits for its result. It takes none that had better go alone.
func (b *batcher) retrieve(ctx context.Context, r *tandemv1.RetrieveRequest) (answer *tandemv1.RetrieveResponse, taken bool, err error) {
	o := &b.client.options
	now := time.Now()
	end, ok := ctx.Deadline()
	if !ok {
		end = now.Add(o.deadline)
	}
	remains := end.Sub(now)
	if remains < 2*o.batchWait || ctx.Err() != nil || ctx.Value(requestIDKey{}) != nil && r.GetRequestId() == "" {
		return nil, false, nil
	}
	// The batch may still be sent when the caller has given up, and has its request back.
	own := proto.CloneOf(r)
	got := make(chan Result, 1)
	k := b.add(ctx, own, got, end, remains)
	if k == nil {
		return nil, false, nil
	}
	timer := time.NewTimer(remains)
	defer timer.Stop()
	var over error
	select {
	case result := <-got:
		if errors.Is(result.Err, AnswerTooLarge) || errors.Is(result.Err, MessageTooLarge) {
			return nil, false, nil // it may be no more than one call may have
		}
		return result.Response, true, result.Err
	case <-ctx.Done():
		over = ctx.Err()
	case <-timer.C:
		over = context.DeadlineExceeded
	}
	b.leave(k)
	return nil, true, errorOf(ctx, over, "")
}

// add puts a call into the open batch, or a new one; nil if it does not fit the open one.
func (b *batcher) add(ctx context.Context, r *tandemv1.RetrieveRequest, got chan Result, end time.Time, remains time.Duration) *batch {
	c, o := b.client, &b.client.options
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.open
	if k == nil {
		if !c.enter() {
			return nil
		}
		k = &batch{end: end}
		k.ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
		k.timer = time.AfterFunc(o.batchWait, func() { b.flush(k) })
		b.open = k
	} else if first := time.Until(k.end); remains > 2*first || 2*remains < first {
		return nil
	}
	k.end = earlier(k.end, end)
	k.requests = append(k.requests, r)
	k.waiting = append(k.waiting, got)
	k.left++
	if len(k.requests) >= o.batchSize {
		b.open = nil
		if k.timer.Stop() { // or else flush is about to send it
			go b.send(k)
		}
	}
	return k
}

// flush sends a batch whose time is over.
func (b *batcher) flush(k *batch) {
	b.mu.Lock()
	if b.open == k {
		b.open = nil
	}
	b.mu.Unlock()
	b.send(k)
}

// send makes the call, and hands out the results.
func (b *batcher) send(k *batch) {
	defer b.client.group.Done()
	defer k.cancel()
	ctx, cancel := context.WithDeadline(k.ctx, k.end)
	defer cancel()
	if len(k.requests) == 1 {
		answer, err := b.client.retrieve(ctx, k.requests[0])
		k.waiting[0] <- Result{answer, err}
		return
	}
	results, err := b.client.BatchRetrieve(ctx, k.requests)
	for i, got := range k.waiting {
		if err != nil {
			got <- Result{Err: err}
		} else {
			got <- results[i]
		}
	}
}

// leave counts a caller that has given up. A batch that nobody waits for ends.
func (b *batcher) leave(k *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k.left--; k.left == 0 && b.open != k {
		k.cancel()
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
