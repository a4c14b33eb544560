package feedback

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"iter"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// An input is what is read of a log.
type input struct {
	objects []objects.Object // in the order of their names
	damaged []string
}

// maxDamaged is how many damaged objects are named.
const maxDamaged = 100

// list lists the objects of a log that were written since a time and before another. One whose
// name does not say when is always in.
func list(ctx context.Context, bucket *objects.Bucket, prefix string, since, until time.Time) (*input, error) {
	in := &input{}
	for o, err := range bucket.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		if !strings.HasSuffix(o.Key, rowlog.Extension) {
			continue
		}
		if at, ok := rowlog.Written(o.Key); ok && (at.Before(since) || !at.Before(until)) {
			continue
		}
		in.objects = append(in.objects, o)
	}
	return in, nil
}

// summary says what is in an input.
func (in *input) summary() joined.Inputs {
	s := joined.Inputs{Objects: len(in.objects), Damaged: in.damaged}
	h := sha256.New()
	for _, o := range in.objects {
		s.Bytes += o.Size
		line(h, o)
	}
	s.Digest = hex.EncodeToString(h.Sum(nil))
	return s
}

func line(h hash.Hash, o objects.Object) { fmt.Fprintf(h, "%s %d\n", o.Key, o.Size) }

// names returns the list of all objects of some inputs.
func names(inputs ...*input) []byte {
	var b strings.Builder
	for _, in := range inputs {
		for _, o := range in.objects {
			fmt.Fprintf(&b, "%s %d\n", o.Key, o.Size)
		}
	}
	return []byte(b.String())
}

// each calls do with each row of an input, and with the number of its object and of the row. An
// object that was deleted meanwhile is taken out of the input. One that is damaged is an error,
// unless it is to be skipped: then rows before the damage count, and it is noted.
func each[R any](ctx context.Context, bucket *objects.Bucket, in *input, damaged error, skip bool, decode func([]byte) iter.Seq2[*R, error], do func(object, row int, r *R) error) error {
	kept := in.objects[:0]
	for _, o := range in.objects {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := eachOf(ctx, bucket, o, damaged, decode, func(row int, r *R) error { return do(len(kept), row, r) })
		switch {
		case errors.Is(err, objects.ErrNotFound):
			continue // it was too old, or of forgotten users
		case err != nil && skip && errors.Is(err, damaged):
			if len(in.damaged) < maxDamaged {
				in.damaged = append(in.damaged, fmt.Sprintf("%.300s", err))
			}
		case err != nil:
			return err
		}
		kept = append(kept, o)
	}
	in.objects = kept
	return nil
}

func eachOf[R any](ctx context.Context, bucket *objects.Bucket, o objects.Object, damaged error, decode func([]byte) iter.Seq2[*R, error], do func(row int, r *R) error) error {
	if o.Size > rowlog.MaxFileBytes {
		return fmt.Errorf("read %s: %w: %d bytes; accepted: up to %d", o.Key, damaged, o.Size, rowlog.MaxFileBytes)
	}
	data, err := bucket.Read(ctx, o.Key)
	if err != nil {
		return err
	}
	n := 0
	for r, err := range decode(data) {
		if err != nil {
			return fmt.Errorf("read %s: %w", o.Key, err)
		}
		if err := do(n, r); err != nil {
			return err
		}
		n++
	}
	return nil
}
