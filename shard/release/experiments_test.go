package release_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/release"
)

// An interleaving is of later releases until one of its arms ends, it is promoted or somebody ends
// it; an exploration until somebody does or an arm is promoted. A rollback has both as they were.
func TestExperiments(t *testing.T) {
	ctx := t.Context()
	r, digests := newReleases(t, folder(t), "v1", "v2", "v3")
	_, err := r.Start(ctx, release.StartOptions{Snapshot: digests[0]})
	require.NoError(t, err)
	_, err = r.Start(ctx, release.StartOptions{Snapshot: digests[1], Weight: 0})
	require.NoError(t, err)
	split := func(o release.SplitOptions) *release.Release {
		t.Helper()
		now, err := r.Split(ctx, o)
		require.NoError(t, err)
		return now
	}
	both := &release.Interleaving{Arms: []string{"control", "candidate"}, Share: 50}
	now := split(release.SplitOptions{Interleaving: both})
	assert.Equal(t, both, now.Interleaving)
	assert.Equal(t, 3, now.Version)
	some := &release.Exploration{Share: 20, Places: 2, Pool: 200}
	now = split(release.SplitOptions{Exploration: some})
	with := now.Generation
	assert.Equal(t, []any{both, some}, []any{now.Interleaving, now.Exploration})
	read, err := r.Current(ctx)
	require.NoError(t, err)
	assert.Equal(t, []any{both, some}, []any{read.Interleaving, read.Exploration})

	now = split(release.SplitOptions{EndInterleaving: true})
	assert.Nil(t, now.Interleaving)
	assert.Equal(t, some, now.Exploration)
	assert.Equal(t, 3, now.Version)
	now = split(release.SplitOptions{EndExploration: true})
	assert.Nil(t, now.Exploration)
	assert.Equal(t, 1, now.Version, "older servers read it")

	now, err = r.Rollback(ctx, release.RollbackOptions{To: with})
	require.NoError(t, err)
	assert.Equal(t, []any{both, some}, []any{now.Interleaving, now.Exploration})
	now, err = r.Start(ctx, release.StartOptions{Snapshot: digests[2], Arm: "third", Weight: 10})
	require.NoError(t, err)
	assert.Equal(t, both, now.Interleaving)
	now, err = r.Stop(ctx, release.StopOptions{Arm: "candidate"})
	require.NoError(t, err)
	assert.Nil(t, now.Interleaving)
	assert.Equal(t, some, now.Exploration)

	two := variant("e:both", "control")
	two.Arms = append(two.Arms, "third")
	now = split(release.SplitOptions{EndExploration: true, Variants: []release.Variant{two}})
	assert.Equal(t, []string{"e:both=control+third"}, texts(now))
	assert.Equal(t, 3, now.Version)
	_ = split(release.SplitOptions{Exploration: some})
	now, err = r.Promote(ctx, release.Change{}, "third")
	require.NoError(t, err)
	assert.Nil(t, now.Exploration)
	assert.Equal(t, 1, now.Version)
}

func TestExperimentsAreRefused(t *testing.T) {
	ctx := t.Context()
	r, digests := newReleases(t, folder(t), "v1", "v2")
	_, err := r.Start(ctx, release.StartOptions{Snapshot: digests[0]})
	require.NoError(t, err)
	_, err = r.Start(ctx, release.StartOptions{Snapshot: digests[1]})
	require.NoError(t, err)
	both := func(share int, arms ...string) *release.Interleaving {
		return &release.Interleaving{Arms: arms, Share: share}
	}
	twice, three := variant("e:b", "control"), variant("e:b", "control")
	twice.Arms = []string{"control", "control"}
	three.Arms = []string{"control", "candidate", "control"}
	for want, o := range map[string]release.SplitOptions{
		"there is no arm other; there are: control, candidate":                    {Interleaving: both(5, "control", "other")},
		"interleaving is of arm control twice; accepted: two that differ":         {Interleaving: both(5, "control", "control")},
		"1 arms are interleaved; accepted: 2":                                     {Interleaving: both(5, "control")},
		"the share that is interleaved is 0; accepted: 1 to 1000":                 {Interleaving: both(0, "control", "candidate")},
		"the share that is interleaved is 1001; accepted: 1 to 1000":              {Interleaving: both(1001, "control", "candidate")},
		"what is to begin is to end, too":                                         {Interleaving: both(5, "control", "candidate"), EndInterleaving: true},
		"nothing is interleaved but by variants":                                  {EndInterleaving: true},
		"nothing explores; there is nothing to end":                               {EndExploration: true},
		"arm candidate is to end, and to be interleaved":                          {Interleaving: both(5, "control", "candidate"), Remove: []string{"candidate"}},
		"the share that explores is 1000; accepted: 1 to 999":                     {Exploration: &release.Exploration{Share: 1000, Places: 1, Pool: 100}},
		"11 places are explored; accepted: 1 to 10":                               {Exploration: &release.Exploration{Share: 1, Places: 11, Pool: 100}},
		"drawn up to rank 4; accepted: above twice the 2 places, up to 10000":     {Exploration: &release.Exploration{Share: 1, Places: 2, Pool: 4}},
		`"e:b" is of arm control twice; accepted: two that differ`:                {Variants: []release.Variant{twice}},
		`"e:b" has 3 arms; accepted: 1 or 2`:                                      {Variants: []release.Variant{three}},
		"drawn up to rank 10001; accepted: above twice the 1 places, up to 10000": {Exploration: &release.Exploration{Share: 1, Places: 1, Pool: 10_001}},
	} {
		_, err := r.Split(ctx, o)
		if assert.ErrorIs(t, err, release.ErrChange, want) {
			assert.ErrorContains(t, err, want)
		}
	}
	// An entry that somebody has written by hand.
	now, err := r.Split(ctx, release.SplitOptions{Interleaving: both(5, "control", "candidate")})
	require.NoError(t, err)
	data, err := now.Encode()
	require.NoError(t, err)
	for want, change := range map[string][2]string{
		"version is 1 with 0 variants, interleaving true, exploration false, want 3": {`"version": 3`, `"version": 1`},
		"this build reads versions 1 to 3":                                           {`"version": 3`, `"version": 4`},
		"the share that is interleaved is -1":                                        {`"share": 5`, `"share": -1`},
		`interleaving is of arm "gone", which there is not`:                          {`   "candidate"`, `   "gone"`},
	} {
		changed := strings.Replace(string(data), change[0], change[1], 1)
		require.NotEqual(t, string(data), changed, want)
		_, err := release.Decode([]byte(changed))
		assert.ErrorContains(t, err, want)
	}
}

