package objects

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"gocloud.dev/gcerrors"
)

const (
	// tries is how often a request is made before its error is returned.
	tries = 4
	// firstWait is how long is waited before the second try, three times as long before
	// each one after, and spread over a half so that many do not come at once.
	firstWait = 100 * time.Millisecond
	// slowest is the rate, in bytes a second, that a store is given time for.
	slowest = 256 << 10
)

// patience is how long a store is waited for.
type patience struct{ timeout time.Duration }

// silence is the error of a store that did not answer, or that no byte came from or was
// taken by, for so long.
type silence struct{ after time.Duration }

func (s silence) Error() string {
	return fmt.Sprintf("the store gave no answer, or none to rely on, for %s", s.after.Round(time.Millisecond))
}

// Timeout says that it is one, as a [net.Error] does.
func (s silence) Timeout() bool { return true }

// attempts makes a request that moves so many bytes until it succeeds, ctx ends, the
// error is none that another attempt could do without, or it has been made often
// enough. It returns how often it was made.
func (p patience) attempts(ctx context.Context, bytes int64, request func(context.Context) error) (int, error) {
	return p.retry(ctx, func() error {
		w := p.watch(ctx)
		defer w.stop()
		w.allow(bytes)
		return w.explain(request(w.ctx))
	})
}

// retry is attempts of a request that watches itself.
func (p patience) retry(ctx context.Context, request func() error) (int, error) {
	start := time.Now()
	for try, wait := 1, firstWait; ; try, wait = try+1, wait*3 {
		err := request()
		if err == nil || ctx.Err() == nil && !passing(err) {
			return try, err
		}
		if ctx.Err() == nil && try < tries {
			timer := time.NewTimer(wait/2 + rand.N(wait/2))
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
			}
		}
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			err = fmt.Errorf("%w; before: %w", ctx.Err(), err)
		}
		return try, fmt.Errorf("given up at try %d, after %s: %w", try, time.Since(start).Round(time.Millisecond), err)
	}
}

// passingCodes are those by which S3, or a server that keeps objects as files, says of
// a status that means a mistake otherwise that the request should be made again: two
// writes met and nothing was decided, or the request came too slowly, cut or damaged.
var passingCodes = []string{
	"ConditionalRequestConflict", "OperationAborted", "ExistingObjectIsDirectory",
	"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch",
}

// passing reports whether the same request may succeed soon. What is not known to be
// final may: a try in vain costs little.
func passing(err error) bool {
	if slices.Contains(passingCodes, codeOf(err)) {
		return true
	}
	if classOf(err) != nil {
		return false
	}
	if cut(err) {
		return true
	}
	switch gcerrors.Code(err) {
	case gcerrors.PermissionDenied, gcerrors.InvalidArgument, gcerrors.Unimplemented:
		return false
	}
	switch status := statusOf(err); status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	default:
		return status < 300 || status >= 500
	}
}

// watch ends a context when what it was allowed is over.
type watch struct {
	ctx      context.Context
	patience patience
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	allowed  time.Duration
}

// watch allows a request without a body from now on. It is for one goroutine.
func (p patience) watch(ctx context.Context) *watch {
	w := &watch{patience: p}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(p.timeout, w.end)
	w.allow(0)
	return w
}

// errSilent is the cause of the end of a watched context.
var errSilent = errors.New("the store was silent")

func (w *watch) end() { w.cancel(errSilent) }

// allow gives time for so many bytes from now on.
func (w *watch) allow(bytes int64) {
	w.timer.Stop()
	w.allowed = w.patience.timeout + time.Duration(max(bytes, 0)/slowest)*time.Second
	w.timer.Reset(w.allowed)
}

// pause gives time without end, until allow is called.
func (w *watch) pause() { w.timer.Stop() }

// explain returns why a request failed: the store's silence, if that ended it.
func (w *watch) explain(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errSilent) {
		return silence{w.allowed}
	}
	return err
}

// stop ends the context. What explain says does not change by it.
func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}
