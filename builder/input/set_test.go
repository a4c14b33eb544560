package input_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

// rows is an [input.Accept] of files that begin with "row".
func rows(name string, head []byte) error {
	switch {
	case strings.HasPrefix(string(head), "row"):
		return nil
	case filepath.Ext(name) == ".bad":
		return errors.New("it is bad")
	}
	return fmt.Errorf("%w: it is %s", input.ErrForeign, input.FormatOf(head))
}

// tree makes a folder of files, each of which has "row" and its name in it, unless a name
// ends in a text of its own after a blank.
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		name, text, own := strings.Cut(name, " ")
		if !own {
			text = "row " + name
		}
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return dir
}

// open opens paths and returns what is recorded of each file, and the notes.
func open(t *testing.T, o input.Options, paths ...string) (recorded, notes []string, err error) {
	t.Helper()
	set, err := input.Open(t.Context(), paths, rows, o)
	if err != nil {
		require.Nil(t, set)
		return nil, nil, err
	}
	defer func() {
		require.NoError(t, set.Close())
		require.NoError(t, set.Close(), "a second time")
	}()
	list, err := set.Describe(t.Context(), "apps", nil)
	require.NoError(t, err)
	var size int64
	for i, in := range list {
		recorded = append(recorded, in.Name)
		f := set.Files()[i]
		data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		require.NoError(t, err)
		require.Equal(t, manifest.Input{Role: "apps", Name: in.Name, Size: f.Size(), Digest: manifest.Sum(data)}, in)
		size += in.Size
	}
	require.Equal(t, size, set.Size())
	require.NoError(t, set.Unchanged())
	return recorded, set.Notes(), nil
}

// layout is a folder as jobs leave one.
var layout = []string{
	"b.parquet", "a/z.parquet", "a.parquet", "a/_SUCCESS x", "dt=2026-11-20/part-0", "dt=2026-11-20/.part-0.crc x",
	"dt=2026-11-21/country=US/part-0", "_temporary/0/part-9", "README.md text", "_dt=1/part-0", "x.parquet._COPYING_ row",
}

// layoutNames are its files in the order of whole paths.
var layoutNames = []string{"_dt=1/part-0", "a.parquet", "a/z.parquet", "b.parquet", "dt=2026-11-20/part-0", "dt=2026-11-21/country=US/part-0"}

// layoutNotes say what is left out of it, found at a path.
func layoutNotes(path string) []string {
	return []string{
		path + ": left out 4 names beginning with _ or a dot: _temporary/, a/_SUCCESS, dt=2026-11-20/.part-0.crc, x.parquet._COPYING_",
		path + ": left out 1 file of another sort: README.md",
	}
}

func TestFolder(t *testing.T) {
	dir := tree(t, layout...)
	names, notes, err := open(t, input.Options{}, dir)
	require.NoError(t, err)
	require.Equal(t, layoutNames, names)
	require.Equal(t, layoutNotes(dir), notes)

	names, _, err = open(t, input.Options{}, "file://"+dir)
	require.NoError(t, err)
	require.Equal(t, layoutNames, names)
}

func TestPaths(t *testing.T) {
	dir := tree(t, layout...)
	for glob, want := range map[string][]string{
		"b.parquet":            {"b.parquet"},
		"*.parquet":            {"a.parquet", "b.parquet"},
		"[ab].parquet":         {"a.parquet", "b.parquet"},
		"*/part-?":             {"_dt=1/part-0", "dt=2026-11-20/part-0"},
		"dt=*":                 {"dt=2026-11-20/part-0", "dt=2026-11-21/country=US/part-0"},
		"dt=*/":                {"dt=2026-11-20/part-0", "dt=2026-11-21/country=US/part-0"},
		"**/part-*":            {"_dt=1/part-0", "dt=2026-11-20/part-0", "dt=2026-11-21/country=US/part-0"},
		"**":                   {"_dt=1/part-0", "a.parquet", "a/z.parquet", "b.parquet", "dt=2026-11-20/part-0", "dt=2026-11-21/country=US/part-0"},
		"_temporary/*/part-*":  {"0/part-9"},
		"_tempo*/*/part-*":     {"_temporary/0/part-9"},
		"a*":                   {"a.parquet", "a/z.parquet"},
		"dt=*-21/**/*":         {"dt=2026-11-21/country=US/part-0"},
		"dt=2026-11-21/../b.*": {"b.parquet"},
	} {
		names, _, err := open(t, input.Options{}, dir+"/"+glob)
		require.NoError(t, err, glob)
		require.Equal(t, want, names, glob)
	}
	names, notes, err := open(t, input.Options{}, dir+"/dt=*", dir+"/a.parquet")
	require.NoError(t, err)
	require.Equal(t, []string{"dt=2026-11-20/part-0", "dt=2026-11-21/country=US/part-0", "a.parquet"}, names, "paths are in the order in which they are given")
	require.Equal(t, []string{dir + "/dt=*: left out 1 name beginning with _ or a dot: dt=2026-11-20/.part-0.crc"}, notes)

	literal := tree(t, "part[0].parquet", "part0.parquet")
	names, _, err = open(t, input.Options{}, literal+"/part[0].parquet")
	require.NoError(t, err)
	require.Equal(t, []string{"part[0].parquet"}, names, "a file of that name comes before a glob")
}