// What is written as text is read as it was, and other texts are refused.
func TestExperimentTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z0-9_-]{1,8}`)
		i := &release.Interleaving{Arms: []string{name.Draw(t, "a"), name.Draw(t, "b")}, Share: rapid.IntRange(0, 2000).Draw(t, "share")}
		read, err := release.ParseInterleaving(i.String())
		require.NoError(t, err)
		require.Equal(t, i, read)
		x := &release.Exploration{Share: rapid.Int().Draw(t, "x"), Places: rapid.Int().Draw(t, "places"), Pool: rapid.Int().Draw(t, "pool")}
		other, err := release.ParseExploration(x.String())
		require.NoError(t, err)
		require.Equal(t, x, other)
	})
	for _, text := range []string{"", "a", "a+b", "a=5", "a+=5", "+b=5", "a+b+c=5", "a+b=", "a+b=x", "a+b=5=6"} {
		_, err := release.ParseInterleaving(text)
		require.ErrorIs(t, err, release.ErrNoExperiment, text)
	}
	for _, text := range []string{"", "1", "1,2", "1,2,3,4", "1,2,x", ",,", "1,2,3,"} {
		_, err := release.ParseExploration(text)
		require.ErrorIs(t, err, release.ErrNoExperiment, text)
	}
}

// The share of keys that are interleaved is what the release says, of either arm's keys, whatever
// their buckets, and none of a third arm's, nor a pinned one.
func TestInterleavedKeys(t *testing.T) {
	var buckets [3]release.Buckets
	for n := range release.Total {
		buckets[n%3] = append(buckets[n%3], n)
	}
	r := &release.Release{Salt: "salt", Interleaving: &release.Interleaving{Arms: []string{"c", "a"}, Share: 100}}
	for i, name := range []string{"a", "b", "c"} {
		r.Arms = append(r.Arms, release.Arm{Name: name, Weight: len(buckets[i]), Buckets: buckets[i]})
	}
	const keys = 30_000
	pinned := map[string]bool{}
	for n := range 100 {
		pinned[fmt.Sprint("user", n)] = true
		r.Arms[0].Pins = append(r.Arms[0].Pins, fmt.Sprint("user", n))
	}
	router := release.NewRouter(r)
	var of, two [3]int
	for n := range keys {
		key := fmt.Sprint("user", n)
		arm := router.Route(key)
		arms := router.Interleaved(key, arm)
		of[arm]++
		if !arms.Two {
			require.Equal(t, release.Arms{First: arm}, arms)
			continue
		}
		require.False(t, pinned[key])
		require.Equal(t, release.Arms{First: 2, Second: 0, Two: true}, arms)
		two[arm]++
	}
	assert.Zero(t, two[1])
	for _, arm := range []int{0, 2} { // within four standard deviations
		assert.InDelta(t, 0.1, float64(two[arm])/float64(of[arm]), 4*0.3/100)
	}

	r.Interleaving = nil
	assert.Equal(t, release.Arms{First: 2}, release.NewRouter(r).Interleaved("user1", 2))
}

// The share of requests that explore is what the release says.
func TestExploringRequests(t *testing.T) {
	r := &release.Release{Salt: "salt", Arms: []release.Arm{{Name: "control", Weight: release.Total}}}
	x, does, _ := release.NewRouter(r).Explores("r")
	assert.Nil(t, x)
	assert.False(t, does)
	r.Exploration = &release.Exploration{Share: 250, Places: 1, Pool: 10}
	router := release.NewRouter(r)
	const requests = 20_000
	explored, seeds := 0, map[uint64]bool{}
	for n := range requests {
		x, does, seed := router.Explores(fmt.Sprint("request", n))
		require.Equal(t, r.Exploration, x)
		seeds[seed] = true
		if does {
			explored++
		}
	}
	assert.InDelta(t, 0.25, float64(explored)/requests, 4*0.433/141)
	assert.Len(t, seeds, requests)
}
