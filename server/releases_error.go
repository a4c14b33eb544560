package server

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// What the metadata of the reasons of ReleaseService tell: see the contract.
const (
	metaGeneration = "generation"
	metaID         = "id"
	metaReadable   = "readable"
	metaSnapshot   = "snapshot"
	metaPrevious   = "previous"
	metaGate       = "gate"
	metaUnproved   = "unproved"
)

// changeError gives the error of a change that was not made, or of which that is not known,
// its code. ctx is what the change had.
func (d *releaseDesk) changeError(ctx context.Context, err error) error {
	unknown, isUnknown := errors.AsType[*release.UnknownError](err)
	switch {
	case isUnknown:
		out := errorf(connect.CodeUnavailable, reasonReleaseUnconfirmed, "%w", err)
		return withMetadata(out, map[string]string{metaGeneration: fmt.Sprint(unknown.Generation), metaID: unknown.ID})
	case errors.Is(err, objects.ErrNotDurable):
		return errorf(connect.CodeUnavailable, reasonReleaseUnconfirmed, "%w", err)
	case errors.Is(err, release.ErrConflict):
		return d.conflictError(ctx, err)
	case errors.Is(err, release.ErrGates):
		return gatesError(err)
	case ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded):
		return errorf(connect.CodeDeadlineExceeded, reasonDeadline, "the deadline passed, and nothing was written: %s", shortened(err.Error(), maxDescription))
	}
	return storeError(ctx, err)
}

// conflictError says which generation is there instead.
func (d *releaseDesk) conflictError(ctx context.Context, err error) error {
	out := errorf(connect.CodeAborted, reasonReleaseConflict, "%w", err)
	now, nowErr := d.releases.Current(ctx)
	unreadable, isUnreadable := errors.AsType[*release.UnreadableError](nowErr)
	switch {
	case nowErr == nil:
		return withMetadata(out, map[string]string{metaGeneration: fmt.Sprint(now.Generation)})
	case errors.Is(nowErr, release.ErrNone):
		return withMetadata(out, map[string]string{metaGeneration: "0"})
	case isUnreadable:
		return withMetadata(out, map[string]string{metaGeneration: fmt.Sprint(unreadable.Generation)})
	}
	return out // that there was another change is known all the same
}

// gatesError says which gate keeps which snapshot from getting traffic.
func gatesError(err error) error {
	meta := map[string]string{}
	if errors.Is(err, release.ErrUnproved) {
		meta[metaUnproved] = "true"
	}
	if failed, ok := errors.AsType[*gates.FailedError](err); ok {
		meta[metaGate], meta[metaSnapshot] = failed.Failed[0].Gate, string(failed.Snapshot)
		if failed.Previous != "" {
			meta[metaPrevious] = string(failed.Previous)
		}
	}
	return withMetadata(errorf(connect.CodeFailedPrecondition, reasonGates, "%w", err), meta)
}

// storeError gives the error of what was read of a store, or of a change that changed nothing,
// its code.
func storeError(ctx context.Context, err error) error {
	past, isPast := errors.AsType[*release.PastError](err)
	switch {
	case errors.As(err, new(*connect.Error)):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, release.ErrNone):
		return errorf(connect.CodeFailedPrecondition, reasonNoRelease, "%w", err)
	case errors.Is(err, release.ErrLost):
		return errorf(connect.CodeFailedPrecondition, reasonReleasesLost, "%w", err)
	case isPast:
		out := errorf(connect.CodeFailedPrecondition, reasonReleaseUnreadable, "%w", err)
		return withMetadata(out, map[string]string{metaReadable: fmt.Sprint(past.Readable)})
	case errors.Is(err, release.ErrChange):
		return errorf(connect.CodeFailedPrecondition, reasonChange, "%w", err)
	case errors.As(err, new(*release.UnreadableError)):
		return errorf(connect.CodeFailedPrecondition, reasonReleaseUnreadable, "%w", err)
	case errors.Is(err, release.ErrReplaced):
		return errorf(connect.CodeFailedPrecondition, reasonPageGone, "%w", err)
	case errors.Is(err, snapshots.ErrNoShard), errors.Is(err, sections.ErrCorrupt):
		return errorf(connect.CodeDataLoss, reasonSnapshotDamaged, "%w", err)
	case errors.Is(err, snapshots.ErrNoSnapshot):
		return errorf(connect.CodeNotFound, reasonNoSnapshot, "%w", err)
	case errors.As(err, new(*snapshots.MarkedError)), errors.Is(err, snapshots.ErrLapsed):
		out := errorf(connect.CodeUnavailable, reasonStoreBusy, "%w", err)
		retryLater(out)
		return out
	}
	out := errorf(connect.CodeUnavailable, reasonStore, "the store does not answer as it should: %w", err)
	retryLater(out)
	return out
}

// resolve returns the snapshot that a field means: a digest, the beginning of one, or, where it
// is empty, the one that is released to most traffic.
func (d *releaseDesk) resolve(ctx context.Context, field, ref string) (manifest.Digest, error) {
	if ref != "" {
		digest, err := d.releases.Store().Resolve(ctx, ref)
		switch {
		case errors.As(err, new(*snapshots.AmbiguousError)):
			return "", invalidf(reasonAmbiguous, field, "%s: %w", field, err)
		case errors.Is(err, snapshots.ErrNoSnapshot):
			return "", notFoundf(reasonNoSnapshot, "snapshot", ref, "%s: %w", field, err)
		}
		return digest, err
	}
	now, _, err := d.releases.Newest(ctx)
	if errors.Is(err, release.ErrNone) {
		err = d.releases.Nothing(ctx)
	}
	if err != nil {
		return "", err
	}
	return now.Most().Snapshot, nil
}
