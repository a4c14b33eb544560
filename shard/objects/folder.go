package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tandem-ann/tandem/index/sections"
)

// createDurably writes a whole file that must not be there yet. Linking the synced
// temporary file to the name decides between writers, in one process or in several.
func createDurably(path string, data []byte) error {
	return placeDurably(context.Background(), path, bytes.NewReader(data), func(temporary string) error {
		err := os.Link(temporary, path)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create %s: %w", path, ErrExists)
		}
		return errors.Join(err, os.Remove(temporary))
	})
}

// writeDurably writes a whole file.
func writeDurably(path string, data []byte) error {
	return copyDurably(context.Background(), path, bytes.NewReader(data))
}

// copyDurably writes a whole file from r.
func copyDurably(ctx context.Context, path string, r io.Reader) error {
	return placeDurably(ctx, path, r, func(temporary string) error { return os.Rename(temporary, path) })
}

// placeDurably writes and syncs a temporary file beside path, has it placed, and syncs
// the folder.
func placeDurably(ctx context.Context, path string, r io.Reader, place func(temporary string) error) error {
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	err = errors.Join(err, ctx.Err())
	if err == nil {
		err = f.Chmod(0o644) // a server may run as another user
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = place(f.Name())
	}
	if err != nil {
		return errors.Join(err, removeIfThere(f.Name()))
	}
	return sections.SyncDir(dir)
}

// makeDir makes a folder and what is above it, durably.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return sections.SyncDir(filepath.Dir(dir))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func removeDurably(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", path, ErrNotFound)
	}
	if err != nil {
		return err
	}
	return sections.SyncDir(filepath.Dir(path))
}
