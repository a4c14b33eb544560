package shard

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A store in a folder keeps a folder that has no purpose but to be given up when the disk
// is full, of bytes or of files: so that what is released can be changed still, and a
// Collect can begin to make room. No object has such a name.
const (
	reserveDir   = ".reserve"
	reserveFiles = 8
	reserveSize  = 128 << 10 // bytes, of each file
)

// isFull reports whether an error says that a disk is full, or a quota used up.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Spend calls write, and once more, with the store's reserve given up, if the disk is
// full. It is for what must be written even then.
func (s *Store) Spend(write func() error) error {
	err := write()
	if dir := s.bucket.Dir(); dir != "" && isFull(err) {
		if removeErr := os.RemoveAll(filepath.Join(dir, reserveDir)); removeErr != nil {
			return errors.Join(err, removeErr)
		}
		err = write()
	}
	return err
}

// KeepReserve makes the store's reserve, or what there is room for of it. A store works
// as well without one while there is room, so nobody is told of an error.
func (s *Store) KeepReserve() {
	dir := filepath.Join(s.bucket.Dir(), reserveDir)
	if s.bucket.Dir() == "" || os.Mkdir(dir, 0o755) != nil && !isFolder(dir) {
		return
	}
	for i := range reserveFiles {
		if keepReserve(filepath.Join(dir, fmt.Sprint(i))) != nil {
			return
		}
	}
}

func isFolder(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// keepReserve makes one file of the reserve, of noise, which no file system makes smaller.
func keepReserve(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size >= reserveSize {
		return err
	}
	noise := make([]byte, reserveSize-size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	_, err = f.Write(noise)
	return errors.Join(err, f.Sync())
}
