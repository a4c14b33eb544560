package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/shard/release"
)

// How long a server may be silent that is asked of releases and snapshots. Both are longer than
// its own deadline of requests is by default.
const (
	readPatience   = 15 * time.Second
	workPatience   = time.Minute // for what may wait for the store, or open snapshots
	silentPatience = waitQuiet   // until people are told that such work is waited for
)

// patient bounds how long a server is waited for, says on w which work of it is waited for, and
// names it if it does not answer.
func patient(server string, w io.Writer) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			spec, limit := request.Spec(), readPatience
			if spec.IdempotencyLevel != connect.IdempotencyNoSideEffects || spec.Procedure == tandemv1connect.ReleaseServiceDiffSnapshotsProcedure {
				limit = workPatience
				defer telling(silentPatience, func() {
					fmt.Fprintf(w, "waiting for server %.200s, which may take up to %s (%s)\n", release.Escape(server), limit, path.Base(spec.Procedure))
				})()
			}
			asking, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			answer, err := next(asking, request)
			if err != nil && ctx.Err() == nil && errors.Is(asking.Err(), context.DeadlineExceeded) && !connect.IsWireError(err) {
				err = connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("server %.200s has not answered within %s", release.Escape(server), limit))
			}
			return answer, err
		}
	}
}

// telling calls tell after a while, unless what it returns is called first, which returns once
// nothing is told any more.
func telling(after time.Duration, tell func()) (stop func()) {
	told := make(chan struct{})
	timer := time.AfterFunc(after, func() {
		defer close(told)
		tell()
	})
	return func() {
		if !timer.Stop() {
			<-told
		}
	}
}
