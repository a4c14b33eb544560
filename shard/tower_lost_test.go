package shard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index/sections"
)

// A map that a fault left amid a change must not be touched again: the runtime ends the
// process for that, beyond all recovery.
func TestFaultAmidAChangeOfAQuota(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.shard")
	w, err := sections.Create(path)
	require.NoError(t, err)
	require.NoError(t, w.Section("texts", []byte("Nine Lives")))
	require.NoError(t, w.Commit())
	file, err := sections.Open(path)
	require.NoError(t, err)
	defer file.Close()
	text, err := file.Section("texts")
	require.NoError(t, err)

	s := &Shard{name: "apps-0000", file: file}
	tw := &Tower{shards: []*Shard{s}}
	f := &fanOut{parts: make([]part, 1), lost: make([]error, 1)}
	quota := &f.merger.quota
	quota.reset([]AtMost{{Field: 0, N: 1}})
	quota.taken[value{text: unsafe.String(&text[0], len(text))}]++
	require.NoError(t, os.Truncate(path, sections.PageSize))
	// The key that is there is compared with this one when the map is being changed.
	count := func() (err error) {
		defer sections.Guard(&err)()
		quota.taken[value{text: strings.Clone("Nine Lives")}]++
		return nil
	}
	err = count()
	require.ErrorIs(t, err, sections.ErrUnreadable)
	require.True(t, tw.loses(f, err))
	tw.release(f)
	require.ErrorContains(t, f.lost[0], "shard apps-0000 cannot be read (section texts, the page at 4096)")
	require.False(t, tw.loses(f, err), "it is lost already")
	require.False(t, tw.loses(f, nil))
	require.False(t, tw.loses(f, &CoverageError{Err: f.lost[0]}), "the answer says so already")
}
