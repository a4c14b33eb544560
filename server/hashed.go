package server

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// hashUsers replaces the ids of users in a query that is to be written, and in its request. Values of
// filters and bindings stay, whatever they are. A request for users is of ids of users in many places,
// and is not recorded where they are hashed; see [recorder.wants].
func hashUsers(q *querylog.Query, h *rowlog.UserHash) error {
	r := new(tandemv1.RetrieveRequest)
	if err := proto.Unmarshal(q.Request, r); err != nil {
		return fmt.Errorf("request: %w: %w", querylog.ErrDamaged, err)
	}
	r.UserId, r.RequestKey = h.Of(r.UserId), h.Of(r.RequestKey)
	request, err := proto.Marshal(r)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	q.Request, q.UserID, q.RequestKey = request, h.Of(q.UserID), h.Of(q.RequestKey)
	return nil
}
