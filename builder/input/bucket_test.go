package input

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// inBucket opens what a key means in a bucket, and returns what is recorded of each file,
// and the notes.
func inBucket(t *testing.T, f *objectstest.Faults, key string, o Options) (recorded []manifest.Input, notes []string, err error) {
	t.Helper()
	accept := func(name string, head []byte) error {
		if strings.HasPrefix(string(head), "row") {
			return nil
		}
		return fmt.Errorf("%w: it is %s", ErrForeign, FormatOf(head))
	}
	s := &search{path: "s3://b/" + key, accept: accept, spool: &spool{Options: o, ctx: t.Context()}}
	b := &bucketSearch{search: s, objects: f.Bucket(""), base: "s3://b/"}
	defer func() { require.NoError(t, b.objects.Close()) }()
	files, err := b.run(t.Context(), key)
	set := &Set{files: files}
	defer func() { require.NoError(t, set.Close()) }()
	if err != nil {
		return nil, nil, err
	}
	require.NoError(t, set.Unchanged())
	recorded, err = set.Describe(t.Context(), "", nil)
	for i, f := range set.Files() {
		data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		require.NoError(t, err)
		require.Equal(t, manifest.Sum(data), recorded[i].Digest)
	}
	return recorded, s.notes(), err
}

func put(f *objectstest.Faults, keys ...string) {
	for _, key := range keys {
		key, text, own := strings.Cut(key, " ")
		if !own {
			text = "row " + key
		}
		f.Put(key, []byte(text), time.Unix(1, 0))
	}
}

// A bucket is found in as a folder is.
func TestBucket(t *testing.T) {
	f := objectstest.NewFaults()
	put(f, "t/b.parquet", "t/a/z.parquet", "t/a.parquet", "t/a/_SUCCESS x", "t/dt=1/part-0", "t/dt=1/.part-0.crc x", "t/_temporary/0/part-9", "t/_temporary/1/part-9",
		"t/README.md text", "t/_dt=1/part-0", "t/dt=1/ ", "t/dt=1_$folder$ ", "tower.parquet", "marker ", "marker/part-0")
	f.SetPageSize(3)
	for key, want := range map[string][]string{
		"t":             {"_dt=1/part-0", "a.parquet", "a/z.parquet", "b.parquet", "dt=1/part-0"},
		"t/":            {"_dt=1/part-0", "a.parquet", "a/z.parquet", "b.parquet", "dt=1/part-0"},
		"t/*.parquet":   {"a.parquet", "b.parquet"},
		"t/dt=*":        {"dt=1/part-0"},
		"*/dt=1":        {"t/dt=1/part-0"},
		"t/**/part-*":   {"_dt=1/part-0", "dt=1/part-0"},
		"t/a.parquet":   {"a.parquet"},
		"tower.parquet": {"tower.parquet"},
		"t*.parquet":    {"tower.parquet"},
		"marker":        {"part-0"},
		"t/_temp*/0":    {"_temporary/0/part-9"},
	} {
		recorded, notes, err := inBucket(t, f, key, Options{})
		require.NoError(t, err, key)
		var names []string
		for _, in := range recorded {
			names = append(names, in.Name)
		}
		require.Equal(t, want, names, key)
		if key == "t" {
			require.Equal(t, []string{
				"s3://b/t: left out 3 names beginning with _ or a dot: _temporary/, a/_SUCCESS, dt=1/.part-0.crc",
				"s3://b/t: left out 1 file of another sort: README.md",
			}, notes)
		}
	}
	for key, want := range map[string]string{
		"none": "no file is there", "t/*.csv": "no file matches", "t/README.md": "not a file of the input: it is text",
	} {
		_, _, err := inBucket(t, f, key, Options{})
		require.ErrorContains(t, err, want)
	}
	recorded, _, err := inBucket(t, f, "t/dt=1/part-0", Options{Partitions: true})
	require.NoError(t, err)
	require.Equal(t, "dt=1/part-0", recorded[0].Name)
}

func TestTablesInBuckets(t *testing.T) {
	for _, table := range []struct{ kind, file string }{
		{"Delta Lake", "t/_delta_log/0.json"}, {"Hudi", "t/.hoodie/hoodie.properties"}, {"Iceberg", "t/metadata/v1.metadata.json"},
	} {
		f := objectstest.NewFaults()
		put(f, table.file, "t/data/part-0", "t/dt=1/part-0")
		for _, key := range []string{"", "t", "t/*", "t/data", "t/dt=1", "t/dt=*/part-0", "*"} {
			_, _, err := inBucket(t, f, key, Options{})
			require.ErrorContains(t, err, "s3://b/t is a table of "+table.kind, key)
		}
	}
}

