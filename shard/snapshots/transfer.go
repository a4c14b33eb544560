package snapshots

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Transfer is the progress of one shard between this machine and a store.
type Transfer struct {
	Digest manifest.Digest
	Kind   TransferKind
	Done   int64 // bytes
	Size   int64 // bytes
}

// TransferKind is what a shard is transferred for.
type TransferKind string

// The kinds of transfers.
const (
	Upload   TransferKind = "upload"
	Download TransferKind = "download"
	Check    TransferKind = "check" // it is read to see whether it is whole
)

// transfers is how many shards are uploaded, downloaded or checked at a time.
const transfers = 4

// ErrSource is the class of every error that says that the store which a snapshot is
// taken from does not give one of its files whole.
var ErrSource = errors.New("no whole copy to take")

// IncompleteError says how far [Store.Import] or [Store.Copy] has come. What the store
// has is not transferred again by the next one.
type IncompleteError struct {
	Have, Want int // shards
	Err        error
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("take snapshot: the store has %d of %d shards: %v", e.Have, e.Want, e.Err)
}

func (e *IncompleteError) Unwrap() error { return e.Err }

// AddShard takes a durable shard file that nothing else uses into the store, and
// describes it. It moves the file where it can. A whole shard that the store has is not
// written again.
func (s *Store) AddShard(ctx context.Context, path string) (manifest.Shard, error) {
	f, err := sections.Open(path)
	if err != nil {
		return manifest.Shard{}, err
	}
	m := manifest.Shard{Size: f.Size(), Checksum: checksumText(f)}
	if err := f.Close(); err != nil {
		return m, err
	}
	if m.Digest, _, err = sumFile(path); err != nil {
		return m, fmt.Errorf("add shard: %w", err)
	}
	err = s.checkStored(ctx, m)
	if errors.As(err, new(damageError)) {
		err = s.place(ctx, path, m)
	}
	if err != nil {
		return m, fmt.Errorf("add shard: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return m, fmt.Errorf("add shard: %w", err)
	}
	return m, nil
}

// Import takes a snapshot that a build staged in another store into this one: first the
// shards that it does not have whole, several at a time, then the manifest. A store in a
// folder moves the files where that is possible. What an interrupted Import has taken is
// not taken again. Nothing of it is collected while it runs.
func (s *Store) Import(ctx context.Context, from *Store, m *manifest.Manifest) (manifest.Digest, error) {
	data, err := m.Encode()
	if err != nil {
		return "", err
	}
	return manifest.Sum(data), s.take(ctx, from, m, data, s.move)
}

// Copy does what [Store.Import] does for a snapshot that another store has, and leaves
// it there.
func (s *Store) Copy(ctx context.Context, from *Store, d manifest.Digest) error {
	m, data, err := from.manifest(ctx, d)
	if err != nil {
		return err
	}
	return s.take(ctx, from, m, data, s.upload)
}

// putter brings a shard file of this machine into a store. That the file is not the one
// it should be is an error of class [ErrSource].
type putter func(ctx context.Context, path string, sm manifest.Shard) error

// take reads every shard that the store has of a snapshot, since a file may have rotted
// and kept its size, and puts those that it cannot prove whole.
func (s *Store) take(ctx context.Context, from *Store, m *manifest.Manifest, data []byte, put putter) (err error) {
	protection, err := s.Protect(ctx, append(m.ShardDigests(), manifest.Sum(data))...)
	if err != nil {
		return err
	}
	publishing := false
	defer func() {
		if publishing && err != nil {
			protection.Leave() // the manifest may appear yet
			return
		}
		err = errors.Join(err, protection.End(ctx))
	}()
	var have atomic.Int64
	var failed atomic.Bool
	list := m.Shards()
	wrong := eachShard(list, func(sm manifest.Shard) error {
		if failed.Load() { // those in progress finish: what they have done is not done again
			return nil
		}
		err := s.checkStored(ctx, sm)
		if errors.As(err, new(damageError)) {
			err = from.give(ctx, sm, put)
		}
		if err == nil {
			have.Add(1)
		} else if !errors.As(err, new(noRoomError)) {
			failed.Store(true)
		}
		return err
	})
	if err := cmp.Or(wrong...); err != nil {
		return &IncompleteError{Have: int(have.Load()), Want: len(list), Err: err}
	}
	publishing = true
	if err := s.publish(ctx, m, data); err != nil {
		return err
	}
	s.bucket.KeepReserve()
	return nil
}

// eachShard calls do for each shard, several at a time, and once more, alone, for one that
// found no room in the cache beside the others. It returns their errors.
func eachShard(list []manifest.Shard, do func(manifest.Shard) error) []error {
	wrong := make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(transfers)
	for i, sm := range list {
		g.Go(func() error {
			wrong[i] = do(sm)
			return nil
		})
	}
	_ = g.Wait() // each has its own error
	for i, sm := range list {
		if errors.As(wrong[i], new(noRoomError)) {
			wrong[i] = do(sm)
		}
	}
	return wrong
}

// give has a shard put elsewhere. One that is damaged in the cache is downloaded once
// more.
func (s *Store) give(ctx context.Context, sm manifest.Shard, put putter) error {
	for again := false; ; again = true {
		path, done, err := s.fetch(ctx, sm)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrSource, err)
		}
		err = put(ctx, path, sm)
		done()
		if again || !errors.Is(err, ErrSource) || !s.discardDamaged(sm.Digest) {
			return err
		}
	}
}

// damageError says that a file is missing, is another one than its name says, or cannot be
// read: what mends it is another copy.
type damageError struct{ error }

