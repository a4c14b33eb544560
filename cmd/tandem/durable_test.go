package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ledger knows what a power failure would leave of files, from what processes called. It
// is strict: a file is durable once it was synced after the last write to it, and its
// name once its folder was synced after it was made, linked or renamed, and so on for the
// folder's own name. A sync that failed syncs nothing.
type ledger struct {
	unwritten map[string]bool // files whose content may be lost
	unnamed   map[string]bool // files and folders whose names may be lost
	undeleted map[string]bool // files that may come back
	resolve   func(path string) string
	errors    []string // deletions in an order that loses something
}

func newLedger(resolve func(string) string) *ledger {
	return &ledger{unwritten: map[string]bool{}, unnamed: map[string]bool{}, undeleted: map[string]bool{}, resolve: resolve}
}

// read notes what a process called, in the order in which it returned. What one died in
// may have taken place.
func (l *ledger) read(calls []call) {
	for i := range calls {
		c := &calls[i]
		if len(c.paths) == 0 || c.finished && !c.ok {
			continue
		}
		path := l.resolve(c.paths[0])
		switch c.name {
		case "openat":
			if strings.Contains(c.args, "O_CREAT") && (strings.Contains(c.args, "O_EXCL") || strings.Contains(c.args, "O_TRUNC")) {
				l.unwritten[path], l.unnamed[path] = true, true
			}
		case "write", "pwrite64", "ftruncate", "fallocate":
			l.unwritten[path] = true
		case "copy_file_range":
			l.unwritten[l.resolve(c.paths[len(c.paths)-1])] = true
		case "mkdirat", "symlinkat":
			l.unnamed[l.resolve(c.paths[len(c.paths)-1])] = true
		case "fsync", "fdatasync":
			if c.finished {
				l.sync(path)
			}
		case "linkat", "renameat", "renameat2":
			if len(c.paths) < 2 {
				continue
			}
			to := l.resolve(c.paths[1])
			l.unnamed[to] = true
			l.unwritten[to] = l.unwritten[path]
			if c.name != "linkat" && c.finished {
				l.forget(path)
			}
		case "unlinkat":
			if !c.finished {
				continue
			}
			l.delete(path)
		}
	}
}

func (l *ledger) sync(path string) {
	delete(l.unwritten, path)
	for _, names := range []map[string]bool{l.unnamed, l.undeleted} {
		for name := range names {
			if filepath.Dir(name) == path {
				delete(names, name)
			}
		}
	}
}

func (l *ledger) forget(path string) {
	delete(l.unwritten, path)
	delete(l.unnamed, path)
}

// delete notes that a file is gone. A shard must not go before the manifests that went
// are gone for good: one that came back would name it.
func (l *ledger) delete(path string) {
	l.forget(path)
	if strings.HasSuffix(path, ".shard") && !staged(path) {
		for name := range l.undeleted {
			if filepath.Base(filepath.Dir(name)) == "snapshots" && !staged(name) {
				l.errors = append(l.errors, fmt.Sprintf("%s is deleted while the manifest %s could come back", path, name))
			}
		}
	}
	l.undeleted[path] = true
}

// staged reports whether a file is one of a build, which is nothing until it is placed.
func staged(path string) bool { return strings.Contains(path, "/staging/") }

// lost returns what a power failure could take of files, nil for nothing.
func (l *ledger) lost(files ...string) []string {
	var lost []string
	for _, file := range files {
		path := l.resolve(file)
		if l.unwritten[path] {
			lost = append(lost, "the content of "+path)
		}
		for ; path != filepath.Dir(path); path = filepath.Dir(path) {
			if l.unnamed[path] {
				lost = append(lost, "the name of "+path)
			}
		}
	}
	slices.Sort(lost)
	return slices.Compact(lost)
}

func TestLedger(t *testing.T) {
	const log = `1 mkdirat(AT_FDCWD</>, "/s/new", 0755) = 0
1 openat(AT_FDCWD</>, "/s/new/.a.tmp", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 5</s/new/.a.tmp>
1 write(5</s/new/.a.tmp>, ""..., 80 <unfinished ...>
2 fsync(7</s>) = 0
1 <... write resumed>)             = 80
`
	const placed = `1 fsync(5</s/new/.a.tmp>) = 0
1 linkat(AT_FDCWD</>, "/s/new/.a.tmp", AT_FDCWD</>, "/s/new/a", 0) = 0
1 unlinkat(8</s/new>, ".a.tmp", 0) = 0
`
	for _, c := range []struct {
		name, log string
		lost      []string
	}{
		{"placed without a sync of the folder", log + placed, []string{"the name of /s/new/a"}},
		{"placed", log + placed + "1 fsync(5</s/new>) = 0\n", nil},
		{"a sync that fails", log + placed + "1 fsync(5</s/new>) = -1 EIO (Input/output error) (INJECTED)\n", []string{"the name of /s/new/a"}},
		{"killed in a sync", log + placed + "1 fsync(5</s/new>) = ?\n", []string{"the name of /s/new/a"}},
		{"not synced before it is placed", log + strings.Replace(placed, "5</s/new/.a.tmp>", "5</s/new/.b.tmp>", 1) + "1 fsync(5</s/new>) = 0\n",
			[]string{"the content of /s/new/a"}},
		{"in a folder whose parent is not synced", strings.Replace(log, "7</s>", "7</t>", 1) + placed + "1 fsync(5</s/new>) = 0\n",
			[]string{"the name of /s/new"}},
		{"written again", log + placed + "1 fsync(5</s/new>) = 0\n1 pwrite64(5</s/new/a>, \"\"..., 80, 0) = 80\n", []string{"the content of /s/new/a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls, err := parseTrace([]byte(c.log))
			require.NoError(t, err)
			l := newLedger(func(path string) string { return path })
			l.read(calls)
			assert.Equal(t, c.lost, l.lost("/s/new/a"))
			assert.Empty(t, l.errors)
		})
	}
	l := newLedger(func(path string) string { return path })
	calls, err := parseTrace([]byte(`1 unlinkat(AT_FDCWD</>, "/s/snapshots/a.json", 0) = 0
1 unlinkat(AT_FDCWD</>, "/s/shards/b.shard", 0) = 0
`))
	require.NoError(t, err)
	l.read(calls)
	assert.Len(t, l.errors, 1)
}
