package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// faultTemplate is the store that each fault trial begins with a copy of. Its log has
// more releases than keep their snapshots, and ends with two arms. It also has what gc
// is to delete.
type faultTemplate struct {
	dir string // of the store and the inputs of builds

	first    string // a snapshot that no release needs any longer
	control  string // one that serves
	arm      string // one that serves beside it
	newest   string // one that was not released yet
	unneeded string // one that was never released, with the shards of control
	orphan   string // a shard that no snapshot has

	of map[string][]string // the shards of each snapshot
}

// The generations of a template's log.
const (
	controlOnly   = 3 // and any odd one up to 13
	armOnly       = 6 // and any even one up to 12
	bothArms      = 14
	newestVersion = "newest"
)

func newFaultTemplate(t *testing.T) *faultTemplate {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	f := &faultTemplate{dir: dir, of: map[string][]string{}}
	s := &releasing{location: f.store(), cache: t.TempDir()}
	s.run(t, "generate", "--out", filepath.Join(dir, "towers"), "--apps", "60", "--users", "30", "--dim", "8", "--interactions-per-user", "0")
	// What a few rows cannot pass.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "gates.yaml"), []byte("latency: off\nconcentration: off\nrecall: {worst: 0}\n"), 0o644))
	build := func(version, seed string) string {
		s.run(t, f.build(f.store(), version, seed)...)
		store, err := snapshots.OpenStore(t.Context(), f.store(), snapshots.Options{})
		require.NoError(t, err)
		defer store.Close()
		digest, err := store.Resolve(t.Context(), "")
		require.NoError(t, err)
		return string(digest)
	}
	f.first, f.control, f.arm = build("first", "1"), build("control", "2"), build("arm", "3")
	f.release(t)
	f.unneeded, f.newest = build("unneeded", "2"), build(newestVersion, "4")
	f.litter(t)
	content := readStoreContent(f.store())
	require.Empty(t, content.problems)
	require.Len(t, content.manifests, 5)
	f.of = content.manifests
	return f
}

func (f *faultTemplate) store() string { return filepath.Join(f.dir, "store") }

// build returns the arguments that build a snapshot.
func (f *faultTemplate) build(store, version, seed string) []string {
	towers := filepath.Join(f.dir, "towers")
	return []string{"build", "--store", store, "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
		"--gates", filepath.Join(f.dir, "gates.yaml"), "--model", "feed", "--model-version", version, "--metric", "dot", "--seed", seed, "--json"}
}

// release makes the releases.
func (f *faultTemplate) release(t *testing.T) {
	store, err := snapshots.OpenStore(t.Context(), f.store(), snapshots.Options{})
	require.NoError(t, err)
	defer store.Close()
	r := release.New(store)
	start := func(digest string) {
		_, err := r.Start(t.Context(), release.StartOptions{Snapshot: manifest.Digest(digest), Weight: 100, Change: release.Change{Override: "a trial"}})
		require.NoError(t, err)
	}
	promote := func() {
		_, err := r.Promote(t.Context(), release.Change{}, release.Candidate)
		require.NoError(t, err)
	}
	rollback := func(to uint64) {
		_, err := r.Rollback(t.Context(), release.RollbackOptions{To: to})
		require.NoError(t, err)
	}
	start(f.first)
	start(f.control)
	promote() // generation 3
	start(f.arm)
	rollback(controlOnly)
	start(f.arm)
	promote() // generation 7
	for generation := uint64(8); generation < bothArms; generation += 2 {
		rollback(controlOnly)
		rollback(7)
	}
	rollback(4)
}

// litter leaves what processes that died leave, and makes all but the newest snapshot old.
func (f *faultTemplate) litter(t *testing.T) {
	write := func(name, text string) {
		path := filepath.Join(f.store(), name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	const orphan = "a shard that no snapshot has"
	f.orphan = sumText([]byte(orphan))
	write("shards/"+f.orphan+".shard", orphan)
	write("releases/.000000000015.json.1.tmp", "half")
	write("staging/build-1/apps-0000.rows", "half")
	write("intents/0011223344556677.json", `{"digests":["`+f.first+`"]}`)
	write("doomed/"+f.newest, "")
	require.NoError(t, filepath.WalkDir(f.store(), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.Contains(path, f.newest+".json") {
			age := 240 * time.Hour
			err = os.Chtimes(path, time.Time{}, time.Now().Add(-age))
		}
		return err
	}))
}

// layout is how a store lies in the file system.
type layout struct {
	name   string // of its folder
	linked string // the folder in it that is a symbolic link, empty for none
}

// copyTo copies the store below a folder, with the times of its files, and returns where
// it is.
func (f *faultTemplate) copyTo(dir string, l layout) (string, error) {
	to := filepath.Join(dir, l.name)
	err := filepath.WalkDir(f.store(), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(f.store(), path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o644); err != nil {
			return err
		}
		return os.Chtimes(filepath.Join(to, name), time.Time{}, info.ModTime())
	})
	if err != nil || l.linked == "" {
		return to, err
	}
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		return to, err
	}
	if err := os.Rename(filepath.Join(to, l.linked), filepath.Join(elsewhere, l.linked)); err != nil {
		return to, err
	}
	return to, os.Symlink(filepath.Join(elsewhere, l.linked), filepath.Join(to, l.linked))
}

// age makes marks and intents as old as those of processes that died long ago.
func age(store string) error {
	for _, sub := range []string{"doomed", "intents"} {
		list, err := os.ReadDir(filepath.Join(store, sub))
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		for _, e := range list {
			err := os.Chtimes(filepath.Join(store, sub, e.Name()), time.Time{}, time.Now().Add(-2*time.Hour))
			if err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	return nil
}
