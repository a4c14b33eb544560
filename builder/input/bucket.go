package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-ann/tandem/shard/objects"
)

const (
	// fetches is how many objects are copied at a time.
	fetches = 8
	// fetchTries is how often the copy of an object may fail in a row without a byte.
	fetchTries = 4
	// fetchWait is how long the first try waits for the second.
	fetchWait = time.Second
)

// splitURL divides scheme://BUCKET/KEY?QUERY into the bucket's location and the key. The
// key is taken as it is: stores have keys with % in them, which Hive writes.
func splitURL(url string) (location, key string) {
	scheme, rest, _ := strings.Cut(url, "://")
	rest, query, hasQuery := strings.Cut(rest, "?")
	bucket, key, _ := strings.Cut(rest, "/")
	location = scheme + "://" + bucket
	if hasQuery {
		location += "?" + query
	}
	return location, key
}

// bucketSearch looks for objects.
type bucketSearch struct {
	*search
	objects *objects.Bucket
	base    string // scheme://BUCKET/, for people
	query   string // that opens the bucket, with its question mark
}

// bucket finds the objects of the path and copies them.
func (s *search) bucket(ctx context.Context) (_ []*file, err error) {
	location, key := splitURL(s.path)
	b := &bucketSearch{search: s}
	if b.objects, err = objects.Open(ctx, location); err != nil {
		return nil, err
	}
	if s.spool.InPlace {
		s.open = append(s.open, b.objects)
	} else {
		defer func() { err = errors.Join(err, b.objects.Close()) }()
	}
	var queried bool
	if b.base, b.query, queried = strings.Cut(location, "?"); queried {
		b.query = "?" + b.query
	}
	b.base += "/"
	return b.run(ctx, key)
}

// run returns the objects that a key means, copied; those that are when it fails, too.
func (b *bucketSearch) run(ctx context.Context, key string) ([]*file, error) {
	s := b.search
	s.spool.begin(-1)
	explicit, err := b.find(ctx, key)
	if err != nil {
		return nil, err
	}
	s.sort()
	var total int64
	for _, f := range s.found {
		total += f.size
	}
	s.spool.begin(total)
	fetched := make([]*file, len(s.found))
	failures := make([]error, len(s.found))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(fetches)
	for i, f := range s.found {
		group.Go(func() error {
			fetched[i], failures[i] = b.fetch(groupCtx, f)
			if errors.Is(failures[i], ErrForeign) && !explicit {
				return nil
			}
			return failures[i]
		})
	}
	err = group.Wait()
	var files []*file
	for i, f := range fetched {
		if f != nil {
			files = append(files, f)
		} else if errors.Is(failures[i], ErrForeign) {
			_ = s.leaveOut(s.found[i], failures[i])
		}
	}
	if err != nil {
		return files, err
	}
	return files, s.checkAny(len(files))
}

// find lists the objects that a key means, and reports whether it names one.
func (b *bucketSearch) find(ctx context.Context, key string) (explicit bool, err error) {
	prefix := ""
	if key != "" && !strings.HasSuffix(key, "/") {
		o, err := b.objects.Stat(ctx, key)
		if err == nil {
			folder := false
			if o.Size == 0 { // it may stand for one
				if folder, err = b.hasAny(ctx, key+"/"); err != nil {
					return false, err
				}
			}
			if !folder {
				b.add(found{place: key, recorded: path.Base(key), size: o.Size})
				return true, nil
			}
		} else if !errors.Is(err, objects.ErrNotFound) {
			return false, err
		}
	}
	root := strings.TrimSuffix(key, "/")
	if hasMeta(key) {
		if root, b.pattern, err = splitPattern(key); err != nil {
			return false, err
		}
		prefix = b.pattern[0][:max(strings.IndexAny(b.pattern[0], "*?["), 0)]
	}
	if root != "" {
		prefix = root + "/" + prefix
	}
	if err := b.refuseTables(root, b.base, func(dir string) (string, error) { return b.table(ctx, dir) }); err != nil {
		return false, err
	}
	hiddenFolders := map[string]bool{}
	for o, err := range b.objects.List(ctx, prefix) {
		if err != nil {
			return false, err
		}
		if dir, table := keyTable(o.Key); table != "" {
			return false, tableError(b.base+dir, table, nil)
		}
		b.offer(o, root, hiddenFolders)
	}
	return false, nil
}

// hasAny reports whether there is an object of a prefix.
func (b *bucketSearch) hasAny(ctx context.Context, prefix string) (bool, error) {
	for _, err := range b.objects.List(ctx, prefix) {
		return err == nil, err
	}
	return false, nil
}

// table returns what kind of table a folder is, empty for none.
func (b *bucketSearch) table(ctx context.Context, dir string) (string, error) {
	if dir == "." || dir == "/" {
		dir = ""
	}
	for _, name := range []string{deltaLog, hudiFolder, icebergMeta} {
		for o, err := range b.objects.List(ctx, strings.TrimPrefix(dir+"/", "/")+name+"/") {
			if err != nil {
				return "", err
			}
			if _, table := keyTable(o.Key); table != "" {
				return table, nil
			}
		}
	}
	return "", nil
}

