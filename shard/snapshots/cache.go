package snapshots

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// cache keeps the shards of buckets on this machine. Several processes may share its
// folder:
//
//	shards/DIGEST.shard    a whole shard; who opens it has a shared lock on it
//	partial/DIGEST-SIZE    one that is being downloaded, locked by who does
//	lock                   locked by who makes room, or gives a whole shard its name
//	staging/               what builds are writing
//
// Goals: the files of shards/ and partial/ never take more than the bound, whatever any
// number of processes do, and none is removed that someone is about to open. A process
// that is killed leaves nothing that has to be cleaned up first.
//
// Design: locks are those of the kernel (flock), which end with their process. A file
// under a lock stays; what is being downloaded counts with the size that it will have.
// Who wants shards takes the room for all that are missing at once, so that no two wait
// for each other with half of what they need. A file that is mapped, and locked no more,
// may be removed: its space is free once nobody maps it.
type cache struct {
	dir   string
	bound int64 // bytes; 0 is none
}

const partialDir = "partial"

func openCache(o Options) (*cache, error) {
	dir := o.Cache
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("find a folder for the cache: %w", err)
		}
		dir = filepath.Join(base, "tandem")
	}
	if o.CacheBytes < 0 {
		return nil, fmt.Errorf("the bound of the cache is %d bytes, want at least 0", o.CacheBytes)
	}
	c := &cache{dir: dir, bound: o.CacheBytes}
	return c, c.makeFolders()
}

// makeFolders makes the folders of the cache that are not there.
func (c *cache) makeFolders() error {
	for _, sub := range []string{shardsDir, partialDir, stagingDir} {
		if err := os.MkdirAll(filepath.Join(c.dir, sub), 0o755); err != nil {
			return fmt.Errorf("make the cache: %w", err)
		}
	}
	return nil
}

func (c *cache) path(d manifest.Digest) string {
	return filepath.Join(c.dir, shardsDir, string(d)+".shard")
}

func (c *cache) partial(sm manifest.Shard) string {
	return filepath.Join(c.dir, partialDir, fmt.Sprintf("%s-%d", sm.Digest, sm.Size))
}

