package auth

import (
	"strings"

	"github.com/tandem-ann/tandem/api/tandem/shard/v1/shardv1connect"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// Procedures is which scopes each procedure of the contract needs: one of them is enough.
var Procedures = map[string]Scopes{
	tandemv1connect.RetrievalServiceRetrieveProcedure:      Query,
	tandemv1connect.RetrievalServiceBatchRetrieveProcedure: Query,
	tandemv1connect.RetrievalServiceGetEmbeddingsProcedure: Query,

	tandemv1connect.FeedbackServiceLogOutcomesProcedure: Feedback,

	tandemv1connect.LiveServiceWriteProcedure:            Live,
	tandemv1connect.LiveServiceImportProcedure:           Live,
	tandemv1connect.LiveServiceProveProcedure:            Live | Admin,
	tandemv1connect.ReleaseServiceListReleasesProcedure:  Publish | Admin,
	tandemv1connect.ReleaseServiceListSnapshotsProcedure: Publish | Admin,
	tandemv1connect.ReleaseServiceGetSnapshotProcedure:   Publish | Admin,
	tandemv1connect.ReleaseServiceListGateRunsProcedure:  Publish | Admin,
	tandemv1connect.ReleaseServiceDiffSnapshotsProcedure: Publish | Admin,
	tandemv1connect.ReleaseServiceStartProcedure:         Publish,
	tandemv1connect.ReleaseServiceSplitProcedure:         Publish,
	tandemv1connect.ReleaseServicePromoteProcedure:       Publish,
	tandemv1connect.ReleaseServiceStopProcedure:          Publish,
	tandemv1connect.ReleaseServiceRollbackProcedure:      Publish,

	// What servers of a cluster ask one another.
	shardv1connect.ShardServiceSearchProcedure:     Internal,
	shardv1connect.ShardServiceAuditProcedure:      Internal,
	shardv1connect.ShardServiceExplainProcedure:    Internal,
	shardv1connect.ShardServiceVectorsProcedure:    Internal,
	shardv1connect.ShardServiceAttributesProcedure: Internal,
	shardv1connect.ShardServiceGetShardProcedure:   Internal,
	shardv1connect.ShardServiceWatchProcedure:      Internal,

	// Whoever writes or releases waits until servers have it.
	tandemv1connect.LiveServiceGetLiveStatusProcedure: Live | Publish | Admin,
	tandemv1connect.AdminServiceGetStatusProcedure:    Live | Publish | Admin,
	// Whoever is told the state may be told what is not good with it, and what it was.
	tandemv1connect.AdminServiceGetHistoryProcedure:  Live | Publish | Admin,
	tandemv1connect.AdminServiceGetFindingsProcedure: Live | Publish | Admin,
}

// open are the paths that need nothing: they say whether the server lives and is ready.
const (
	healthService = "/grpc.health.v1.Health/"
	alivePath     = "/healthz"
	readyPath     = "/readyz"
)

// Needed returns which scopes a path needs, one of which is enough; 0 for none, of probes
// alone. What is not in the contract, as reflection, needs any.
func Needed(path string) Scopes {
	switch {
	case path == alivePath, path == readyPath, strings.HasPrefix(path, healthService):
		return 0
	}
	if need, ok := Procedures[path]; ok {
		return need
	}
	return Any
}
