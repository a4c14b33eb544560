package release_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/release"
)

func variant(text, arm string) release.Variant {
	v, err := release.ParseVariant(text)
	if err != nil {
		panic(err)
	}
	v.Arms = []string{arm}
	return v
}

// texts lists the variants of a release.
func texts(r *release.Release) []string {
	out := []string{}
	for _, v := range r.Variants {
		out = append(out, v.String()+"="+strings.Join(v.Arms, "+"))
	}
	return out
}

// Variants are of the release, and of later ones until their arm ends, it is promoted, or somebody
// ends them; a rollback brings those of the earlier one back.
func TestVariants(t *testing.T) {
	ctx := t.Context()
	r, digests := newReleases(t, folder(t), "v1", "v2", "v3")
	_, err := r.Start(ctx, release.StartOptions{Snapshot: digests[0]})
	require.NoError(t, err)
	_, err = r.Start(ctx, release.StartOptions{Snapshot: digests[1], Weight: 10})
	require.NoError(t, err)
	split := func(o release.SplitOptions) *release.Release {
		t.Helper()
		now, err := r.Split(ctx, o)
		require.NoError(t, err)
		return now
	}
	plain := split(release.SplitOptions{Weights: map[string]int{"candidate": 20}})
	assert.Equal(t, 1, plain.Version, "older servers read it")
	now := split(release.SplitOptions{Variants: []release.Variant{variant("e:b", "candidate"), variant("e:a", "control"), variant("d:x", "candidate")}})
	assert.Equal(t, []string{"d:x=candidate", "e:a=control", "e:b=candidate"}, texts(now))
	assert.Equal(t, 2, now.Version)
	with := now.Generation
	read, err := r.Current(ctx)
	require.NoError(t, err)
	assert.Equal(t, now.Variants, read.Variants)
	now = split(release.SplitOptions{Variants: []release.Variant{variant("e:b", "control")}, Unmap: []release.Variant{{Experiment: "d", Variant: "x"}}})
	assert.Equal(t, []string{"e:a=control", "e:b=control"}, texts(now))
	now = split(release.SplitOptions{Weights: map[string]int{"candidate": 30}, Variants: []release.Variant{variant("e:c", "candidate")}})
	assert.Equal(t, []string{"e:a=control", "e:b=control", "e:c=candidate"}, texts(now))
	now, err = r.Stop(ctx, release.StopOptions{Arm: "candidate"})
	require.NoError(t, err)
	assert.Equal(t, []string{"e:a=control", "e:b=control"}, texts(now))
	now, err = r.Rollback(ctx, release.RollbackOptions{To: with})
	require.NoError(t, err)
	assert.Equal(t, []string{"d:x=candidate", "e:a=control", "e:b=candidate"}, texts(now))
	now, err = r.Start(ctx, release.StartOptions{Snapshot: digests[2], Arm: "third", Weight: 10})
	require.NoError(t, err)
	assert.Len(t, now.Variants, 3)
	now = split(release.SplitOptions{Remove: []string{"candidate"}})
	assert.Equal(t, []string{"e:a=control"}, texts(now))
	now, err = r.Promote(ctx, release.Change{}, "third")
	require.NoError(t, err)
	assert.Empty(t, now.Variants)
	assert.Equal(t, 1, now.Version)
}

func TestVariantsAreRefused(t *testing.T) {
	ctx := t.Context()
	r, digests := newReleases(t, folder(t), "v1", "v2")
	_, err := r.Start(ctx, release.StartOptions{Snapshot: digests[0]})
	require.NoError(t, err)
	long := strings.Repeat("x", 129)
	many := make([]release.Variant, release.MaxVariants+1)
	for i := range many {
		many[i] = variant(fmt.Sprint("e:", i), "control")
	}
	for want, o := range map[string]release.SplitOptions{
		"there is no arm candidate; there are: control":                              {Variants: []release.Variant{variant("e:b", "candidate")}},
		`variant "e:b" is given twice`:                                               {Variants: []release.Variant{variant("e:b", "control"), variant("e:b", "control")}},
		`experiment "` + long[:80] + `" has 129 bytes`:                               {Variants: []release.Variant{variant(long+":b", "control")}},
		`"e:b" has 0 arms; accepted: 1 or 2`:                                         {Variants: []release.Variant{{Experiment: "e", Variant: "b"}}},
		"variant \"e:b\" decides no arm; there are: none":                            {Unmap: []release.Variant{variant("e:b", "")}},
		"65 variants; accepted: up to 64":                                            {Variants: many},
		"no weight, no pin, no variant, no interleaving and no exploration is given": {},
		"arm control is to end, and to answer a variant; accepted":                   {Remove: []string{"control"}, Weights: map[string]int{}, Variants: []release.Variant{variant("e:b", "control")}},
	} {
		_, err := r.Split(ctx, o)
		if assert.ErrorIs(t, err, release.ErrChange, want) && !strings.Contains(want, "is to end") {
			assert.ErrorContains(t, err, want)
		}
	}
	for _, text := range []string{"", "e", ":b", "e:"} {
		_, err := release.ParseVariant(text)
		require.ErrorIs(t, err, release.ErrNoVariant)
	}
	// An entry that somebody has written by hand.
	now, err := r.Split(ctx, release.SplitOptions{Variants: []release.Variant{variant("e:a", "control"), variant("e:b", "control")}})
	require.NoError(t, err)
	data, err := now.Encode()
	require.NoError(t, err)
	for want, change := range map[string][2]string{
		"version is 1 with 2 variants, interleaving false, exploration false, want 2": {`"version": 2`, `"version": 1`},
		`variants[1]: "e:a" does not come after the one before`:                       {`"variant": "b"`, `"variant": "a"`},
		`variants[0]: "e:a" is of arm "gone", which there is not`:                     {"    \"control\"\n   ]\n  },\n  {", "    \"gone\"\n   ]\n  },\n  {"},
	} {
		changed := strings.Replace(string(data), change[0], change[1], 1)
		require.NotEqual(t, string(data), changed, want)
		_, err := release.Decode([]byte(changed))
		assert.ErrorContains(t, err, want)
	}
}

func TestRouteVariant(t *testing.T) {
	r := &release.Release{
		Arms:     []release.Arm{{Name: "control", Weight: 1000}, {Name: "candidate"}},
		Variants: []release.Variant{variant("e:b", "candidate")},
	}
	router := release.NewRouter(r)
	arm, ok := router.RouteVariant("e", "b")
	assert.Equal(t, []any{release.Arms{First: 1}, true}, []any{arm, ok})
	for _, other := range [][2]string{{"e", "a"}, {"", ""}, {"eb", ""}, {"", "e:b"}} {
		_, ok := router.RouteVariant(other[0], other[1])
		assert.False(t, ok)
	}
}
