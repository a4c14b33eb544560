package server

import (
	"bytes"
	"context"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// recorder samples requests and writes them, with their answers, into a store as
// package querylog has them.
//
// A request is never kept waiting. One that is sampled is copied and put into a queue
// with a bound on its length and on its bytes; one goroutine, which run is, takes it
// from there. What does not fit is dropped and counted. A store that fails is tried
// again at the next interval, with what could not be written and then no more than
// another file of queries in memory.
//
// Of a user who is forgotten when a file is to be written nothing is in it: queries that name
// one are left out, as a collection would take them out, however long ago they were answered.
//
// A nil recorder samples nothing.
type recorder struct {
	store     uploader
	events    *events.Listener
	o         recorderOptions
	threshold uint64 // the largest hash of an id that is sampled
	once      *seen  // of whom something was recorded; nil unless each is to be once

	queue   chan *querylog.Query
	queued  atomic.Int64 // bytes in queue
	dropped atomic.Int64 // queries that were dropped and not told of yet
	stop    chan struct{}
	done    chan struct{} // closed when run has ended
	cancel  context.CancelFunc
	closing sync.Once

	// What run owns.
	rows    []querylog.Query
	bytes   int    // of rows
	pending []byte // a file that could not be written yet, of count queries under key
	count   int
	key     string
	without live.Forgotten // who is not in pending
}

// uploader is what a recorder needs of a store.
type uploader interface {
	Upload(ctx context.Context, key string, r io.Reader) error
}

// recorderOptions say when and how a recorder writes.
type recorderOptions struct {
	rows     int              // the most queries in a file
	bytes    int              // about the most bytes in a file, and in the queue
	queue    int              // the most queries in the queue
	interval time.Duration    // the longest that a query waits for its file
	timeout  time.Duration    // for one write
	closing  time.Duration    // for the last write, when the server stops
	next     int              // how many candidates that come after an answer are recorded with it
	once     bool             // whether each user is recorded once for each experiment and generation
	hash     *rowlog.UserHash // of ids of users; nil if they are written as they are
	encode   func([]querylog.Query) ([]byte, error)
	// forgotten returns the users who are forgotten by now.
	forgotten func() live.Forgotten
}

// RecordInterval is the longest that a recorded query waits until it is written into a
// store that takes it. A server that stops writes what it has.
const RecordInterval = time.Minute

func defaultRecorderOptions() recorderOptions {
	return recorderOptions{
		rows: 10_000, bytes: 64 << 20, queue: 4096,
		interval: RecordInterval, timeout: time.Minute, closing: 10 * time.Second,
		encode: querylog.Encode, forgotten: func() live.Forgotten { return live.Forgotten{} },
	}
}

// startRecorder starts a recorder of a share of the requests, from 0 to 1, and, if the options say
// so, of the first of each user. The caller closes it.
func startRecorder(share float64, store uploader, told *events.Listener, o recorderOptions) *recorder {
	ctx, cancel := context.WithCancel(context.Background())
	r := &recorder{
		store: store, events: told, o: o, threshold: thresholdOf(share),
		queue: make(chan *querylog.Query, o.queue), stop: make(chan struct{}), done: make(chan struct{}), cancel: cancel,
	}
	if o.once {
		r.once = newSeen(maxSeen)
	}
	go r.run(ctx)
	return r
}

// thresholdOf returns which hashes are the share of them.
func thresholdOf(share float64) uint64 {
	switch {
	case share >= 1:
		return math.MaxUint64
	case !(share > 0):
		return 0 // one in 2^64 is as good as none
	}
	return uint64(math.Ldexp(max(share, 0), 64))
}

// wants reports whether a request that a generation answers is to be recorded: whether it is
// sampled, or is the first of its user. The former depends on the request's id alone, so a request
// that is sent again under its id is chosen again.
func (r *recorder) wants(request *tandemv1.RetrieveRequest, generation uint64) bool {
	if r == nil || r.o.hash != nil && request.Target == tandemv1.Tower_TOWER_USERS {
		return false
	}
	if r.threshold > 0 && xxhash.Sum64String(request.RequestId) <= r.threshold {
		return true
	}
	return r.once != nil && !r.once.has(onceKey(request, generation))
}

// record records a request that came at start, its answer, and what would have come next, if there
// is room.
func (r *recorder) record(start time.Time, request *tandemv1.RetrieveRequest, answer *tandemv1.RetrieveResponse, next []querylog.Candidate) {
	q, err := RecordedQuery(start, time.Since(start), request, answer)
	if err != nil {
		r.events.Recording(events.Recording{Change: events.Lost, Queries: 1, RequestID: request.RequestId, Err: err})
		return
	}
	q.RequestKey = request.RequestKey
	q.Generation, q.Arm, q.Next = int64(answer.Generation), answer.Arm, next
	size := int64(q.Size())
	if r.queued.Add(size) > int64(r.o.bytes) {
		r.queued.Add(-size)
		r.dropped.Add(1)
		return
	}
	select {
	case r.queue <- &q:
		r.once.add(onceKey(request, answer.Generation))
	default:
		r.queued.Add(-size)
		r.dropped.Add(1)
	}
}

// close writes what was recorded and ends the recorder. What the store does not take
// in time is lost, and told of. Requests must have ended: what is offered
// later is lost.
func (r *recorder) close() {
	if r == nil {
		return
	}
	r.closing.Do(func() {
		late := time.AfterFunc(r.o.closing, r.cancel)
		defer late.Stop()
		close(r.stop)
		<-r.done
		r.cancel()
	})
}

// run writes what is offered until the recorder is closed.
func (r *recorder) run(ctx context.Context) {
	defer close(r.done)
	ticker := time.NewTicker(r.o.interval)
	defer ticker.Stop()
	for {
		select {
		case q := <-r.queue:
			r.add(ctx, q)
		case <-ticker.C:
			r.flush(ctx)
		case <-r.stop:
			r.finish(ctx)
			return
		}
	}
}

// finish writes what is left, or says that it is lost.
func (r *recorder) finish(ctx context.Context) {
	for {
		select {
		case q := <-r.queue:
			r.add(ctx, q)
			continue
		default:
		}
		break
	}
	r.flush(ctx)
	if lost := r.count + len(r.rows); lost > 0 {
		r.events.Recording(events.Recording{Change: events.Lost, Queries: lost})
	}
}

// add takes a query from the queue.
func (r *recorder) add(ctx context.Context, q *querylog.Query) {
	size := q.Size()
	r.queued.Add(-int64(size))
	if len(r.rows) > 0 && (len(r.rows) >= r.o.rows || r.bytes+size > r.o.bytes) {
		if r.pending != nil { // it is tried again at the next interval
			r.dropped.Add(1)
			return
		}
		r.write(ctx)
	}
	r.rows = append(r.rows, *q)
	r.bytes += size
	if len(r.rows) >= r.o.rows && r.pending == nil {
		r.write(ctx)
	}
}

// flush writes what could not be written before, and what came since.
func (r *recorder) flush(ctx context.Context) {
	if r.pending != nil {
		r.sift()
	}
	if r.pending == nil || r.upload(ctx) {
		r.write(ctx)
	}
	if n := r.dropped.Swap(0); n > 0 {
		r.events.Recording(events.Recording{Change: events.Dropped, Queries: int(n)})
	}
}

// write makes a file of the rows and writes it. Nothing else may be pending.
func (r *recorder) write(ctx context.Context) {
	if len(r.rows) == 0 {
		return
	}
	r.encode(r.hashed(r.rows), querylog.Key(time.Now()))
	clear(r.rows) // their strings
	r.rows, r.bytes = r.rows[:0], 0
	if r.pending != nil {
		r.upload(ctx)
	}
}

// encode has a file of those queries pending that name nobody who is forgotten, if there are
// any. It writes over rows.
func (r *recorder) encode(rows []querylog.Query, key string) {
	r.pending, r.count, r.key, r.without = nil, 0, "", r.o.forgotten()
	if rows = r.nameless(rows); len(rows) == 0 {
		return
	}
	data, err := r.o.encode(rows)
	if err != nil {
		r.events.Recording(events.Recording{Change: events.Lost, Queries: len(rows), Err: err})
		return
	}
	r.pending, r.count, r.key = data, len(rows), key
}

// hashed returns queries with the ids of their users hashed, if they are to be, without those of users
// who are forgotten, whom nobody finds by their ids after it. It writes over rows.
func (r *recorder) hashed(rows []querylog.Query) []querylog.Query {
	if r.o.hash == nil {
		return rows
	}
	r.without = r.o.forgotten()
	kept := rows[:0]
	for _, q := range r.nameless(rows) {
		if err := hashUsers(&q, r.o.hash); err != nil {
			r.events.Recording(events.Recording{Change: events.Lost, Queries: 1, RequestID: q.RequestID, Err: err})
			continue
		}
		kept = append(kept, q)
	}
	return kept
}

// nameless takes queries out that name a user who is forgotten.
func (r *recorder) nameless(rows []querylog.Query) []querylog.Query {
	if r.without.Len() == 0 {
		return rows
	}
	forgotten := func(text string) bool { return shard.CheckID(text) == nil && r.without.Has(text) }
	return slices.DeleteFunc(rows, func(q querylog.Query) bool {
		names, err := q.Names(forgotten, RecordedUsers)
		if err != nil { // whom it names is not known
			r.events.Recording(events.Recording{Change: events.Lost, Queries: 1, RequestID: q.RequestID, Err: err})
		}
		return names || err != nil
	})
}

// sift takes queries out of the pending file that name who was forgotten since it was made.
func (r *recorder) sift() {
	if r.o.forgotten() == r.without {
		return
	}
	var rows []querylog.Query
	for q, err := range querylog.Decode(r.pending) {
		if err != nil {
			r.events.Recording(events.Recording{Change: events.Lost, Queries: r.count, Err: err})
			r.pending, r.count, r.key = nil, 0, ""
			return
		}
		rows = append(rows, *q)
	}
	r.encode(rows, r.key)
}

// upload writes the pending file, and reports whether it did.
func (r *recorder) upload(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, r.o.timeout)
	defer cancel()
	if err := r.store.Upload(ctx, r.key, bytes.NewReader(r.pending)); err != nil {
		r.events.Recording(events.Recording{Change: events.Late, Queries: r.count, Object: r.key, Err: err})
		return false
	}
	r.events.Recording(events.Recording{Change: events.Written, Queries: r.count, Object: r.key, Bytes: len(r.pending)})
	r.pending, r.count, r.key = nil, 0, ""
	return true
}
