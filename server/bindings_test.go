package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// TestLargeInts binds 64-bit ints as JSON carries them: as strings they are exact, as
// numbers they are refused where they may have been rounded.
func TestLargeInts(t *testing.T) {
	const blocked = 9007199254740993 // 2^53 + 1
	data := smallTowers(index.Dot)
	for i := range data.apps {
		data.apps[i].values[2] = attribute.OfInt(blocked - 1 + int64(i%3))
	}
	site := serve(t, data.loaded(t), Options{})
	ask := func(filter, bindings string) reply {
		return site.post(t, "Retrieve", fmt.Sprintf(`{"userId": "u1", "k": 60, "attributes": ["min_age"], "filter": %q, "bindings": %s}`, filter, bindings))
	}
	for filter, want := range map[string][]int64{
		"!(min_age in user.blocked)": {blocked - 1, blocked + 1},
		"min_age in user.blocked":    {blocked},
		"min_age == user.one":        {blocked},
		"min_age < user.one":         {blocked - 1},
		"min_age >= user.one":        {blocked, blocked + 1},
	} {
		got := ask(filter, `{"blocked": ["9007199254740993", "7"], "one": "9007199254740993"}`)
		require.Equal(t, http.StatusOK, got.status, "%s", got.body)
		require.Len(t, got.json["candidates"], 20*len(want), filter)
		for id := range int64(3) {
			id += blocked - 1
			require.Equal(t, slices.Contains(want, id), strings.Contains(string(got.body), fmt.Sprintf(`"%d"`, id)), "%s: %d", filter, id)
		}

		name := filter[strings.Index(filter, "user.")+5:]
		name = strings.TrimSuffix(name, ")")
		got = ask(filter, `{"blocked": [9007199254740993, 7], "one": 9007199254740993}`)
		require.Equal(t, http.StatusBadRequest, got.status)
		place := ""
		if name == "blocked" {
			place = "element 0: "
		}
		require.Equal(t, "filter: binding user."+name+": "+place+"float 9.007199254740992e+15 is not between -2^53 and 2^53, so an int may have been rounded to it: "+
			`want a decimal string, such as "9007199254740993"`, got.json["message"])
	}
}

// TestListUses: a list that a filter uses too often is refused before there is work.
func TestListUses(t *testing.T) {
	s := smallTowers(index.Dot).loaded(t)
	list := make([]*structpb.Value, 400_000)
	for i := range list {
		list[i] = structpb.NewStringValue(fmt.Sprint(i))
	}
	r := &tandemv1.RetrieveRequest{
		UserId: "u1", K: 10, Filter: strings.TrimSuffix(strings.Repeat("developer in user.l||", 780), "||"),
		Bindings: map[string]*structpb.Value{"l": structpb.NewListValue(&structpb.ListValue{Values: list})},
	}
	require.NoError(t, validate(r))
	_, err := s.retrieve(t.Context(), r)
	requireError(t, err, connect.CodeInvalidArgument,
		"filter: binding user.l: a list of 400000 elements that the filter uses 780 times, which with other lists makes 312000000; accepted: up to 4194304")

	late := &deadlineAfter{Context: t.Context()}
	late.looks.Store(3)
	r.Filter = "developer in user.l"
	_, err = s.retrieve(late, r)
	require.ErrorContains(t, err, "deadline")
}
