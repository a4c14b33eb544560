package server

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// TestOtherForms asks for ids that look like some of the towers and are not the same.
func TestOtherForms(t *testing.T) {
	const (
		composed, decomposed = "caf\u00e9", "cafe\u0301"
		wide, narrow         = "\uff41\uff50\uff50", "app"
		never                = "na\u00efve"
	)
	data := smallTowers(index.Dot)
	data.users[0].id, data.users[1].id = composed, "u\u0308ber"
	data.apps[0].id, data.apps[1].id, data.apps[2].id = decomposed, narrow, never
	s := data.loaded(t)
	for _, c := range []struct {
		user, app string
		want      string
	}{
		{decomposed, "", "user_id \"cafe\u0301\"" + ` is not in the user tower of model feed v1, which has it in another Unicode form (NFC): "caf\u00e9" for "cafe\u0301"; query by an id that it has, or by vector`},
		{"\u00fcber", "", "user_id \"\u00fcber\"" + ` is not in the user tower of model feed v1, which has it in another Unicode form (NFD): "u\u0308ber" for "\u00fcber"; query by an id that it has, or by vector`},
		{"", composed, "app_id \"caf\u00e9\"" + ` is not in the app tower of model feed v1, which has it in another Unicode form (NFD): "cafe\u0301" for "caf\u00e9"; query by an id that it has, or by vector`},
		{"", wide, "app_id \"\uff41\uff50\uff50\"" + ` is not in the app tower of model feed v1, which has it in another Unicode form (NFKC): "app" for "\uff41\uff50\uff50"; query by an id that it has, or by vector`},
		{never, "", "user_id \"na\u00efve\"" + ` is not in the user tower of model feed v1; query by an id that it has, or by vector`},
		{"cafe", "", "user_id \"cafe\"" + ` is not in the user tower of model feed v1; query by an id that it has, or by vector`},
	} {
		_, err := s.retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: c.user, AppId: c.app, K: 1})
		var coded *connect.Error
		require.ErrorAs(t, err, &coded)
		require.Equal(t, connect.CodeNotFound, coded.Code())
		require.Equal(t, c.want, coded.Message())
	}

	answer, err := s.retrieve(t.Context(), &tandemv1.RetrieveRequest{
		AppId: "a5", K: 60, IncludeIds: []string{composed, narrow, "a7", "unknown", "\u00fcber"}, ExcludeIds: []string{wide, never}, ExplainIds: []string{composed, "\u00fcber"},
	})
	require.NoError(t, err)
	require.Len(t, answer.Candidates, 2, "another form is another id")
	require.Equal(t, map[string]string{composed: decomposed, wide: narrow}, answer.Explain.OtherForms)
	require.EqualValues(t, 3, answer.Explain.UnknownIncludeIds)
	require.Equal(t, tandemv1.Verdict_VERDICT_UNKNOWN, answer.Explain.Ids[0].Verdict)
	require.Equal(t, `the app tower does not have it, which has it in another Unicode form (NFD): "cafe\u0301" for "caf\u00e9"`, answer.Explain.Ids[0].Text)
	require.Equal(t, "the app tower does not have it", answer.Explain.Ids[1].Text)

	got, err := s.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{composed, decomposed, "nobody"}}))
	require.NoError(t, err)
	require.Equal(t, []string{composed, "nobody"}, got.Msg.UnknownIds)
	require.Equal(t, map[string]string{composed: decomposed}, got.Msg.OtherForms)
}

// TestOtherFormsOfTheTower: the tower's id may be in the form that no other is brought to.
func TestOtherFormsOfTheTower(t *testing.T) {
	data := smallTowers(index.Dot)
	pairs := []struct{ has, asked, form string }{
		{"\uff21\uff22\uff23", "ABC", "NFC"},                            // full width
		{"\ufb01sh", "fish", "NFC"},                                     // a ligature
		{"\u00b5g", "\u03bcg", "NFC"},                                   // the micro sign, a mu
		{"\u212b", "\u00c5", ""},                                        // the angstrom sign
		{"\ufb01e\u0301", "fi\u00e9", "NFD"},                            // by NFC, too
		{"\u00e9e\u0301", "e\u0301\u00e9", ""},                          // mixed
		{"\uff24\uff0f\u00e9\u0301e\u0301", "D/\u00e9\u0301\u00e9", ""}, // in no form at all
	}
	for i, p := range pairs {
		data.users[i].id, data.apps[i].id = p.has, p.has
	}
	s := data.loaded(t)
	for _, p := range pairs {
		_, err := s.retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: p.asked, K: 1})
		require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
		form := " (" + p.form + ")"
		if p.form == "" {
			form = ""
		}
		require.ErrorContains(t, err, fmt.Sprintf("in another Unicode form%s: %+q for %+q;", form, p.has, p.asked))
	}
	var asked []string
	want := map[string]string{}
	for _, p := range pairs {
		asked = append(asked, p.asked, "none of "+p.asked)
		want[p.asked] = p.has
	}
	got, err := s.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: asked}))
	require.NoError(t, err)
	require.Equal(t, want, got.Msg.OtherForms)
	require.Len(t, got.Msg.UnknownIds, len(asked))
	answer, err := s.retrieve(t.Context(), &tandemv1.RetrieveRequest{AppId: "a9", K: 1, IncludeIds: asked, ExplainIds: []string{"ABC", "ABD"}})
	require.NoError(t, err)
	require.Equal(t, want, answer.Explain.OtherForms)
	require.Equal(t, `the app tower does not have it, which has it in another Unicode form (NFC): "\uff21\uff22\uff23" for "ABC"`, answer.Explain.Ids[0].Text)
	require.Equal(t, "the app tower does not have it", answer.Explain.Ids[1].Text)
}

// TestOtherFormsAreBounded: a list of unknown ids is not looked through to its end.
func TestOtherFormsAreBounded(t *testing.T) {
	data := smallTowers(index.Dot)
	for i := range 60 {
		data.apps[i].id = fmt.Sprintf("e\u0301%d", i)
	}
	s := data.loaded(t)
	tower := s.current.Load().arms[0].snapshot.Tower("apps")
	var ids []string
	for i := range 60 {
		ids = append(ids, fmt.Sprintf("\u00e9%d", i))
	}
	unknown := make([]string, maxFormsLooked-30)
	for i := range unknown {
		unknown[i] = fmt.Sprintf("\u00e8%d", i)
	}
	found, err := otherForms(t.Context(), tower, shard.Moment{}, unknown, ids)
	require.NoError(t, err)
	require.Len(t, found, 30)
	found, err = otherForms(t.Context(), tower, shard.Moment{}, ids, unknown)
	require.NoError(t, err)
	require.Len(t, found, 60)
}
