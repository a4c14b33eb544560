package input

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Options say how an input is opened.
type Options struct {
	// Folder returns the folder for copies of pipes and of objects; it is called when the
	// first is made. nil is the system's folder of temporary files.
	Folder func() (string, error)
	// Progress is told how many bytes have been copied, of how many; -1 is unknown, as while
	// a bucket is listed. Calls come one at a time. It may be nil.
	Progress func(done, total int64)
	// Partitions makes the names that are recorded begin with the first folder of a path
	// that is a Hive partition, such as dt=2026-11-20, for [Set.Partition].
	Partitions bool
	// InPlace reads objects in ranges where they are, instead of copying them, which is for
	// those who need little of them. Pipes are refused.
	InPlace bool
}

// spool is where the files of one input are copied that cannot be read where they are.
type spool struct {
	Options
	ctx   context.Context
	mu    sync.Mutex
	done  int64 // bytes
	total int64 // bytes; -1 is unknown
}

// begin says that there are so many bytes to copy; -1 is unknown.
func (s *spool) begin(total int64) {
	s.total = total
	s.copied(0)
}

// copied counts bytes that were copied.
func (s *spool) copied(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done += n
	if s.Progress != nil {
		s.Progress(s.done, s.total)
	}
}

// create makes an empty file without a name, so that nothing is left of it when the
// process dies.
func (s *spool) create() (*os.File, error) {
	dir := ""
	if s.Folder != nil {
		var err error
		if dir, err = s.Folder(); err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(dir, "input-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// counter writes a copy, and counts and hashes it.
type counter struct {
	s    *spool
	to   *os.File
	hash hash.Hash
	size int64

	judged  bool  // its first bytes were accepted
	refused bool  // they were not
	failed  error // to write
}

func (s *spool) newCounter() (*counter, error) {
	f, err := s.create()
	return &counter{s: s, to: f, hash: sha256.New()}, err
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.hash.Write(p[:n])
	c.size += int64(n)
	c.s.copied(int64(n))
	if err != nil {
		c.failed = fmt.Errorf("copy it to %s: %w", filepath.Dir(c.to.Name()), err)
	}
	return n, c.failed
}

// file returns the copy as a file.
func (c *counter) file(path, recorded string) *file {
	return &file{ReaderAt: c.to, os: c.to, size: c.size, path: path, recorded: recorded, spooled: true, digest: manifest.Digest(hex.EncodeToString(c.hash.Sum(nil)))}
}

// copyBuffer is how many bytes are copied at a time.
const copyBuffer = 1 << 20

// copyPipe copies what comes out of a pipe until it ends, or the context does.
func (s *spool) copyPipe(path string) (_ *file, err error) {
	s.begin(-1)
	pipe, err := s.openPipe(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pipe.Close()) }()
	// A device that has no deadlines does not keep a reader waiting.
	stop := context.AfterFunc(s.ctx, func() { _ = pipe.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c, err := s.newCounter()
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, copyBuffer)
	for {
		n, err := pipe.Read(buffer)
		if err == nil || n > 0 {
			if _, failed := c.Write(buffer[:n]); failed != nil {
				return nil, errors.Join(failed, c.to.Close())
			}
		}
		if ended := s.ctx.Err(); ended != nil {
			return nil, errors.Join(ended, c.to.Close())
		}
		if errors.Is(err, io.EOF) {
			return c.file(path, pipeName), nil
		}
		if err != nil {
			return nil, errors.Join(err, c.to.Close())
		}
	}
}

// openPipe opens a pipe, which waits for who writes to it, or for the context.
func (s *spool) openPipe(path string) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	ready := make(chan opened, 1)
	go func() {
		f, err := os.Open(path)
		ready <- opened{f, err}
	}()
	select {
	case o := <-ready:
		return o.f, o.err
	case <-s.ctx.Done():
	}
	// A writer that comes and goes lets the reader go, too.
	for {
		if fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			_ = unix.Close(fd)
		}
		select {
		case o := <-ready:
			if o.err != nil {
				return nil, s.ctx.Err()
			}
			return nil, errors.Join(s.ctx.Err(), o.f.Close())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
