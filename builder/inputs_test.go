package builder_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// A nightly export that replaces files while a build reads them is not seen: what the
// manifest says is what was read. One that writes into them is an error.
func TestInputsThatChange(t *testing.T) {
	o := segmented(t)
	store, undisturbed := build(t, o)
	files := []string{o.Apps.Input.Paths[0], o.Apps.Input.IDs[0], o.Apps.Attributes.Paths[0], o.Users.Input.Paths[0], o.Segments}
	contents := map[string][]byte{}
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		contents[path] = data
	}
	restore := func() {
		for path, data := range contents {
			require.NoError(t, os.WriteFile(path, data, 0o600))
		}
	}
	for _, stage := range []string{"digest inputs", "read apps", "read users", "index apps"} {
		replace := o
		replace.Progress = &followed{onStage: func(name string) {
			if !strings.HasPrefix(name, stage) {
				return
			}
			for _, path := range files {
				require.NoError(t, os.WriteFile(path+".new", []byte("the next night"), 0o600))
				require.NoError(t, os.Rename(path+".new", path))
			}
		}}
		_, report := build(t, replace)
		require.Equal(t, undisturbed.Digest, report.Digest, stage)
		restore()
	}
	for _, path := range files[:4] {
		written := o
		written.Progress = &followed{onStage: func(name string) {
			if name != "read apps" {
				return
			}
			data := slices.Clone(contents[path])
			data[len(data)-1] ^= 1 // as long as before
			require.NoError(t, os.WriteFile(path, data, 0o600))
			require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)))
		}}
		_, err := builder.Build(t.Context(), store, written)
		require.ErrorContains(t, err, path+" has changed while it was read")
		require.ErrorIs(t, err, input.ErrChanged)
		restore()
	}
	_, report := build(t, o)
	require.Equal(t, undisturbed.Digest, report.Digest)
}

// What comes through pipes has a digest that does not depend on their numbers or names.
func TestInputsThroughPipes(t *testing.T) {
	o := segmented(t)
	_, plain := build(t, o)
	var digests []manifest.Digest
	for _, name := range []string{"63", "a"} {
		piped := o
		dir := t.TempDir()
		through := func(path string) string {
			fifo := filepath.Join(dir, name+filepath.Base(path))
			require.NoError(t, syscall.Mkfifo(fifo, 0o600))
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			go func() { _ = os.WriteFile(fifo, data, 0) }()
			return fifo
		}
		piped.Apps.Input.IDs = []string{through(o.Apps.Input.IDs[0])}
		piped.Apps.Attributes.Paths = []string{through(o.Apps.Attributes.Paths[0])}
		store, report := build(t, piped)
		require.Equal(t, plain.Manifest.Inputs[1].Digest, report.Manifest.Inputs[1].Digest)
		require.Equal(t, "pipe", report.Manifest.Inputs[1].Name)
		require.Empty(t, stages(t, store.Location()), "copies are gone")
		digests = append(digests, report.Digest)
	}
	require.Equal(t, digests[0], digests[1])
}

// Parts in folders of partitions, of which a key becomes an attribute.
func TestPartitionedTowers(t *testing.T) {
	o := segmented(t)
	dir := t.TempDir()
	for i, day := range []string{"2026-11-20", "2026-11-21"} {
		folder := filepath.Join(dir, "dt="+day, "n="+fmt.Sprint(i))
		require.NoError(t, os.MkdirAll(folder, 0o755))
		list := rows("app", 60, 8, uint64(i)+5)
		for j := range list {
			list[j].id = day + "/" + list[j].id
		}
		part := write(t, "part-0", "app_id", schema(t), list)
		require.NoError(t, os.Rename(part, filepath.Join(folder, "part-0")))
	}
	o.Apps.Input.Paths, o.Apps.Input.IDs, o.Apps.Attributes.Paths, o.Apps.Input.IDColumn = []string{dir}, nil, nil, "app_id"
	o.Segments = ""
	o.Apps.Input.PartitionAttributes = []string{"dt"}
	store, report := build(t, o)
	require.Equal(t, 120, report.Manifest.Apps.Rows)
	require.Equal(t, manifest.EvidenceVersion, report.Manifest.Version)
	require.Equal(t, "dt=2026-11-21/n=1/part-0", report.Manifest.Inputs[1].Name)
	field, ok := report.Manifest.Apps.Schema.Lookup("dt")
	require.True(t, ok)
	require.Equal(t, attribute.Timestamp, report.Manifest.Apps.Schema.Field(field).Type)
	snapshot := open(t, store, report.Digest)
	require.Equal(t, 120, snapshot.Tower(shard.Apps).Rows())

	// The same from the manifest.
	again, err := builder.FromManifest(report.Manifest)
	require.NoError(t, err)
	again.Apps.Input.Paths, again.Users.Input.Paths, again.Users.Input.IDs = o.Apps.Input.Paths, o.Users.Input.Paths, o.Users.Input.IDs
	again.Users.Attributes.Paths = o.Users.Attributes.Paths
	_, second := build(t, again)
	require.Equal(t, report.Digest, second.Digest, report.Manifest.Difference(second.Manifest))

	o.Apps.Input.AttributeTypes = map[string]attribute.Type{"dt": attribute.Keyword, "nowhere": attribute.Int}
	_, err = builder.Build(t.Context(), store, o)
	require.ErrorContains(t, err, "types were told of attributes that neither tower has: nowhere")
	delete(o.Apps.Input.AttributeTypes, "nowhere")
	_, report = build(t, o)
	field, _ = report.Manifest.Apps.Schema.Lookup("dt")
	require.Equal(t, attribute.Keyword, report.Manifest.Apps.Schema.Field(field).Type)
}

// The first embedding may come late.
func TestLateEmbedding(t *testing.T) {
	o := segmented(t)
	list := rows("app", 1300, 8, 3)
	for i := range list[:1200] {
		list[i].vector = nil
	}
	o.Apps.Input.Paths, o.Apps.Input.IDs, o.Apps.Attributes.Paths, o.Apps.Input.IDColumn = []string{write(t, "apps", "app_id", schema(t), list)}, nil, nil, "app_id"
	o.Segments, o.MaxRejected = "", 1200
	_, report := build(t, o)
	require.Equal(t, 100, report.Manifest.Apps.Rows)
}
