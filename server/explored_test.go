package server

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/release"
)

// explores returns a service whose requests explore, and one of the same snapshot whose do not.
func explores(tb testing.TB, data *towers, x release.Exploration) (exploring, plain *Service) {
	exploring = NewService(slog.New(slog.DiscardHandler))
	s := exploring.newServing(open(tb, data.publish(tb)), nil)
	arm := release.Arm{Name: "control", ModelVersion: "v1", Weight: release.Total}
	for n := range release.Total {
		arm.Buckets = append(arm.Buckets, n)
	}
	exploring.switchTo(&release.Release{Generation: 2, Salt: "salt", Arms: []release.Arm{arm}, Exploration: &x}, []*serving{s})
	s.release()
	tb.Cleanup(exploring.Close)
	return exploring, data.loaded(tb)
}

// TestExplored: an explored answer begins as it would without, and ends with others of the ranks
// that follow; which these are depends on the id of the request alone. All pages together are what
// one answer would be, in another order.
func TestExplored(t *testing.T) {
	type pair struct {
		x                release.Exploration
		exploring, other *Service
	}
	var all []pair
	for i, x := range []release.Exploration{{Share: 500, Places: 1, Pool: 20}, {Share: 900, Places: 3, Pool: 12}, {Share: 999, Places: 10, Pool: 1000}} {
		data := newTowers(rand.New(rand.NewPCG(uint64(i), 3)), index.Dot, 5, 80, 10, 1+i)
		exploring, other := explores(t, data, x)
		all = append(all, pair{x, exploring, other})
	}
	rapid.Check(t, func(t *rapid.T) {
		p := all[rapid.IntRange(0, len(all)-1).Draw(t, "service")]
		filter := rapid.SampledFrom([]string{"", "free", "price < 0.0"}).Draw(t, "filter")
		r := &tandemv1.RetrieveRequest{
			UserId: "u3", K: rapid.Uint32Range(1, 40).Draw(t, "k"), RecallTarget: new(1.0), Filter: filter, Attributes: []string{"price"},
			RequestId: rapid.StringMatching("[a-z]{5}").Draw(t, "id"),
		}
		if most := rapid.IntRange(0, 30).Draw(t, "at most"); most > 0 {
			r.AtMost = []*tandemv1.AtMost{{Attribute: "developer", N: uint32(most)}}
		}
		k := int(r.K)
		r.K = 1000
		whole, err := p.other.retrieve(t.Context(), r)
		require.NoError(t, err)
		r.K = uint32(k)
		first, err := p.exploring.retrieve(t.Context(), r)
		require.NoError(t, err)
		again, err := p.exploring.retrieve(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, idsIn(first.Candidates), idsIn(again.Candidates), "the same again")

		want := idsIn(whole.Candidates)
		pool := min(p.x.Pool, len(want)) - k
		could := k > p.x.Places && k+p.x.Places <= p.x.Pool && pool >= p.x.Places
		n := k - p.x.Places
		share := float64(p.x.Share) / release.Total
		switch {
		case !could:
			require.False(t, first.Explored)
			require.Equal(t, want[:min(k, len(want))], idsIn(first.Candidates))
		case first.Explored:
			require.Equal(t, want[:n], idsIn(first.Candidates[:n]))
			for _, c := range first.Candidates[n:] {
				at := slices.Index(want, c.Id)
				require.True(t, at >= k && at < k+pool, "%s is at rank %d", c.Id, at+1)
				require.Equal(t, whole.Candidates[at].Score, c.Score)
				require.Equal(t, whole.Candidates[at].Attributes["price"].GetFloat(), c.Attributes["price"].GetFloat())
			}
		default:
			require.Equal(t, want[:k], idsIn(first.Candidates))
		}
		for i, c := range first.Candidates {
			require.Equal(t, could, c.Propensity != nil)
			switch {
			case !could:
			case i < n:
				require.EqualValues(t, 1, *c.Propensity)
			case first.Explored:
				require.InDelta(t, share/float64(pool), *c.Propensity, 1e-7)
			default:
				require.InDelta(t, 1-share, *c.Propensity, 1e-7)
			}
		}

		var got []string
		for page := first; ; {
			got = append(got, idsIn(page.Candidates)...)
			require.Equal(t, len(page.Candidates) < int(r.K), page.ShortReasonText != "")
			if page.NextPageToken == "" {
				break
			}
			require.NotEmpty(t, page.Candidates)
			r.PageToken, r.K = page.NextPageToken, rapid.Uint32Range(1, 30).Draw(t, "next k")
			r.RequestId = "of another page"
			page, err = p.exploring.retrieve(t.Context(), r)
			require.NoError(t, err)
			require.False(t, page.Explored)
			for _, c := range page.Candidates {
				require.Nil(t, c.Propensity)
			}
			if len(r.AtMost) == 0 && len(page.Candidates) < int(r.K) {
				require.Equal(t, whole.ShortReason, page.ShortReason)
			}
		}
		require.ElementsMatch(t, want, got)
	})
}

