package objects

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A folder keeps a folder that has no purpose but to be given up when the disk is full, of
// bytes or of files: so that what is released can be changed still, apps can be taken down,
// and a collection can begin to make room. No object has such a name.
const (
	reserveDir   = ".reserve"
	reserveFiles = 8
	reserveSize  = 128 << 10 // bytes, of each file
)

// IsFull reports whether an error says that a disk is full, or a quota used up.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Spend calls write, and if the disk is full again and again, with one file more of the
// bucket's reserve given up each time. It is for what must be written even then, and is small.
func (b *Bucket) Spend(write func() error) error {
	err := write()
	dir := b.Dir()
	for i := reserveFiles - 1; dir != "" && i >= 0 && IsFull(err); i-- {
		removeErr := os.Remove(filepath.Join(dir, reserveDir, fmt.Sprint(i)))
		switch {
		case errors.Is(removeErr, fs.ErrNotExist):
			continue
		case removeErr != nil:
			return errors.Join(err, removeErr)
		}
		err = write()
	}
	if dir != "" && IsFull(err) && os.Remove(filepath.Join(dir, reserveDir)) == nil { // the last file that it is
		err = write()
	}
	return err
}

// KeepReserve makes the bucket's reserve, or what there is room for of it. A folder works as
// well without one while there is room, so nobody is told of an error. Whoever has written
// something calls it: while the reserve is there that takes a look at each of its files.
func (b *Bucket) KeepReserve() {
	if b.Dir() == "" {
		return
	}
	dir := filepath.Join(b.Dir(), reserveDir)
	if os.Mkdir(dir, 0o755) != nil && !isFolder(dir) {
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
	if info, err := os.Stat(path); err == nil && info.Size() >= reserveSize {
		return nil
	}
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
