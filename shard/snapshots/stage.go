package snapshots

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Stage is a folder of this machine where a build works. While it is open,
// [Store.Collect] leaves it alone; one whose process died it removes, unless it is kept.
type Stage struct {
	dir  string
	lock *os.File
	kept bool
}

// KeptLife is how long [Store.Collect] leaves a stage alone that was kept.
const KeptLife = 7 * 24 * time.Hour

// keptFile is the file of a stage that is kept: a line with the key and the SHA-256 of
// what follows, which is the state.
const keptFile = "kept"

// A stage is named build-BOOT-RANDOM. A lock tells whether its process lives, but only
// to processes of one machine since it was booted: network file systems keep the locks
// of folders on each machine.
const stagePrefix = "build-"

// boot identifies this machine since it was booted, if it can tell.
func boot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(id) < 8 {
		return ""
	}
	return string(id[:8]) + "-"
}

// Stage makes a new folder for a build to work in: in the store if it is a folder, so
// that files can be moved, else beside the cache. The build closes it.
func (s *Store) Stage() (*Stage, error) {
	parent, err := s.makeStaging()
	if err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	for {
		dir, err := os.MkdirTemp(parent, stagePrefix+boot())
		if err != nil {
			return nil, fmt.Errorf("stage: %w", err)
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // a Collect was quicker than the lock
		}
		if err != nil {
			return nil, fmt.Errorf("stage: %w", err)
		}
		locked, err := lock(f)
		if _, statErr := os.Stat(dir); locked && statErr == nil {
			return &Stage{dir: dir, lock: f}, nil
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("stage: %w", err)
		}
	}
}

// makeStaging makes the folder that stages are in. A store that has vanished it does not
// make again.
func (s *Store) makeStaging() (string, error) {
	if s.cache == nil {
		return s.bucket.MakeDir(stagingDir)
	}
	dir := filepath.Join(s.local, stagingDir)
	return dir, objects.MakeDir(dir)
}

// Dir returns the folder.
func (s *Stage) Dir() string { return s.dir }

// Close removes the folder and all in it, unless it is kept.
func (s *Stage) Close() error {
	var err error
	if !s.kept {
		err = os.RemoveAll(s.dir)
	}
	return errors.Join(err, s.lock.Close())
}

// Keep makes the folder outlive this process, however that ends, for [Store.KeptStage] to
// find by the key, with a state of the caller's. It may be kept again with another state.
func (s *Stage) Keep(ctx context.Context, key manifest.Digest, state []byte) error {
	b, err := objects.Open(ctx, s.dir)
	if err != nil {
		return fmt.Errorf("keep stage: %w", err)
	}
	line := fmt.Sprintf("%s %s\n", key, manifest.Sum(state))
	if err := errors.Join(b.Write(ctx, keptFile, append([]byte(line), state...)), b.Close()); err != nil {
		return fmt.Errorf("keep stage: %w", err)
	}
	if err := sections.SyncDir(filepath.Dir(s.dir)); err != nil {
		return fmt.Errorf("keep stage: %w", err)
	}
	s.kept = true
	return nil
}

// Drop takes [Stage.Keep] back: Close removes the folder.
func (s *Stage) Drop() { s.kept = false }

// KeptStage opens a stage that was kept under a key, with its state; nil if there is none
// that nobody has open.
func (s *Store) KeptStage(ctx context.Context, key manifest.Digest) (*Stage, []byte, error) {
	parent := filepath.Join(s.local, stagingDir)
	entries, err := os.ReadDir(parent)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("look for a kept stage: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(parent, e.Name())
		if _, ok := keptState(dir, key); !ok {
			continue
		}
		f, err := lockStage(ctx, dir)
		if err != nil {
			return nil, nil, fmt.Errorf("look for a kept stage: %w", err)
		}
		if f == nil {
			continue
		}
		if state, ok := keptState(dir, key); ok { // now that nobody changes it
			return &Stage{dir: dir, lock: f, kept: true}, state, nil
		}
		if err := f.Close(); err != nil {
			return nil, nil, fmt.Errorf("look for a kept stage: %w", err)
		}
	}
	return nil, nil, nil
}

// keptState returns the state of a stage that is kept under a key, if it is whole.
func keptState(dir string, key manifest.Digest) (state []byte, ok bool) {
	data, err := os.ReadFile(filepath.Join(dir, keptFile))
	if err != nil {
		return nil, false // it is not kept, or is lost
	}
	line, state, _ := bytes.Cut(data, []byte{'\n'})
	return state, string(line) == fmt.Sprintf("%s %s", key, manifest.Sum(state))
}

// lockStage opens the folder of a stage under a lock; nil if another process works in it.
func lockStage(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Second); ; { // a Collect has it for a moment
		locked, err := lock(f)
		if locked {
			return f, nil
		}
		if err == nil && time.Now().Before(deadline) {
			err = sleep(ctx, lockPoll)
		} else if err == nil {
			return nil, f.Close()
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
}

// removeStage removes the folder of a build whose process died, unless it is kept, and
// reports whether it did, or would. The process of one that may be another machine's has
// died if nothing in it was written within the grace.
func removeStage(ctx context.Context, dir string, grace time.Duration, dryRun bool) (bool, error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return false, nil // it is gone, or is another user's, whose build may be running
	}
	if err != nil {
		return false, err
	}
	defer f.Close() // and unlock it
	dead, err := lock(f)
	if err != nil || !dead {
		return false, err
	}
	info, err := os.Stat(filepath.Join(dir, keptFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if err == nil && time.Since(info.ModTime()) < KeptLife {
		return false, nil
	}
	if here := boot(); here == "" || !strings.HasPrefix(filepath.Base(dir), stagePrefix+here) {
		written, err := lastWritten(ctx, dir)
		if err != nil || time.Since(written) < grace {
			return false, err
		}
	}
	if dryRun {
		return true, unix.Flock(int(f.Fd()), unix.LOCK_UN)
	}
	return true, os.RemoveAll(dir)
}

// lastWritten returns when a folder, or what is in it, was last written.
func lastWritten(ctx context.Context, dir string) (time.Time, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return time.Time{}, err
	}
	last := info.ModTime()
	err = objects.Walk(ctx, dir, func(string) bool { return true }, func(_ string, info os.FileInfo) error {
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
		return nil
	})
	return last, err
}
