package server

import (
	"bytes"
	"net"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/audit"
)

// Queries of all kinds are audited, by page too, and those that give an ef are apart. The
// snapshot is let go when the server stops.
func TestAudits(t *testing.T) {
	audits := make(chan audit.Audit, 1000)
	var admin net.Addr
	p := start(t, smallTowers(index.Dot).named(t, Config{
		Audit: Audit{CPU: 1, Recorded: func(a audit.Audit) { audits <- a }},
		Admin: &adminhttp.Options{Listen: "127.0.0.1:0", Listening: func(a net.Addr) { admin = a }},
	}))
	client := p.client()
	ask := func(r *tandemv1.RetrieveRequest) *tandemv1.RetrieveResponse {
		answer, err := client.Retrieve(t.Context(), connect.NewRequest(r))
		require.NoError(t, err)
		return answer.Msg
	}
	deadline := time.After(5 * time.Minute)
	status := func() *tandemv1.ArmRecall {
		answer, err := tandemv1connect.NewAdminServiceClient(p.http2, p.url).GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{}))
		require.NoError(t, err)
		return answer.Msg.Arms[0].Recall
	}
	ef := uint32(10)
	for done := 0; done < 60 || status().Ef.GetAuditsTotal() == 0; {
		first := ask(&tandemv1.RetrieveRequest{UserId: "u1", K: 5})
		if first.NextPageToken != "" {
			ask(&tandemv1.RetrieveRequest{UserId: "u1", K: 5, PageToken: first.NextPageToken})
		}
		ask(&tandemv1.RetrieveRequest{UserId: "u2", K: 3, ExcludeIds: []string{first.Candidates[0].Id}})
		ask(&tandemv1.RetrieveRequest{UserId: "u2", K: 3, Ef: &ef})
		select {
		case a := <-audits:
			assert.InDelta(t, 1, a.Recall, 0, "scans are exact: %+v", a)
			done++
		case <-deadline:
			t.Fatal("there are no audits")
		default:
		}
	}
	all := status().All
	assert.True(t, all.EnoughData)
	assert.InDelta(t, 1, all.Recall, 0)
	assert.Nil(t, all.Alarm)
	assert.NotEmpty(t, status().Plans)
	shown := scraped(t, bytes.NewReader(newSite(t, admin).get(t, "/metrics").body))
	assert.InDelta(t, 1, shown.sum("tandem_recall_ratio", `arm="control"`, `stratum="all"`), 0)
	assert.GreaterOrEqual(t, shown.sum("tandem_recall_audits_total", `stratum="ef"`), 1.0)
	assert.GreaterOrEqual(t, shown.sum("tandem_audits_total", `outcome="done"`), 60.0)
	p.stop()
	require.NoError(t, <-p.done)
}

// Without a share of a processor nothing is audited, and the status says nothing of recall.
func TestNoAudits(t *testing.T) {
	p := start(t, smallTowers(index.Dot).named(t, Config{}))
	answer, err := tandemv1connect.NewAdminServiceClient(p.http2, p.url).GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{}))
	require.NoError(t, err)
	assert.Nil(t, answer.Msg.Arms[0].Recall)
	p.stop()
	require.NoError(t, <-p.done)
}
