package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Append appends a token to a file, which is made if there is none. Whoever reads the file
// meanwhile sees it without the token, or with all of it; two that append at a time on one
// machine wait for one another. An error leaves the file as it was.
func Append(path string, t Token) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // what it leads to is replaced, not the link
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("append token: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("append token: lock %s: %w", dir.Name(), err)
	}
	before, mode, err := readFile(path)
	if err != nil {
		return fmt.Errorf("append token: %w", err)
	}
	entry, err := t.entry()
	if err != nil {
		return fmt.Errorf("append token: %w", err)
	}
	if len(before) > 0 && !bytes.HasSuffix(before, []byte("\n")) {
		before = append(before, '\n')
	}
	after := slices.Concat(before, entry)
	if _, err := ParseTokens(after); err != nil {
		return fmt.Errorf("append token: %s would be: %w", path, err)
	}
	if err := replace(path, after, mode); err != nil {
		return fmt.Errorf("append token: %w", err)
	}
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("append token: %w", err)
	}
	return nil
}

// readFile returns what a file has, and who may read it; nothing of one that there is not.
func readFile(path string) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0o600, nil
	}
	if err != nil {
		return nil, 0, err
	}
	data, err := os.ReadFile(path)
	return data, info.Mode().Perm(), err
}

// replace writes a file whole, durably but for its folder.
func replace(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
