package server

import (
	"cmp"
	"context"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// GetEmbeddings implements [tandemv1connect.RetrievalServiceHandler].
func (s *Service) GetEmbeddings(ctx context.Context, r *connect.Request[tandemv1.GetEmbeddingsRequest]) (*connect.Response[tandemv1.GetEmbeddingsResponse], error) {
	arrived := s.clock()
	if err := s.reach(ctx, r.Msg.MinLive); err != nil {
		return nil, err
	}
	arm, err := s.acquire(wanted{version: r.Msg.ModelVersion, key: cmp.Or(r.Msg.RequestKey, r.Msg.RequestId)})
	if err != nil {
		return nil, err
	}
	defer arm.release()
	now := arm.pin(arrived)
	if err := s.begin(now); err != nil {
		return nil, err
	}
	m := now.snapshot.Manifest()
	if c := callFrom(ctx); c != nil {
		k := now.estimateEmbeddings(r.Msg)
		if most := c.limits.maxAnswer; k.answer > most {
			return nil, invalidf(reasonAnswer, "ids", "ids has %d ids: an answer of up to %d bytes, with the %d numbers of model %s each; accepted: up to %d, such as %d ids",
				len(r.Msg.Ids), k.answer, m.Dim, modelName(m), most, len(r.Msg.Ids)*most/k.answer)
		}
		if err := c.admit(ctx, k); err != nil {
			return nil, err
		}
	}
	out := &tandemv1.GetEmbeddingsResponse{
		Model:        m.Model,
		ModelVersion: m.ModelVersion,
		Snapshot:     string(now.snapshot.Digest()),
		RequestId:    r.Msg.RequestId,
		Generation:   now.generation,
		Arm:          now.name,
	}
	out.Live, out.Staleness = now.stamp()
	tower, at := now.tower(kindOf(r.Msg.Tower)), now.at
	traceArm(spanFrom(ctx), now)
	searching := spanFrom(ctx).Begin("search")
	vectors, err := tower.Vectors(ctx, at, r.Msg.Ids)
	searching.End()
	if err != nil {
		s.noteLost(now.serving, nil, err)
		return nil, err
	}
	for i, id := range r.Msg.Ids {
		if v := vectors[i]; v != nil {
			out.Embeddings = append(out.Embeddings, &tandemv1.Embedding{Id: id, Values: v})
		} else {
			out.UnknownIds = append(out.UnknownIds, id)
		}
	}
	if out.OtherForms, err = otherForms(ctx, tower, at, out.UnknownIds); err != nil {
		s.noteLost(now.serving, nil, err)
		return nil, err
	}
	return connect.NewResponse(out), s.guard(ctx, now)
}

// embeddingTime is what a processor takes for one embedding, beside its numbers.
const embeddingTime = 2 * time.Microsecond

// estimateEmbeddings returns what a request for embeddings will cost, at most.
func (s *serving) estimateEmbeddings(r *tandemv1.GetEmbeddingsRequest) cost {
	n, numbers := len(r.Ids), s.snapshot.Manifest().Dim*len(r.Ids)
	size := answerOverhead + 4*numbers + 16*n
	for _, id := range r.Ids {
		size += len(id)
	}
	return cost{
		work:   time.Duration(n)*embeddingTime + time.Duration(numbers)*4*time.Nanosecond,
		answer: size, memory: (1 + encodings) * size,
	}
}