func TestPathsThatMeanNothing(t *testing.T) {
	dir := tree(t, "a.parquet", "text/README.md words", "empty/_SUCCESS x", "bad/x.bad words")
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "bad", "link")))
	ring := tree(t, "a/row")
	require.NoError(t, os.Symlink("..", filepath.Join(ring, "a", "up")))
	fifo := tree(t, "a")
	require.NoError(t, syscall.Mkfifo(filepath.Join(fifo, "pipe"), 0o600))
	for path, want := range map[string]string{
		"":                      "a path is empty",
		dir + "/none":           "open " + dir + "/none: no such file or directory",
		dir + "/*.csv":          "no file matches",
		dir + "/[a":             "syntax error in pattern",
		dir + "/text":           "no file is there; " + dir + "/text: left out 1 file of another sort: README.md",
		dir + "/empty":          "no file is there; " + dir + "/empty: left out 1 name beginning with _ or a dot: _SUCCESS",
		dir + "/text/README.md": "not a file of the input: it is text",
		dir + "/bad":            "no such file or directory",
		dir + "/bad/x.bad":      "it is bad",
		dir + "/bad/*.bad":      "it is bad",
		ring:                    "leads back to a folder that it is in",
		fifo:                    "pipe is neither a file nor a folder",
		"ftp://host/x":          "ftp",
		"file://host/x":         "accepted: file:///PATH",
	} {
		_, _, err := open(t, input.Options{}, path)
		require.ErrorContains(t, err, want, path)
	}
	require.NoError(t, os.Link(dir+"/a.parquet", dir+"/b.parquet"))
	_, _, err := open(t, input.Options{}, dir+"/*.parquet")
	require.ErrorContains(t, err, "it is the same file as "+dir+"/a.parquet, and each is read once")
	_, _, err = open(t, input.Options{}, dir+"/a.parquet", dir+"/../"+filepath.Base(dir)+"/a.parquet")
	require.ErrorContains(t, err, "it is the same file as")
}

// tables are folders that are refused, and the paths by which that must not be evaded.
var tables = []struct {
	kind  string
	files []string
	paths []string
}{
	{"Delta Lake", []string{"t/_delta_log/0.json {}", "t/part-0", "t/dt=1/part-0"}, []string{"", "t", "t/", "t/*", "t/dt=1", "t/dt=*/part-0", "*/part-0"}},
	{"Hudi", []string{"t/.hoodie/hoodie.properties x", "t/dt=1/country=US/part-0"}, []string{"", "t", "t/dt=1", "t/dt=1/country=US"}},
	{"Iceberg", []string{"t/metadata/v1.metadata.json {}", "t/data/part-0", "t/data/dt=1/part-0"}, []string{"", "t", "t/data", "t/data/*", "t/data/dt=1"}},
}

func TestTablesAreRefused(t *testing.T) {
	for _, table := range tables {
		dir := tree(t, table.files...)
		for _, path := range table.paths {
			_, _, err := open(t, input.Options{}, filepath.Join(dir, path))
			require.ErrorContains(t, err, "is a table of "+table.kind+", whose files are not its rows", path)
			require.ErrorContains(t, err, "export it as plain Parquet")
		}
	}
	// A link hides none.
	for _, table := range tables {
		links, target := t.TempDir(), filepath.Join(tree(t, table.files...), table.paths[len(table.paths)-1])
		if table.kind == "Delta Lake" {
			target = filepath.Join(filepath.Dir(target), "..", "t", "dt=1")
		}
		require.NoError(t, os.MkdirAll(links+"/in", 0o755))
		require.NoError(t, os.Symlink(target, links+"/in/link"))
		for _, path := range []string{"in/link", "in/link/*", "in", "*"} {
			_, _, err := open(t, input.Options{}, filepath.Join(links, path))
			require.ErrorContains(t, err, "is a table of "+table.kind+", whose files are not its rows", path)
		}
	}
	// These are none.
	dir := tree(t, "metadata/notes.json {}", "metadata/part-0", "data/part-0", "hoodie/part-0")
	names, _, err := open(t, input.Options{}, dir)
	require.NoError(t, err)
	require.Equal(t, []string{"data/part-0", "hoodie/part-0", "metadata/part-0"}, names)
	// A file that is named is what its owner says it is.
	dir = tree(t, tables[0].files...)
	_, _, err = open(t, input.Options{}, dir+"/t/part-0")
	require.NoError(t, err)
}

