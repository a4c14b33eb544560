package server

import (
	"cmp"
	"context"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// GetEmbeddings implements [tandemv1connect.RetrievalServiceHandler].
func (s *Service) GetEmbeddings(_ context.Context, r *connect.Request[tandemv1.GetEmbeddingsRequest]) (*connect.Response[tandemv1.GetEmbeddingsResponse], error) {
	now, err := s.acquire(r.Msg.ModelVersion, cmp.Or(r.Msg.RequestKey, r.Msg.RequestId))
	if err != nil {
		return nil, err
	}
	defer now.release()
	m := now.snapshot.Manifest()
	out := &tandemv1.GetEmbeddingsResponse{
		Model:        m.Model,
		ModelVersion: m.ModelVersion,
		Snapshot:     string(now.snapshot.Digest()),
		RequestId:    r.Msg.RequestId,
		Generation:   now.generation,
		Arm:          now.name,
	}
	tower := now.snapshot.Tower(kindOf(r.Msg.Tower))
	for _, id := range r.Msg.Ids {
		v, ok, err := tower.Vector(id)
		switch {
		case err != nil:
			s.noteLost(now.serving, nil, err)
			return nil, err
		case ok:
			out.Embeddings = append(out.Embeddings, &tandemv1.Embedding{Id: id, Values: v})
		default:
			out.UnknownIds = append(out.UnknownIds, id)
		}
	}
	return connect.NewResponse(out), nil
}
