package console_test

import (
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/console"
)

var listen = flag.String("listen", "", "serve the console of TestManyNodes at this address, until stdin ends: for a browser")

const (
	manyNodes   = 1000
	manyShards  = 500
	manyCopies  = 3
	anyPosition = 90_210
)

// many is a server with more nodes than any has, and samples of six hours. Three nodes are not as the others.
type many struct {
	tandemv1connect.UnimplementedAdminServiceHandler
	tandemv1connect.UnimplementedLiveServiceHandler
	now time.Time
}

func (m *many) GetStatus(_ context.Context, r *connect.Request[tandemv1.GetStatusRequest]) (*connect.Response[tandemv1.GetStatusResponse], error) {
	digest, entry := strings.Repeat("5a", 32), strings.Repeat("c3", 32)
	c := &tandemv1.ClusterStatus{
		Replicas: manyCopies, NodeCount: manyNodes, ShardCount: manyShards, ShortCount: 3, Lag: durationpb.New(0), Requests: &tandemv1.ClusterRequests{Retries: 12},
	}
	for i := range manyNodes {
		n := &tandemv1.ClusterNode{
			Name: fmt.Sprintf("tandem-node-%d", i), Address: fmt.Sprintf("10.0.%d.%d:9090", i/250, i%250), Zone: string(rune('a' + i%3)),
			State: tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_READY, MappedBytes: 3 << 30, MemoryLimit: 8 << 30, Generation: 7, Replicas: manyCopies,
			Read: &tandemv1.LivePosition{Sequence: anyPosition}, Position: &tandemv1.LivePosition{Sequence: anyPosition}, Entry: entry, InFlight: uint32(i % 5), ReadyShards: manyCopies,
		}
		held := &tandemv1.ClusterHeld{Snapshot: digest}
		for copies := range manyCopies {
			number := (i + copies*manyNodes/manyCopies) % manyShards
			held.Shards = append(held.Shards, &tandemv1.ClusterHeldShard{
				Tower: tandemv1.Tower_TOWER_APPS, Number: uint32(number), State: tandemv1.ClusterHeldState_CLUSTER_HELD_STATE_READY,
				Position: n.Position, Rows: uint64(80_000 + number), Dead: uint64(number % 7),
			})
		}
		switch i {
		case 321: // stands
			n.Lag = durationpb.New(17 * time.Second)
			n.Read, n.Position = &tandemv1.LivePosition{Sequence: anyPosition - 40}, &tandemv1.LivePosition{Sequence: anyPosition - 40}
			n.Entry = strings.Repeat("d4", 32)
			for _, h := range held.Shards {
				h.Position = n.Position
			}
		case 654: // has a shard that is not that of the others
			held.Shards[0].Dead += 4
		case 987: // is gone
			n = &tandemv1.ClusterNode{Name: n.Name, Address: n.Address, Zone: n.Zone, State: tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_LOST, Error: "connection refused " + hostileName}
			held = nil
		}
		if len(c.Nodes) < int(r.Msg.Nodes) {
			if held != nil && r.Msg.Held {
				n.Held = []*tandemv1.ClusterHeld{held}
			}
			c.Nodes = append(c.Nodes, n)
		}
	}
	c.Short = []*tandemv1.ClusterShard{{Snapshot: digest, Tower: tandemv1.Tower_TOWER_APPS, Number: 487, Ready: 2, Why: "10.0.3.237:9090 cannot be asked"}}
	return connect.NewResponse(&tandemv1.GetStatusResponse{
		Phase: tandemv1.Phase_PHASE_SERVING, Generation: 7, TargetGeneration: 7, Since: timestamppb.New(m.now.Add(-time.Hour)), MemoryLimit: 8 << 30, Cluster: c,
		Arms: []*tandemv1.ArmStatus{{Name: "control", Snapshot: digest, Model: "feed", ModelVersion: "monday", Weight: 1000, Apps: 40_000_000, Users: 1000}},
		Load: &tandemv1.ServerLoad{LastMinute: &tandemv1.RecentQueries{}}, Staleness: durationpb.New(time.Second),
	}), nil
}

func (m *many) GetFindings(context.Context, *connect.Request[tandemv1.GetFindingsRequest]) (*connect.Response[tandemv1.GetFindingsResponse], error) {
	return connect.NewResponse(&tandemv1.GetFindingsResponse{Time: timestamppb.New(m.now), Findings: []*tandemv1.Finding{
		{Alert: "TandemNodesBehind", Why: "nodes have not read the live log as far as the router: 10.0.1.71:9090 by 17 s", Next: "look whether the store answers those nodes, and in their logs", Runbook: "docs/runbook.md"},
	}}), nil
}

func (m *many) GetHistory(_ context.Context, r *connect.Request[tandemv1.GetHistoryRequest]) (*connect.Response[tandemv1.GetHistoryResponse], error) {
	out := &tandemv1.GetHistoryResponse{Step: durationpb.New(10 * time.Second), Processors: 16}
	for i := range 6 * 360 {
		at := m.now.Add(time.Duration(i-6*360) * 10 * time.Second)
		if r.Msg.After != nil && !at.After(r.Msg.After.AsTime()) {
			continue
		}
		out.Samples = append(out.Samples, &tandemv1.HistorySample{
			Time: timestamppb.New(at), Answered: uint64(900 + i%77), P50: durationpb.New(2 * time.Millisecond), P99: durationpb.New(time.Duration(9+i%5) * time.Millisecond), Cpu: 3 + float64(i%9)/9,
			LiveStaleness: durationpb.New(time.Second), Staleness: durationpb.New(time.Second),
		})
	}
	return connect.NewResponse(out), nil
}

func (m *many) GetLiveStatus(context.Context, *connect.Request[tandemv1.GetLiveStatusRequest]) (*connect.Response[tandemv1.GetLiveStatusResponse], error) {
	return connect.NewResponse(&tandemv1.GetLiveStatusResponse{Position: &tandemv1.LivePosition{Sequence: anyPosition}, Hash: strings.Repeat("c3", 32), Digest: hex.EncodeToString(make([]byte, 32)), Fence: durationpb.New(10 * time.Second)}), nil
}

const hostileName = `<img src=x onerror="document.title=1">`

// The console passes on what a server with a thousand nodes tells, whole. With -listen it serves it.
func TestManyNodes(t *testing.T) {
	m := &many{now: time.Now()}
	api := http.NewServeMux()
	api.Handle(tandemv1connect.NewAdminServiceHandler(m))
	api.Handle(tandemv1connect.NewLiveServiceHandler(m))
	h := console.New(console.Options{API: api})
	if *listen != "" {
		l, err := net.Listen("tcp", *listen)
		require.NoError(t, err)
		s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		fmt.Printf("msg=console url=http://%s%s\n", l.Addr(), console.Path)
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the end, whatever ends it
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
		return
	}
	s := httptest.NewServer(h)
	defer s.Close()
	client := tandemv1connect.NewAdminServiceClient(s.Client(), s.URL+console.Path+"api")
	got, err := client.GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{Nodes: 10_000, Held: true}))
	require.NoError(t, err)
	require.Len(t, got.Msg.Cluster.Nodes, manyNodes)
	assert.Len(t, got.Msg.Cluster.Nodes[0].Held[0].Shards, manyCopies)
	assert.Contains(t, got.Msg.Cluster.Nodes[987].Error, hostileName)
	s.Client().CloseIdleConnections()
}