func TestPartition(t *testing.T) {
	dir := tree(t, "t/dt=2026-11-20/country=a%2Fb%3A/part-0", "t/dt=2026-11-20/x/part-1")
	set, err := input.Open(t.Context(), []string{dir + "/t/dt=2026-11-20"}, rows, input.Options{Partitions: true})
	require.NoError(t, err)
	defer set.Close()
	value, ok := set.Partition(0, "dt")
	require.True(t, ok)
	require.Equal(t, "2026-11-20", value)
	value, ok = set.Partition(0, "country")
	require.True(t, ok)
	require.Equal(t, "a/b:", value)
	_, ok = set.Partition(1, "country")
	require.False(t, ok)
	list, err := set.Describe(t.Context(), "apps", nil)
	require.NoError(t, err)
	require.Equal(t, "dt=2026-11-20/country=a%2Fb%3A/part-0", list[0].Name, "what the keys are is part of what is recorded")

	names, _, err := open(t, input.Options{}, dir+"/t/dt=2026-11-20")
	require.NoError(t, err)
	require.Equal(t, []string{"country=a%2Fb%3A/part-0", "x/part-1"}, names, "unless nobody asks for it")
}

// A file that is replaced is read as it was; one that is written to is an error.
func TestChanges(t *testing.T) {
	for name, test := range map[string]struct {
		change func(path string) error
		want   string
	}{
		"renamed over": {func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("row of another night"), 0o600), os.Rename(path+".new", path))
		}, ""},
		"removed": {os.Remove, ""},
		"written": {func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("row B"), 0o600), os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)))
		}, "has changed while it was read: it was last written "},
		"truncated": {func(path string) error { return os.Truncate(path, 2) }, "has changed while it was read: it had 5 bytes and has 2"},
		"appended": {func(path string) error {
			return errors.Join(os.Truncate(path, 9))
		}, "has changed while it was read: it had 5 bytes and has 9"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, "a row A")
			set, err := input.Open(t.Context(), []string{dir}, rows, input.Options{})
			require.NoError(t, err)
			defer set.Close()
			require.NoError(t, test.change(filepath.Join(dir, "a")))
			err = set.Unchanged()
			list, described := set.Describe(t.Context(), "apps", nil)
			if test.want != "" {
				require.ErrorContains(t, err, filepath.Join(dir, "a")+" "+test.want)
				require.ErrorIs(t, err, input.ErrChanged)
				return
			}
			require.NoError(t, errors.Join(err, described))
			require.Equal(t, manifest.Sum([]byte("row A")), list[0].Digest)
		})
	}
}

func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apps.fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	text := "row " + strings.Repeat("x", 3<<20)
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(path, []byte(text), 0) }()
	folder := t.TempDir()
	var copied, total int64
	o := input.Options{Folder: func() (string, error) { return folder, nil }, Progress: func(done, of int64) { copied, total = done, of }}
	names, _, err := open(t, o, path)
	require.NoError(t, err)
	require.NoError(t, <-written)
	require.Equal(t, []string{"pipe"}, names)
	require.EqualValues(t, []int64{int64(len(text)), -1}, []int64{copied, total})
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Empty(t, left, "a copy has no name")

	// What a shell opens for <(...).
	r, w, err := os.Pipe()
	require.NoError(t, err)
	go func() {
		_, err := io.WriteString(w, text)
		written <- errors.Join(err, w.Close())
	}()
	names, _, err = open(t, input.Options{}, fmt.Sprintf("/dev/fd/%d", r.Fd()))
	require.NoError(t, err)
	require.NoError(t, <-written)
	require.Equal(t, []string{"pipe"}, names)
	require.NoError(t, r.Close())

	// A file that the shell has opened: < FILE.
	f, err := os.Open(filepath.Join(tree(t, "a"), "a"))
	require.NoError(t, err)
	names, _, err = open(t, input.Options{}, fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	require.NoError(t, err)
	require.Equal(t, []string{"pipe"}, names)
	require.NoError(t, f.Close())
	require.Equal(t, "pipe", input.RecordedName("/dev/stdin"))
	require.Equal(t, "63", input.RecordedName("/dev/fd/x/63"))
}

// A pipe that nobody writes to, or whose writer says no more, ends with the context.
func TestSilentPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apps.fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := input.Open(ctx, []string{path}, rows, input.Options{})
	require.ErrorIs(t, err, context.Canceled)

	r, w, err := os.Pipe()
	require.NoError(t, err)
	_, err = io.WriteString(w, "row")
	require.NoError(t, err)
	ctx, cancel = context.WithCancel(t.Context())
	o := input.Options{Progress: func(int64, int64) { cancel() }}
	_, err = input.Open(ctx, []string{fmt.Sprintf("/dev/fd/%d", r.Fd())}, rows, o)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, errors.Join(r.Close(), w.Close()))
}

func TestFullDisk(t *testing.T) {
	folder := objectstest.SmallDisk(t, 1<<20, 100)
	path := filepath.Join(t.TempDir(), "apps.fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(path, []byte("row "+strings.Repeat("x", 8<<20)), 0) }()
	_, _, err := open(t, input.Options{Folder: func() (string, error) { return folder, nil }}, path)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "copy it to "+folder)
	require.ErrorIs(t, <-written, syscall.EPIPE)
}
