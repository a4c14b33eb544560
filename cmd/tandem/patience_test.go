package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/shard/release"
)

// hungServer takes requests and never answers.
type hungServer struct{}

func (hungServer) Do(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestHungServer(t *testing.T) {
	open := func() (*serverReleaser, *bytes.Buffer) {
		var told bytes.Buffer
		return &serverReleaser{tandemv1connect.NewReleaseServiceClient(hungServer{}, "http://server", connect.WithInterceptors(patient("10.0.0.1:8080", &told)))}, &told
	}
	synctest.Test(t, func(t *testing.T) { // what is read: the change never begins
		s, told := open()
		began := time.Now()
		_, err := s.rollback(t.Context(), release.RollbackOptions{})
		require.EqualError(t, err, "deadline_exceeded: server 10.0.0.1:8080 has not answered within 15s")
		assert.Equal(t, 15*time.Second, time.Since(began))
		assert.Empty(t, told.String())
		assert.False(t, errors.As(err, new(*release.UnknownError)))
		_, _, err = s.listed(t.Context())
		require.EqualError(t, err, "deadline_exceeded: server 10.0.0.1:8080 has not answered within 15s")
	})
	synctest.Test(t, func(t *testing.T) { // what is written may have been
		s, told := open()
		began := time.Now()
		_, err := s.rollback(t.Context(), release.RollbackOptions{Change: release.Change{Generation: 4}})
		require.ErrorContains(t, err, "deadline_exceeded: server 10.0.0.1:8080 has not answered within 1m0s")
		require.ErrorAs(t, err, new(*release.UnknownError))
		assert.Equal(t, time.Minute, time.Since(began))
		assert.Equal(t, "waiting for server 10.0.0.1:8080, which may take up to 1m0s (Rollback)\n", told.String())
	})
	synctest.Test(t, func(t *testing.T) { // who interrupts the command is told nothing of the server
		s, told := open()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.rollback(ctx, release.RollbackOptions{Change: release.Change{Generation: 4}})
		require.ErrorIs(t, err, context.Canceled)
		assert.NotContains(t, err.Error(), "has not answered")
		assert.Empty(t, told.String())
	})
}

func TestProveHasOneDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := liveProveCommand{Apps: []string{"a"}, Timeout: 3 * time.Second}
		all := &fleet.Fleet{HTTP: hungServer{}, Servers: []fleet.Server{{Name: "one", URL: "http://one"}}}
		began := time.Now()
		list := c.serverProofs(&environment{ctx: t.Context()}, all, &tandemv1.ProveRequest{Apps: c.Apps, MinLive: &tandemv1.LivePosition{Sequence: 7}})
		assert.Equal(t, c.Timeout, time.Since(began))
		require.Len(t, list, 1)
		assert.Equal(t, "it does not say: no answer within 3s", list[0].Why)
	})
}
