package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/events"
)

func historyOf(t *testing.T, s *Service, after *timestamppb.Timestamp) []*tandemv1.HistorySample {
	answer, err := s.GetHistory(t.Context(), connect.NewRequest(&tandemv1.GetHistoryRequest{After: after}))
	require.NoError(t, err)
	require.Equal(t, 10*time.Second, answer.Msg.Step.AsDuration())
	require.Positive(t, answer.Msg.Processors)
	return answer.Msg.Samples
}

// TestHistory has a service take samples for longer than it remembers them.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.remember(ctx)
		}()
		require.Empty(t, historyOf(t, s, nil))
		began := time.Now()
		for i := range 3 {
			time.Sleep(5 * time.Second)
			for range i + 1 {
				s.events.RPCEnd(events.RPC{Procedure: tandemv1connect.RetrievalServiceRetrieveProcedure, Duration: time.Millisecond})
				s.events.Answered(&events.Answer{Coverage: 1})
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
		}
		list := historyOf(t, s, nil)
		require.Len(t, list, 3)
		for i, sample := range list {
			require.Equal(t, began.Add(time.Duration(i+1)*10*time.Second).UTC(), sample.Time.AsTime())
			require.EqualValues(t, i+1, sample.Answered)
			require.InEpsilon(t, time.Millisecond, sample.P99.AsDuration(), 0.1)
			require.InDelta(t, 1.0, sample.GetCoverage(), 0)
			require.Zero(t, sample.Generation)
			require.Nil(t, sample.Staleness, "it follows no log")
		}
		require.Len(t, historyOf(t, s, list[1].Time), 1, "only what is new")
		require.Empty(t, historyOf(t, s, list[2].Time))

		time.Sleep(7 * time.Hour)
		synctest.Wait()
		list = historyOf(t, s, nil)
		require.Len(t, list, 2160)
		require.Equal(t, began.Add(7*time.Hour+30*time.Second).UTC(), list[len(list)-1].Time.AsTime())
		for i := range list[1:] {
			require.Equal(t, 10*time.Second, list[i+1].Time.AsTime().Sub(list[i].Time.AsTime()))
		}
		require.Zero(t, list[0].Answered)
		require.Nil(t, list[0].Coverage)
		require.Nil(t, list[0].P50)
		cancel()
		<-ended
	})
	s := NewService(slog.New(slog.DiscardHandler))
	_, err := s.GetHistory(t.Context(), connect.NewRequest(&tandemv1.GetHistoryRequest{After: &timestamppb.Timestamp{Nanos: -1}}))
	require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
	require.ErrorContains(t, err, "after is no time")
}

// TestConsole asks a server through its console, as the scripts of its page do: what answers, the
// findings of tandem status, and candidates; and has the log tell where the console is.
func TestConsole(t *testing.T) {
	var admin net.Addr
	var log lockedBuffer
	c := smallTowers(index.Dot).named(t, Config{
		Admin:   &adminhttp.Options{Listen: "127.0.0.1:0", Listening: func(a net.Addr) { admin = a }},
		Console: &Console{}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	p := start(t, c)
	require.Contains(t, log.String(), fmt.Sprintf("msg=console url=http://%s/console/", admin))
	a := newSite(t, admin)
	page := a.get(t, "/console/")
	require.Equal(t, http.StatusOK, page.status)
	require.Contains(t, string(page.body), "<!doctype html>")
	require.Contains(t, string(a.get(t, "/").body), "<!doctype html>", "/ leads to it")

	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	api := fmt.Sprintf("http://%s/console/api", admin)
	answer, err := tandemv1connect.NewRetrievalServiceClient(client, api).Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 3}))
	require.NoError(t, err)
	require.Len(t, answer.Msg.Candidates, 3)
	operator := tandemv1connect.NewAdminServiceClient(client, api)
	found, err := operator.GetFindings(t.Context(), connect.NewRequest(&tandemv1.GetFindingsRequest{}))
	require.NoError(t, err)
	require.Len(t, found.Msg.Findings, 1)
	f := found.Msg.Findings[0]
	require.Equal(t, "TandemNoRelease", f.Alert)
	require.Contains(t, f.Why, "it serves a snapshot whatever is released")
	require.Contains(t, f.Next, "so that it follows the releases")
	require.Equal(t, "docs/runbook.md#tandemnorelease", f.Runbook)
	require.WithinDuration(t, time.Now(), found.Msg.Time.AsTime(), time.Minute)
	_, err = tandemv1connect.NewRetrievalServiceClient(client, api).Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1"}))
	require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
	require.ErrorContains(t, err, "k is 0", "refusals are those of the server")

	// Nothing else shows it, and a server that is not to have one has none.
	require.Equal(t, http.StatusNotFound, p.get(t, "/console/").status)
	p.stop()
	require.NoError(t, <-p.done)
	c.Console, c.Metrics = nil, nil
	p = start(t, c)
	for _, path := range []string{"/console/", "/console/session", "/"} {
		require.Equal(t, http.StatusNotFound, newSite(t, admin).get(t, path).status)
	}
	p.stop()
	require.NoError(t, <-p.done)
}

// TestSampleOfArms holds what a sample has of what answers.
func TestSampleOfArms(t *testing.T) {
	s := NewService(slog.New(slog.DiscardHandler))
	snapshot := open(t, smallTowers(index.Dot).publish(t))
	digest := string(snapshot.Digest())
	s.Serve(snapshot)
	defer s.Close()
	var out tandemv1.HistorySample
	s.sample(&out)
	require.Len(t, out.Arms, 1)
	require.Equal(t, digest, out.Arms[0].Snapshot)
	require.EqualValues(t, 1000, out.Arms[0].Weight)
	require.Nil(t, out.Arms[0].Recall, "nothing is audited")
	require.InDelta(t, 1.0, out.Arms[0].High, 0)
}
