package router

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
)

// Audits go to replicas that do them and have the position, each as often; where there is none it
// is said whether that is so now or for good, and of whom.
func TestAuditors(t *testing.T) {
	s := newTrial(5).set
	list := *s.now.Load()
	for i := range list {
		list[i].audits = i < 4
	}
	list[2].spare, list[3].late = true, true
	p := &auditedPart{part: &part{set: s, at: shard.Position{Sequence: 5}}}
	first := map[*peer]int{}
	for range 1000 {
		got, err := p.auditors()
		require.NoError(t, err)
		require.Len(t, got, 2)
		first[got[0]]++
	}
	assert.InDelta(t, 500, first[list[0].peer], 150)
	assert.InDelta(t, 500, first[list[1].peer], 150)

	list[0].oldest, list[1].oldest = 6, 6
	list[0].newest, list[1].newest = 9, 9
	_, err := p.auditors()
	var gone *GoneError
	require.ErrorAs(t, err, &gone)
	assert.Contains(t, err.Error(), "at position 5 of the live log any more")

	list[0].audits, list[1].audits = false, false
	_, err = p.auditors()
	var not *NotAuditedError
	require.ErrorAs(t, err, &not)
	assert.ElementsMatch(t, []string{list[0].address, list[1].address, list[4].address}, not.Nodes)
	for _, address := range not.Nodes {
		assert.Contains(t, err.Error(), address)
	}
}