// Whatever happens to requests, an object is read whole or not at all.
func TestFetchThroughFaults(t *testing.T) {
	text := "row " + strings.Repeat("0123456789", 300_000)
	replaced := "row " + strings.Repeat("abcdefghij", 300_000)
	read := objectstest.Rule{Op: objectstest.Read, Key: "t/"}
	with := func(r objectstest.Rule, fault objectstest.Fault, times int, bytes int64) objectstest.Rule {
		r.Fault, r.Times, r.Bytes = fault, times, bytes
		return r
	}
	for name, test := range map[string]struct {
		rule objectstest.Rule
		want string
	}{
		"cut thrice":        {with(read, objectstest.Cut, 3, 1<<20), ""},
		"cut in the head":   {with(read, objectstest.Cut, 2, 100), ""},
		"stalled":           {with(read, objectstest.Stall, 1, 1<<20), ""},
		"cut for ever":      {with(read, objectstest.Cut, 0, 0), "unexpected EOF"},
		"short":             {with(read, objectstest.Short, 0, 1<<20), ""},
		"short in the head": {with(read, objectstest.Short, 2, 100), ""},
		"nothing":           {with(read, objectstest.Short, 0, 0), "0 of 3000004 bytes came: unexpected EOF"},
		"never listed":      {objectstest.Rule{Op: objectstest.List}, "injected"},
		"never looked at":   {objectstest.Rule{Op: objectstest.Stat}, "injected"},
		"never read":        {with(read, objectstest.Fail, 0, 0), "injected"},
		"denied":            {objectstest.Rule{Op: objectstest.Read, Err: objectstest.ErrDenied}, "403"},
		"no bucket to list": {objectstest.Rule{Op: objectstest.List, Fault: objectstest.Empty}, "no file is there"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := objectstest.NewFaults()
				f.Put("t/a", []byte(text), time.Unix(1, 0))
				f.Put("t/b", []byte(text), time.Unix(1, 0))
				f.Inject(test.rule)
				var copied, total int64
				recorded, _, err := inBucket(t, f, "t", Options{Progress: func(done, of int64) { copied, total = done, of }})
				if test.want != "" {
					require.ErrorContains(t, err, test.want)
					return
				}
				require.NoError(t, err)
				require.Len(t, recorded, 2)
				for _, in := range recorded {
					require.Equal(t, manifest.Sum([]byte(text)), in.Digest)
				}
				require.EqualValues(t, []int64{2 * int64(len(text)), 2 * int64(len(text))}, []int64{copied, total})
			})
		})
	}
	t.Run("replaced between two parts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := objectstest.NewFaults()
			f.Put("t/a", []byte(text), time.Unix(1, 0))
			f.Inject(with(read, objectstest.Cut, 1, 1<<20))
			second := read
			second.Times, second.Do = 1, func(objectstest.Request) { f.Put("t/a", []byte(replaced), time.Unix(2, 0)) }
			f.Inject(second)
			_, _, err := inBucket(t, f, "t", Options{})
			require.ErrorContains(t, err, "s3://b/t/a has changed while it was read")
		})
	})
}

func TestSplitURL(t *testing.T) {
	for url, want := range map[string][2]string{
		"s3://b":                         {"s3://b", ""},
		"s3://b/":                        {"s3://b", ""},
		"s3://b/dt=a%3Ab/*.parquet":      {"s3://b", "dt=a%3Ab/*.parquet"},
		"s3://b/t/?region=eu-west-1&x=/": {"s3://b?region=eu-west-1&x=/", "t/"},
		"azblob://c?protocol=http":       {"azblob://c?protocol=http", ""},
	} {
		location, key := splitURL(url)
		require.Equal(t, want, [2]string{location, key}, url)
	}
}

// The same through the client library of S3, where there is a server.
func TestBucketOfS3(t *testing.T) {
	location := objectstest.S3Location(t)
	whole, query, _ := strings.Cut(location, "?")
	var prefix string
	var rest []string
	for _, p := range strings.Split(query, "&") {
		if value, ok := strings.CutPrefix(p, "prefix="); ok {
			prefix = value
		} else {
			rest = append(rest, p)
		}
	}
	url := whole + "/" + prefix + "t?" + strings.Join(rest, "&")
	bucket, err := objects.Open(t.Context(), location)
	require.NoError(t, err)
	dir := t.TempDir()
	for i := range 50 {
		name := fmt.Sprintf("t/dt=%d/part-%d", i%3, i)
		data := []byte("row " + strings.Repeat(name, 1000))
		require.NoError(t, bucket.Write(t.Context(), name, data))
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	require.NoError(t, bucket.Close())
	var lists [2][]manifest.Input
	for i, path := range []string{url, filepath.Join(dir, "t")} {
		set, err := Open(t.Context(), []string{path}, nil, Options{})
		require.NoError(t, err)
		lists[i], err = set.Describe(t.Context(), "apps", nil)
		require.NoError(t, errors.Join(err, set.Close()))
	}
	require.Len(t, lists[0], 50)
	require.Equal(t, lists[1], lists[0], "a folder and its copy in a bucket are the same input")
}
