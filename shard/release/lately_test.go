package release_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// lately compares the snapshots beside which another one is judged, by their names.
func (s *story) lately(names ...string) {
	s.t.Helper()
	now, err := s.r.Current(s.t.Context())
	require.NoError(s.t, err)
	got := s.r.Lately(s.t.Context(), now)
	var want []manifest.Digest
	for _, name := range names {
		want = append(want, s.d[name])
	}
	assert.ElementsMatch(s.t, want, got)
}

// What was taken off proves nothing of the next one, until it has traffic again.
func TestLatelyIsWithoutWhatWasTakenOff(t *testing.T) {
	s := newStory(t)
	s.start("z", 0)
	s.start("a", 10)
	s.lately("z", "a")
	s.promote()
	s.lately("z", "a")
	s.back(release.RollbackOptions{})
	s.lately("z")
	s.start("b", 10)
	s.lately("z", "b")
	_, err := s.r.Stop(t.Context(), release.StopOptions{Arm: "candidate"})
	require.NoError(t, err)
	s.lately("z")
	s.back(release.RollbackOptions{To: 3})
	s.lately("a")
	s.start("z", 10)
	s.lately("a", "z")
}

// Neither does what has its traffic for a reason, and not by its gates.
func TestLatelyIsWithoutWhatNeededAReason(t *testing.T) {
	v := verdicts{}
	r, d := newJudged(t, folder(t), v.judge, "z", "a")
	s := &story{t, r, map[string]manifest.Digest{"z": d[0], "a": d[1]}}
	v[d[1]] = low
	s.start("z", 0)
	_, err := r.Start(t.Context(), release.StartOptions{Snapshot: d[1], Change: release.Change{Override: "a test"}})
	require.NoError(t, err)
	s.lately("z")
	delete(v, d[1])
	s.split(100)
	s.lately("z", "a")
}

func TestLatelyEndsAfterTenReleases(t *testing.T) {
	s := newStory(t)
	s.start("z", 0)
	s.start("a", 10)
	s.promote()
	for range 8 {
		s.start("b", 10)
		s.promote()
	}
	s.lately("b")
}
