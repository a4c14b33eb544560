package main

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"

	"connectrpc.com/connect"
	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// How eligible apps are drawn: so many of the snapshot at a time, of which those that the request's
// own filter lets through are kept, in the order of the draw, and so often.
const (
	drawnAtOnce  = 4096
	drawnRounds  = 16
	openedAtOnce = 4 // snapshots: answers of several arms take turns
)

// eligibleApps draws apps that were eligible for recorded queries, from the snapshots that answered
// them. It is for one goroutine. The caller closes it.
type eligibleApps struct {
	store  *snapshots.Store
	logger *slog.Logger
	opened []*openedSnapshot // that was asked last, last
	gone   map[string]bool
}

// openedSnapshot is a snapshot that answers in this process.
type openedSnapshot struct {
	digest  string
	service *server.Service
	apps    *shard.Tower
	rows    []int // up to and with each shard
}

func newEligibleApps(e *environment, store *snapshots.Store) *eligibleApps {
	return &eligibleApps{store: store, logger: newLogger(e.stderr, "text", slog.LevelError), gone: map[string]bool{}}
}

// Close implements [io.Closer].
func (a *eligibleApps) Close() error {
	for _, s := range a.opened {
		s.service.Close()
	}
	a.opened = nil
	return nil
}

// open returns a snapshot, nil if it is not there any more.
func (a *eligibleApps) open(ctx context.Context, digest string) (*openedSnapshot, error) {
	if a.gone[digest] || !manifest.Digest(digest).Valid() {
		return nil, nil
	}
	if i := slices.IndexFunc(a.opened, func(s *openedSnapshot) bool { return s.digest == digest }); i >= 0 {
		s := a.opened[i]
		a.opened = append(slices.Delete(a.opened, i, i+1), s)
		return s, nil
	}
	snapshot, err := snapshots.Open(ctx, a.store, manifest.Digest(digest))
	if errors.Is(err, snapshots.ErrNoSnapshot) || errors.Is(err, objects.ErrNotFound) {
		a.gone[digest] = true
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &openedSnapshot{digest: digest, service: server.NewService(a.logger), apps: snapshot.Tower(shard.Apps)}
	n := 0
	for _, of := range s.apps.Local() {
		n += of.Rows()
		s.rows = append(s.rows, n)
	}
	s.service.Serve(snapshot)
	if len(a.opened) == openedAtOnce {
		a.opened[0].service.Close()
		a.opened = slices.Delete(a.opened, 0, 1)
	}
	a.opened = append(a.opened, s)
	return s, nil
}

// draw returns n apps that were eligible for a query and are neither in its answer nor next to it, each
// as likely, with their scores; fewer if there are fewer, or too few of the snapshot's are eligible to
// be found. It is not known which where the snapshot is not there any more, or cannot answer the
// request. The same query gives the same.
func (a *eligibleApps) draw(ctx context.Context, q *querylog.Query, n int) (list []querylog.Candidate, known bool, err error) {
	s, err := a.open(ctx, q.Snapshot)
	if s == nil || err != nil {
		return nil, false, err
	}
	request, err := server.RecordedRequest(q)
	if err != nil {
		return nil, false, err
	}
	request.ModelVersion, request.PageToken, request.AtMost, request.ExplainIds, request.Explain = "", "", nil, nil, false
	request.RecallTarget, request.Ef, request.Attributes = proto.Float64(1), nil, nil
	for _, of := range [][]querylog.Candidate{q.Candidates, q.Next} {
		for _, c := range of {
			request.ExcludeIds = append(request.ExcludeIds, c.ID)
		}
	}
	draw := s.draws(request.IncludeIds, rand.New(rand.NewPCG(xxhash.Sum64String(q.RequestID), uint64(q.Time.UnixMicro()))))
	for range drawnRounds {
		ids := draw()
		if len(ids) == 0 {
			break
		}
		request.IncludeIds, request.K = ids, uint32(len(ids))
		batch := connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{request}})
		response, err := s.service.BatchRetrieve(ctx, batch)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, false, err
		}
		result := response.Msg.Results[0]
		if result.GetError() != nil {
			return nil, false, nil // such as a user that the snapshot does not have
		}
		scores := map[string]float32{}
		for _, c := range result.GetResponse().Candidates {
			scores[c.Id] = c.Score
		}
		for _, id := range ids {
			if score, is := scores[id]; is && len(list) < n {
				list = append(list, querylog.Candidate{ID: id, Score: score})
			}
		}
		if len(list) == n {
			break
		}
	}
	return list, true, nil
}

// draws returns what draws the next ids, none twice: of a request's own, if it includes some only, or of
// all of the snapshot.
func (s *openedSnapshot) draws(include []string, r *rand.Rand) func() []string {
	if len(include) > 0 {
		ids := slices.Clone(include)
		slices.Sort(ids)
		ids = slices.Compact(ids)
		r.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		return func() []string {
			n := min(len(ids), drawnAtOnce)
			some := ids[:n]
			ids = ids[n:]
			return some
		}
	}
	all := s.apps.Rows()
	// A shuffle of all rows of which only the first ones are made: what was swapped is kept.
	swapped, done := map[int]int{}, 0
	at := func(i int) int {
		if row, is := swapped[i]; is {
			return row
		}
		return i
	}
	return func() (ids []string) {
		for len(ids) < drawnAtOnce && done < all {
			i := done + r.IntN(all-done)
			row := at(i)
			swapped[i] = at(done)
			done++
			ids = append(ids, s.id(row))
		}
		return ids
	}
}

// id returns the id of a row among those of all shards.
func (s *openedSnapshot) id(row int) string {
	n, in := slices.BinarySearch(s.rows, row)
	if in {
		n++ // it is the first of the next one
	}
	before := 0
	if n > 0 {
		before = s.rows[n-1]
	}
	for s.rows[n] == before { // a shard without rows
		n++
	}
	return s.apps.Local()[n].ID(uint32(row - before))
}
