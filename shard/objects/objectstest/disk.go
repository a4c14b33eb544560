package objectstest

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk returns the folder of a disk with so many bytes and files, which ends with the
// test. It skips the test where none can be made: that takes root.
func SmallDisk(t *testing.T, bytes, files int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tandem", dir, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d", bytes, files)); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}
