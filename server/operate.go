package server

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/metrics"
)

// operate adds to a status what people who operate the server look at, where now answers,
// as much of it as r asks for.
func (s *Service) operate(r *tandemv1.GetStatusRequest, out *tandemv1.GetStatusResponse, now *state) {
	for i, a := range out.Arms {
		arm := &now.arms[i]
		a.UnreadableShards = uint32(arm.lost.count())
		if !arm.published.IsZero() {
			a.Published = timestamppb.New(arm.published)
		}
	}
	queries := s.recent.Queries()
	out.Load = &tandemv1.ServerLoad{LastMinute: &tandemv1.RecentQueries{
		Answered: queries.Answered, Refused: queries.Refused, Failed: queries.Failed, Window: durationpb.New(queries.Window),
		RefusedForQuota: queries.OverQuota,
	}}
	if queries.Answered > 0 {
		out.Load.LastMinute.P50, out.Load.LastMinute.P99 = durationpb.New(queries.P50), durationpb.New(queries.P99)
	}
	if s.load != nil {
		load, connections := s.load()
		addBounds(out.Load, load, connections)
	}
	out.Secrets = &tandemv1.ServerSecrets{Stale: s.recent.StaleSecrets()}
	if s.certificates != nil {
		from, until := s.certificates.Validity()
		out.Secrets.CertificateFrom, out.Secrets.CertificateUntil = timestamppb.New(from), timestamppb.New(until)
	}
	most := int(r.GetNodes())
	if most == 0 {
		most = toldNodes
	}
	out.Cluster = s.clusterStatus(most, r.GetHeld())
	for _, f := range s.recent.Failures() {
		out.Failures = append(out.Failures, &tandemv1.ServerFailure{
			Time: timestamppb.New(f.Time), Kind: tandemv1.FailureKind(f.Kind), Text: f.Text, Times: f.Times,
		})
	}
}

func addBounds(out *tandemv1.ServerLoad, load *metrics.Load, connections *metrics.Connections) {
	out.Requests, out.RequestsLimit = uint32(load.Requests), uint32(load.MaxRequests)
	out.RequestMemory, out.RequestMemoryLimit = uint64(load.Bytes), uint64(load.MaxBytes)
	out.Connections, out.ConnectionsLimit = uint32(connections.Open), uint32(connections.Max)
}
