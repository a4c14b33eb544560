package snapshots

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
)

// collectObjects deletes the intents and marks of processes that died.
func (c *collection) collectObjects(ctx context.Context) error {
	for _, left := range []struct {
		dir  string
		life time.Duration
	}{{intentsDir, intentLife}, {doomedDir, markLife}} {
		for o, err := range c.bucket.List(ctx, left.dir+"/") {
			if err != nil {
				return err
			}
			if c.now.Sub(o.Time) < left.life {
				if !c.DryRun {
					err = c.dateAgain(ctx, o, c.now, left.life)
				}
				if err != nil {
					return err
				}
				continue
			}
			if !c.DryRun {
				if err := c.deleteIfThere(ctx, o.Key); err != nil {
					return err
				}
			}
			c.leftovers[o.Key] = true
			c.done.Leftovers = append(c.done.Leftovers, o.Key)
		}
	}
	return nil
}

// storeFolders are the folders of a store in a folder in which objects are written.
var storeFolders = []string{buildsDir, doomedDir, "gates", intentsDir, "live", "queries", "releases", shardsDir, snapshotsDir}

// temporaryLife is how old a file of the cache must be to be one of a process that died:
// nobody writes one for so long.
const temporaryLife = 24 * time.Hour

// collectFiles deletes what died with a process: the folders of builds, partial
// downloads of this machine, and, in a store that is a folder, the temporary files of
// objects that are older than the grace and that nobody is writing.
func (c *collection) collectFiles(ctx context.Context) error {
	if err := c.collectStages(ctx); err != nil {
		return err
	}
	if c.cache != nil {
		return c.collectTemporary(ctx, partialDir, time.Now().Add(-temporaryLife), anything, anything)
	}
	until := c.now.Add(-c.Grace)
	for _, name := range storeFolders {
		if err := c.collectTemporary(ctx, name, until, anything, objects.IsTemporary); err != nil {
			return err
		}
	}
	// Of objects that are in no folder.
	return c.collectTemporary(ctx, ".", until, objects.IsTemporary, objects.IsTemporary)
}

func anything(string) bool { return true }

// exists reports whether a local folder of the store is there, if only as a link to
// nothing, which is an error to whoever follows it.
func (c *collection) exists(name string) (dir string, exists bool) {
	dir = filepath.Join(c.local, name)
	_, err := os.Lstat(dir)
	return dir, !errors.Is(err, fs.ErrNotExist)
}

// collectTemporary deletes the temporary files in a folder that were last written at some
// time or before. It looks at what is wanted, and into those of it that are folders.
func (c *collection) collectTemporary(ctx context.Context, name string, until time.Time, want, temporary func(name string) bool) error {
	dir, exists := c.exists(name)
	if !exists {
		return nil
	}
	return objects.Walk(ctx, dir, func(path string) bool { return want(filepath.Base(path)) }, func(path string, info fs.FileInfo) error {
		if !temporary(info.Name()) || info.ModTime().After(until) {
			return nil
		}
		dead, err := objects.RemoveTemporary(path, c.DryRun)
		if dead {
			c.done.Leftovers = append(c.done.Leftovers, path)
		}
		return err
	})
}

// collectStages deletes the folders of builds whose process died.
func (c *collection) collectStages(ctx context.Context) error {
	parent, exists := c.exists(stagingDir)
	if !exists {
		return nil
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), stagePrefix) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		dead, err := removeStage(ctx, dir, c.Grace, c.DryRun)
		if err != nil {
			return err
		}
		if dead {
			c.done.Leftovers = append(c.done.Leftovers, dir)
		}
	}
	return nil
}
