package tower

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// damagedReads reads a file once with each of its bytes changed, and returns how many of
// the reads gave an error.
func damagedReads(t *testing.T, path string, changes ...byte) (failed, reads int) {
	const most = 100 << 20 // bytes that may be allocated in one read
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var before, after runtime.MemStats
	for i := range data {
		for k, change := range changes {
			if i%len(changes) != k && *moreFolders == "" {
				continue
			}
			data[i] ^= change
			runtime.ReadMemStats(&before)
			started := cpuTime(t)
			err := readColumns(data, func(*column, int64, seen) {})
			data[i] ^= change
			if reads++; err != nil {
				failed++
			}
			runtime.ReadMemStats(&after)
			took := cpuTime(t) - started
			if n := after.TotalAlloc - before.TotalAlloc; n > most || took > 20*time.Second {
				t.Errorf("%s: byte %d ^ %#x: %d MiB, %v: %v", path, i, change, n>>20, took, err)
			}
		}
	}
	return failed, reads
}

// cpuTime returns how long the process has been on a processor.
func cpuTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A damaged byte gives an error, or other values, and takes neither much memory nor long.
// With the flag -parquet, all files there that are not large are damaged, too.
func TestDamagedFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/foreign/small-*.parquet")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for folder := range strings.SplitSeq(*moreFolders, ":") {
		more, err := filepath.Glob(filepath.Join(folder, "*.parquet"))
		require.NoError(t, err)
		files = append(files, more...)
	}
	for _, path := range files {
		const large = 16 << 10
		info, err := os.Stat(path)
		require.NoError(t, err)
		if info.Size() > large {
			continue
		}
		failed, reads := damagedReads(t, path, 0x01, 0x80, 0xff)
		t.Logf("%s: %d of %d reads failed", path, failed, reads)
		require.Positive(t, failed)
	}
}