// reserved returns the size that a partial download will have; 0 if its name does not
// say.
func reserved(name string) int64 {
	_, size, _ := strings.Cut(name, "-")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

const (
	// lockPoll is how often a lock that another has is tried, or whether there is room.
	lockPoll = 20 * time.Millisecond
	// cachePatience is how long a process waits for others that use the cache: for room,
	// for the lock, or for a download of theirs that does not get on.
	cachePatience = time.Minute
)

// claim is the hold that someone has on shards of the cache.
type claim struct {
	whole   []*os.File // under a shared lock
	missing []*missing
	waited  []manifest.Shard // that another is downloading
}

// missing is a shard that is to be downloaded by who claimed it.
type missing struct {
	manifest.Shard
	file *os.File // the partial download, under a lock
}

// release ends the hold.
func (c *claim) release() {
	for _, f := range c.whole {
		_ = f.Close() // it was only read
	}
	for _, m := range c.missing {
		if info, err := m.file.Stat(); err == nil && info.Size() == 0 {
			_ = os.Remove(m.file.Name()) // left, it takes no room
		}
		_ = m.file.Close() // what it has is checked before it is used
	}
	*c = claim{}
}

// noRoomError says that what others use leaves too little room.
type noRoomError struct {
	dir                string
	bound, want, there int64 // bytes
}

func (e noRoomError) Error() string {
	return fmt.Sprintf("the cache %s may hold %d bytes; what is being opened, and what others open or download, takes %d", e.dir, e.bound, e.want)
}

// claim holds those of the shards that are whole, and makes room for all others. While
// others use what room there is, it waits for as long as they get on, and a time beyond.
func (c *cache) claim(ctx context.Context, shards []manifest.Shard) (*claim, error) {
	var all int64
	for _, sm := range shards {
		all += sm.Size
	}
	if c.bound > 0 && all > c.bound {
		return nil, fmt.Errorf("the cache %s may hold %d bytes; what is being opened takes %d", c.dir, c.bound, all)
	}
	held := &claim{}
	for _, sm := range shards {
		if f := c.hold(sm); f != nil {
			held.whole = append(held.whole, f)
		}
	}
	if len(held.whole) == len(shards) {
		return held, nil // in a cache that this user may only read, too
	}
	held.release()
	there := int64(0)
	for deadline := time.Now().Add(cachePatience); ; {
		held, err := c.tryClaim(ctx, shards)
		var noRoom noRoomError
		if !errors.As(err, &noRoom) {
			return held, err
		}
		if noRoom.there != there {
			there, deadline = noRoom.there, time.Now().Add(cachePatience)
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		if err := sleep(ctx, lockPoll); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (c *cache) tryClaim(ctx context.Context, shards []manifest.Shard) (*claim, error) {
	// Whoever removes a cache to have room removes the folders, too.
	if err := c.makeFolders(); err != nil {
		return nil, err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	held := &claim{}
	for _, sm := range shards {
		if f := c.hold(sm); f != nil {
			held.whole = append(held.whole, f)
			continue
		}
		f, err := openLocked(c.partial(sm))
		if err != nil {
			held.release()
			return nil, err
		}
		if f == nil {
			held.waited = append(held.waited, sm)
			continue
		}
		held.missing = append(held.missing, &missing{sm, f})
	}
	if err := c.makeRoom(held.missing); err != nil {
		held.release()
		return nil, err
	}
	return held, nil
}

// hold returns a whole shard's file under a shared lock, and notes that it was used; nil
// if it is not there.
func (c *cache) hold(sm manifest.Shard) *os.File {
	f, err := os.Open(c.path(sm.Digest))
	if err != nil {
		return nil // what cannot be read is downloaded anew
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) // fails while it is being removed
	info, statErr := f.Stat()
	if err != nil || statErr != nil || info.Size() != sm.Size || !isAt(f, f.Name()) {
		_ = f.Close() // it was only read
		return nil
	}
	now := time.Now()
	_ = os.Chtimes(f.Name(), now, now) // in another user's cache it stays older than it is
	return f
}

// isAt reports whether a file that was opened is still the one at a path.
func isAt(f *os.File, path string) bool {
	there, err := os.Stat(path)
	mine, mineErr := f.Stat()
	return err == nil && mineErr == nil && os.SameFile(there, mine)
}

// lock takes the lock of the cache. It is held for as long as it takes to look at the
// folder.
func (c *cache) lock(ctx context.Context) (unlock func(), err error) {
	path := filepath.Join(c.dir, "lock")
	for deadline := time.Now().Add(cachePatience); ; {
		f, err := openLocked(path)
		if err != nil {
			return nil, err
		}
		if f != nil {
			return func() { _ = f.Close() }, nil // nothing is written to it
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s has been locked by another process for %s", path, cachePatience)
		}
		if err := sleep(ctx, lockPoll); err != nil {
			return nil, err
		}
	}
}

// cachedFile is a file of the cache that may be removed for room.
type cachedFile struct {
	path string
	info fs.FileInfo
}

// makeRoom removes what was not used for longest, until what is missing is within the
// bound too. The caller has the lock of the cache.
func (c *cache) makeRoom(list []*missing) error {
	if c.bound == 0 || len(list) == 0 {
		return nil
	}
	var total, there int64
	claimed := map[string]bool{}
	for _, m := range list {
		total += m.Size
		claimed[m.file.Name()] = true
	}
	var files []cachedFile
	for _, sub := range []string{shardsDir, partialDir} {
		entries, err := os.ReadDir(filepath.Join(c.dir, sub))
		if err != nil {
			return err
		}
		for _, e := range entries {
			f := cachedFile{path: filepath.Join(c.dir, sub, e.Name())}
			if f.info, err = e.Info(); errors.Is(err, fs.ErrNotExist) || claimed[f.path] {
				continue
			}
			if err != nil {
				return err
			}
			size := f.info.Size()
			there += size
			if sub == partialDir && f.isLocked() {
				size = max(size, reserved(e.Name()))
			}
			total += size
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b cachedFile) int {
		return cmp.Or(a.info.ModTime().Compare(b.info.ModTime()), cmp.Compare(a.path, b.path))
	})
	for _, f := range files {
		if total <= c.bound {
			return nil
		}
		removed, err := f.remove()
		if err != nil {
			return err
		}
		if removed {
			total -= f.info.Size()
		}
	}
	if total > c.bound {
		return noRoomError{c.dir, c.bound, total, there}
	}
	return nil
}

// isLocked reports whether someone has a lock on the file.
func (f cachedFile) isLocked() bool {
	opened, err := os.Open(f.path)
	if err != nil {
		return false
	}
	defer opened.Close() // and unlock
	free, err := lock(opened)
	return err == nil && !free
}

// remove removes the file unless someone has a lock on it.
func (f cachedFile) remove() (bool, error) {
	opened, err := os.Open(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.Is(err, fs.ErrPermission):
		return false, nil // another user's, who may be opening it
	case err == nil:
		defer opened.Close() // and unlock
		if free, err := lock(opened); err != nil || !free || !isAt(opened, f.path) {
			return false, err
		}
	}
	// Also one that cannot be opened any more: nobody else opens it either.
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, nil
}

// openLocked opens a file, which it makes if need be, under a lock; nil if someone else
// has it open so.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		locked, err := lock(f)
		if locked && isAt(f, path) {
			return f, nil
		}
		if err := errors.Join(err, f.Close()); err != nil || !locked {
			return nil, err
		}
		// Whoever had it moved it away or removed it.
	}
}

// lock takes the only lock on a file, and reports whether nobody else has it.
func lock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
