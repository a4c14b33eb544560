package shard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Stage is a folder of this machine where a build works. While it is open,
// [Store.Collect] leaves it alone; one whose process died it removes.
type Stage struct {
	dir  string
	lock *os.File
}

// Stage makes a new folder for a build to work in: in the store if it is a folder, so
// that files can be moved, else beside the cache. The build closes it.
func (s *Store) Stage() (*Stage, error) {
	parent, err := s.makeStaging()
	if err != nil {
		return nil, fmt.Errorf("stage: %w", err)
	}
	for {
		dir, err := os.MkdirTemp(parent, "build-")
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
	return dir, os.MkdirAll(dir, 0o755)
}

// Dir returns the folder.
func (s *Stage) Dir() string { return s.dir }

// Close removes the folder and all in it.
func (s *Stage) Close() error {
	return errors.Join(os.RemoveAll(s.dir), s.lock.Close())
}

// removeStage removes the folder of a build whose process died, and reports whether it
// did.
func (c *collection) removeStage(dir string) (bool, error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	dead, err := lock(f)
	if err != nil || !dead {
		return false, err
	}
	if c.DryRun {
		return true, unix.Flock(int(f.Fd()), unix.LOCK_UN)
	}
	return true, os.RemoveAll(dir)
}