func (e damageError) Unwrap() error { return e.error }

// checkStored returns an error unless the store has a shard, whole; a [damageError] if it
// has not. It reads all of it: the checksums that stores keep beside their objects say
// what was written, not what is there.
func (s *Store) checkStored(ctx context.Context, sm manifest.Shard) error {
	if err := s.checkSize(ctx, sm); errors.Is(err, objects.ErrNotFound) || errors.Is(err, sections.ErrCorrupt) {
		return damageError{err}
	} else if err != nil {
		return err
	}
	h := sha256.New()
	var have int64
	for attempt := 1; ; attempt++ {
		n, err := s.read(ctx, sm, Check, have, h)
		have += n
		if err == nil || have >= sm.Size { // some stores say only then that their own checksum is wrong
			break
		}
		if ctx.Err() != nil || errors.Is(err, objects.ErrGone) {
			return err
		}
		if attempt == attempts {
			return damageError{err}
		}
	}
	if sum := digestOfHash(h); sum != sm.Digest {
		return damageError{fmt.Errorf("verify shard %s: its SHA-256 is %s: %w", s.name(shardKey(sm.Digest)), sum, sections.ErrCorrupt)}
	}
	return nil
}

// read copies a stored shard to w from a byte on, and one byte more than it should have,
// which is enough to know. It returns how many bytes were copied.
func (s *Store) read(ctx context.Context, sm manifest.Shard, kind TransferKind, have int64, w io.Writer) (int64, error) {
	r, err := s.bucket.Reader(ctx, shardKey(sm.Digest), have)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	t := &transferReader{ctx: ctx, r: r, transfer: Transfer{Digest: sm.Digest, Kind: kind, Done: have, Size: sm.Size}, report: s.o.Progress}
	n, err := io.Copy(w, io.LimitReader(t, sm.Size-have+1))
	if err == nil && have+n < sm.Size {
		err = fmt.Errorf("read %s: %w after %d of %d bytes", s.name(shardKey(sm.Digest)), io.ErrUnexpectedEOF, have+n, sm.Size)
	}
	return n, err
}

// place moves a file that is known to be a whole shard into the store, or uploads it.
func (s *Store) place(ctx context.Context, path string, sm manifest.Shard) error {
	dir := s.bucket.Dir()
	if dir == "" {
		return s.upload(ctx, path, sm)
	}
	if _, err := s.bucket.MakeDir(shardsDir); err != nil {
		return err
	}
	err := os.Rename(path, s.ShardPath(sm.Digest))
	if errors.Is(err, unix.EXDEV) {
		return s.upload(ctx, path, sm)
	}
	if err != nil {
		return err
	}
	return sections.SyncDir(filepath.Join(dir, shardsDir))
}

// move is a [putter] that takes the file away where that is possible.
func (s *Store) move(ctx context.Context, path string, sm manifest.Shard) error {
	if s.bucket.Dir() == "" {
		return s.upload(ctx, path, sm)
	}
	sum, _, err := sumFile(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	if sum != sm.Digest {
		return otherFile(path, sum, sm)
	}
	return s.place(ctx, path, sm)
}

func otherFile(path string, sum manifest.Digest, sm manifest.Shard) error {
	return fmt.Errorf("%w: the SHA-256 of %s is %s, not %s: %w", ErrSource, path, sum, sm.Digest, sections.ErrCorrupt)
}

// uploadWait is how long an upload that failed waits before it is tried again; then twice
// as long each time.
const uploadWait = 200 * time.Millisecond

// upload is a [putter] that copies the file. A store that is no folder may fail a few
// times.
func (s *Store) upload(ctx context.Context, path string, sm manifest.Shard) error {
	for attempt, wait := 1, uploadWait; ; attempt, wait = attempt+1, 2*wait {
		err := s.tryUpload(ctx, path, sm)
		if err == nil || errors.Is(err, ErrSource) || ctx.Err() != nil || s.cache == nil || attempt == attempts {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// tryUpload makes sure on the way that the file is the one it is named for.
func (s *Store) tryUpload(ctx context.Context, path string, sm manifest.Shard) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	defer f.Close()
	h := sha256.New()
	r := &transferReader{
		ctx: ctx, r: io.TeeReader(sourceReader{f}, h), report: s.o.Progress,
		transfer: Transfer{Digest: sm.Digest, Kind: Upload, Size: sm.Size},
		// What is wrong must be known before the last byte is sent.
		end: func() error {
			if sum := digestOfHash(h); sum != sm.Digest {
				return otherFile(path, sum, sm)
			}
			return nil
		},
	}
	return s.bucket.Upload(ctx, shardKey(sm.Digest), r)
}

func digestOfHash(h hash.Hash) manifest.Digest {
	return manifest.Digest(hex.EncodeToString(h.Sum(nil)))
}

// sourceReader gives errors of reading the class [ErrSource].
type sourceReader struct{ io.Reader }

func (r sourceReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrSource, err)
	}
	return n, err
}

// transferReader reports what is read.
type transferReader struct {
	ctx      context.Context // reading ends with it
	r        io.Reader
	transfer Transfer
	report   func(Transfer)
	end      func() error // called at the end of r, if not nil
}

func (t *transferReader) Read(p []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := t.r.Read(p)
	t.transfer.Done += int64(n)
	if t.report != nil && n > 0 {
		t.report(t.transfer)
	}
	if errors.Is(err, io.EOF) && t.end != nil {
		if endErr := t.end(); endErr != nil {
			return n, endErr
		}
	}
	return n, err
}