// offer takes an object below a folder, unless it is left out.
func (b *bucketSearch) offer(o objects.Object, root string, hiddenFolders map[string]bool) {
	below := o.Key
	if root != "" {
		below = o.Key[len(root)+1:]
	}
	if below == "" || strings.HasSuffix(below, "/") || o.Size == 0 && strings.HasSuffix(below, "_$folder$") {
		return // stands for a folder
	}
	parts := strings.Split(below, "/")
	for i := range parts[:len(parts)-1] {
		folder := parts[:i+1]
		if !hidden(folder[i]) || b.pattern != nil && b.asksFor(folder, true) {
			continue
		}
		if name := path.Join(folder...); !hiddenFolders[name] {
			hiddenFolders[name] = true
			b.hide(folder, true)
		}
		return
	}
	if !b.hide(parts, false) && b.pattern.matches(parts) {
		b.add(found{place: o.Key, recorded: below, size: o.Size})
	}
}

func (b *bucketSearch) add(f found) {
	if b.spool.Partitions {
		f.recorded = withPartitions(f.place, f.recorded)
	}
	b.found = append(b.found, f)
}

// fetch copies an object whole, as it was at one time, unless it is of another sort.
func (b *bucketSearch) fetch(ctx context.Context, f found) (_ *file, err error) {
	url := b.base + f.place
	before, err := b.objects.Stat(ctx, f.place)
	if err != nil {
		return nil, err
	}
	if b.spool.InPlace {
		return b.inPlace(f, before)
	}
	c, err := b.spool.newCounter()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.to.Close())
		}
	}()
	resumed := false
	for failed := 0; c.size < before.Size || !c.judged; {
		had := c.size
		err := b.fetchRest(ctx, c, f.place, before.Size)
		if c.size == before.Size && c.judged {
			break // whatever came after the last byte
		}
		if c.size > before.Size {
			return nil, fmt.Errorf("%s %w: it had %d bytes, and more came", url, ErrChanged, before.Size)
		}
		if failed++; c.size > had {
			failed = 1
		}
		if ctx.Err() != nil || c.refused || c.failed != nil || failed == fetchTries || errors.Is(err, objects.ErrNotFound) || errors.Is(err, objects.ErrGone) {
			return nil, err
		}
		resumed = true
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(fetchWait << (failed - 1)):
		}
	}
	if resumed {
		after, err := b.objects.Stat(ctx, f.place)
		if err != nil {
			return nil, err
		}
		if after.Version != before.Version || after.Size != before.Size || !after.Time.Equal(before.Time) {
			return nil, fmt.Errorf("%s %w", url, ErrChanged)
		}
	}
	copied := c.file(url, f.recorded)
	copied.location = b.location(f.place)
	return copied, nil
}

// location returns the URL that opens an object again, empty if none does.
func (b *bucketSearch) location(key string) string {
	if url := b.base + key + b.query; !strings.Contains(key, "?") {
		return url
	}
	return ""
}

// inPlace opens an object where it is, unless it is of another sort.
func (b *bucketSearch) inPlace(f found, o objects.Object) (*file, error) {
	url := b.base + f.place
	in := &object{ctx: b.spool.ctx, bucket: b.objects, Object: o}
	head := make([]byte, min(headSize, o.Size))
	if _, err := in.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, in.Close())
	}
	if err := b.judge(url, head); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return &file{ReaderAt: in, object: in, size: o.Size, path: url, location: b.location(f.place), recorded: f.recorded}, nil
}

// fetchRest copies what is missing of an object of a size.
func (b *bucketSearch) fetchRest(ctx context.Context, c *counter, key string, size int64) (err error) {
	r, err := b.objects.Reader(ctx, key, c.size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if !c.judged {
		// A connection that breaks may look as the end does to io.ReadFull.
		head := make([]byte, min(headSize, size))
		for n := 0; n < len(head); {
			more, err := r.Read(head[n:])
			if n += more; n < len(head) && err != nil {
				return cutShort(b.base+key, int64(n), size, err)
			}
		}
		if err := b.judge(b.base+key, head); err != nil {
			c.refused = true
			return err
		}
		c.judged = true
		if _, err := c.Write(head); err != nil {
			return err
		}
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{c}, r, make([]byte, copyBuffer))
	if err == nil && c.size < size {
		err = cutShort(b.base+key, c.size, size, io.ErrUnexpectedEOF)
	}
	return err
}

// cutShort returns the error of an object of which a store gave less than it has.
func cutShort(name string, came, size int64, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &objects.StoreError{What: "read", Name: name, Err: fmt.Errorf("%d of %d bytes came: %w", came, size, err)}
}
