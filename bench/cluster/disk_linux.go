package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskSize is that of a disk, and ballast the file that fills it.
const (
	diskSize = 256 << 20
	ballast  = ".ballast"
)

// mountDisk mounts a disk of its own, in memory, over a folder.
func mountDisk(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	err := unix.Mount("tandem-bench", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, fmt.Sprintf("size=%d,mode=0700", diskSize))
	if err != nil {
		return fmt.Errorf("mount a disk of its own: %w", err)
	}
	return nil
}

// unmountDisk takes a disk away, with all that is on it.
func unmountDisk(dir string) error {
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// fillDisk leaves no byte of a disk.
func fillDisk(dir string) error {
	f, err := os.Create(filepath.Join(dir, ballast))
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for len(zeros) > 0 {
		if _, err = f.Write(zeros); err != nil {
			zeros = zeros[:len(zeros)/2] // the last of it
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		return errors.Join(fmt.Errorf("fill a disk: %w", err), f.Close())
	}
	return f.Close()
}

// emptyDisk takes back what has filled a disk.
func emptyDisk(dir string) error { return os.Remove(filepath.Join(dir, ballast)) }