// idsIn returns the ids of candidates.
func idsIn(list []*tandemv1.Candidate) []string {
	ids := []string{}
	for _, c := range list {
		ids = append(ids, c.Id)
	}
	return ids
}

// TestExplorationFrequencies counts which app is at which place, over requests with fixed ids: as
// often as the propensities say that are told of it, within five standard deviations.
func TestExplorationFrequencies(t *testing.T) {
	const requests, k = 6000, 6
	s, _ := explores(t, smallTowers(index.Dot), release.Exploration{Share: 400, Places: 2, Pool: 10})
	type cell struct {
		place int
		id    string
	}
	counts, told := map[cell]int{}, map[cell]float64{}
	explored := 0
	for n := range requests {
		got, err := s.retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: "u1", K: k, RecallTarget: new(1.0), RequestId: fmt.Sprint("request ", n)})
		require.NoError(t, err)
		require.Len(t, got.Candidates, k)
		if got.Explored {
			explored++
		}
		for place, c := range got.Candidates {
			at := cell{place, c.Id}
			counts[at]++
			if p, ok := told[at]; ok {
				require.InDelta(t, p, c.GetPropensity(), 1e-9, "the same each time")
			}
			told[at] = float64(c.GetPropensity())
		}
	}
	sums := make([]float64, k)
	for at, n := range counts {
		p := told[at]
		sums[at.place] += p
		assert.InDelta(t, p*requests, n, 5*math.Sqrt(requests*p*(1-p))+1e-3, "%v", at)
	}
	for place, sum := range sums {
		assert.InDelta(t, 1, sum, 1e-6, "all that may be at place %d were", place)
	}
	assert.InDelta(t, 0.4, float64(explored)/requests, 5*math.Sqrt(0.4*0.6/requests))
	assert.Len(t, counts, (k-2)+2*(1+4))
}

// TestNotExplored: what is explained, for users, or a further page has no place drawn, and a release
// that explores nothing says nothing of it.
func TestNotExplored(t *testing.T) {
	s, other := explores(t, smallTowers(index.Dot), release.Exploration{Share: 999, Places: 1, Pool: 20})
	for name, r := range map[string]*tandemv1.RetrieveRequest{
		"explain": {UserId: "u1", Explain: true},
		"users":   {UserId: "u1", Target: tandemv1.Tower_TOWER_USERS},
	} {
		r.K, r.RequestId = 5, "r"
		got, err := s.retrieve(t.Context(), r)
		require.NoError(t, err, name)
		assert.False(t, got.Explored, name)
		assert.Nil(t, got.Candidates[0].Propensity, name)
	}
	got, err := other.retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: "u1", K: 5, RequestId: "r"})
	require.NoError(t, err)
	assert.Nil(t, got.Candidates[0].Propensity)
	got, err = s.retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: "u1", K: 5, RequestId: "r"})
	require.NoError(t, err)
	assert.True(t, got.Explored)
}

// TestExploredIsRecorded: exposures have the propensities, and what comes next without what was
// drawn of it; large answers have them too, in each protocol.
func TestExploredIsRecorded(t *testing.T) {
	f := newFleet(t, 1, Config{Logger: slog.New(slog.DiscardHandler), RecordShare: 1, RecordNext: 50})
	_, err := f.releases.Split(t.Context(), release.SplitOptions{Exploration: &release.Exploration{Share: 999, Places: 2, Pool: 30}})
	require.NoError(t, err)
	f.await(t, 2)
	got, err := f.p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 6, RequestId: "r"}))
	require.NoError(t, err)
	require.True(t, got.Msg.Explored)
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithProtoJSON()} {
		again, err := f.p.client(option).Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 6, RequestId: "r"}))
		require.NoError(t, err)
		for i, c := range again.Msg.Candidates {
			assert.Equal(t, got.Msg.Candidates[i].GetPropensity(), c.GetPropensity())
		}
	}
	f.p.stop()
	require.NoError(t, <-f.p.done)
	list := recorded(t, f.store.Objects())
	require.Len(t, list, 3)
	q := list[0]
	assert.True(t, q.Explored)
	for i, c := range got.Msg.Candidates {
		assert.Equal(t, c.GetPropensity(), q.Candidates[i].Propensity)
		for _, next := range q.Next {
			assert.NotEqual(t, c.Id, next.ID)
		}
	}
	assert.Len(t, q.Next, 50-2)
}
