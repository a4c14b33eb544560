package tail

import (
	"math"
	"math/rand/v2"
	"slices"
)

// What package router has: see latency.go and replicas.go there.
const (
	window     = 256
	refresh    = 32
	enough     = 20
	hedgeAfter = 0.95
	leastHedge = 1e-3
	firstHedge = 50e-3
	hedgeShare = 0.03
	hedgeSaved = 20
	hedgeKept  = 10
)

// Result is what queries took.
type Result struct {
	// Latency is of queries, in seconds, ascending.
	Latency Times
	// Call is how long calls of searches took a router, ascending; a sample of them.
	Call Times
	// Busy is the share of its processors that each host was busy for.
	Busy []float64
	// Hedged is the share of queries for which a replica was asked beside another.
	Hedged float64
	// Overloaded is whether work comes faster than it is done, so that quantiles say nothing.
	Overloaded bool
}

// kind is what a piece of work is, or another event.
type kind uint8

const (
	arrive kind = iota // a query comes
	begin              // the client has sent it; and so on: each is the end of a piece of work
	decoded
	lookupSent
	lookedUp
	lookupRead
	sent
	searched
	read
	merged
	answered
	hedge  // a call takes long
	beside // a process does what it does anyway
	besideDone
)

// piece is a piece of work, or what happens at a time.
type piece struct {
	kind  kind
	copy  uint8 // of a call: 1 for a hedge
	again bool
	shard int32
	query int32
	node  int32
	work  float64
}

// event is a piece that ends at a time.
type event struct {
	at   float64
	seq  int64 // those of one time are in the order in which they were made
	host int32 // whose processor becomes free; -1 for none
	piece
}

// host is a machine.
type host struct {
	idle  int
	queue []piece
	head  int
	busy  float64
}

// query is one that is under way.
type query struct {
	came   float64
	u      float64 // how slow it is
	router int32
	left   int32
	again  bool
	calls  []fan // by shard
}

// has reports whether a shard has answered, or the whole query was.
func (q *query) has(shard int32) bool { return len(q.calls) == 0 || q.calls[shard].ended }

// fan is a call of one shard.
type fan struct {
	begun float64
	node  [2]int32
	ended bool
}

// simulation is a run.
type simulation struct {
	c        *Cluster
	w        *Work
	l        *Load
	random   *rand.Rand
	now      float64
	seq      int64
	events   []event
	hosts    []host
	underWay []int32 // requests of each node
	queries  []query
	free     [][]fan
	took     []float64
	calls    []float64

	last   [window]float64 // of calls
	n      int
	usual  float64
	budget float64
	hedges int
	done   int
}

// Simulate runs the queries, and returns what they took. The error names what cannot be.
func Simulate(c Cluster, w Work, l Load) (*Result, error) {
	for _, err := range []error{c.Validate(), w.Validate(), l.Validate(len(c.Shards))} {
		if err != nil {
			return nil, err
		}
	}
	s := &simulation{
		c: &c, w: &w, l: &l, random: rand.New(rand.NewPCG(l.Seed, 0x7a11)), hosts: make([]host, len(c.Cores)), underWay: make([]int32, len(c.Nodes)),
		queries: make([]query, l.Queries), usual: firstHedge, budget: hedgeSaved,
	}
	for i, cores := range c.Cores {
		s.hosts[i].idle = cores
	}
	if w.Beside > 0 {
		for i := range len(c.Routers) + len(c.Nodes) {
			s.at(s.between(w.Piece/w.Beside), piece{kind: beside, node: int32(i)})
		}
	}
	s.at(0, piece{kind: arrive})
	for s.done < l.Queries && len(s.events) > 0 {
		s.step()
	}
	return s.result(), nil
}

func (s *simulation) between(mean float64) float64 { return s.random.ExpFloat64() * mean }

// at has something happen in a while.
func (s *simulation) at(in float64, p piece) { s.push(event{at: s.now + in, host: -1, piece: p}) }

func (s *simulation) push(e event) {
	s.seq++
	e.seq = s.seq
	s.events = append(s.events, e)
	i := len(s.events) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !before(&s.events[i], &s.events[up]) {
			break
		}
		s.events[i], s.events[up] = s.events[up], s.events[i]
		i = up
	}
}

func before(a, b *event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

// pop takes the first event of a heap with four branches.
func (s *simulation) pop() event {
	e := s.events[0]
	last := len(s.events) - 1
	s.events[0] = s.events[last]
	s.events = s.events[:last]
	for i := 0; ; {
		least := i
		for j := 4*i + 1; j <= 4*i+4 && j < last; j++ {
			if before(&s.events[j], &s.events[least]) {
				least = j
			}
		}
		if least == i {
			return e
		}
		s.events[i], s.events[least] = s.events[least], s.events[i]
		i = least
	}
}

// do has a host do a piece of work, after a message from another one.
func (s *simulation) do(from, to int, p piece) {
	if from != to && from >= 0 && s.c.Network > 0 {
		s.push(event{at: s.now + s.c.Network, host: -2 - int32(to), piece: p})
		return
	}
	s.enqueue(to, p)
}

// enqueue has a host do a piece of work now, or once it can.
func (s *simulation) enqueue(to int, p piece) {
	if p.work == 0 {
		s.finished(p)
		return
	}
	h := &s.hosts[to]
	if h.idle == 0 {
		h.queue = append(h.queue, p)
		return
	}
	h.idle--
	wake := 0.0
	if len(s.c.Wake) > 0 {
		wake = s.c.Wake.At(s.random.Float64())
	}
	s.start(to, p, wake)
}

func (s *simulation) start(to int, p piece, in float64) {
	s.hosts[to].busy += p.work
	s.push(event{at: s.now + in + p.work, host: int32(to), piece: p})
}

// step has the next event happen.
func (s *simulation) step() {
	e := s.pop()
	s.now = e.at
	if e.host <= -2 { // a message arrives
		s.enqueue(int(-2-e.host), e.piece)
		return
	}
	if e.host >= 0 {
		s.next(int(e.host))
	}
	s.finished(e.piece)
}

// next has a processor that is free go on with what waits.
func (s *simulation) next(to int) {
	h := &s.hosts[to]
	for h.head < len(h.queue) {
		p := h.queue[h.head]
		h.head++
		if h.head > 1024 && 2*h.head > len(h.queue) {
			h.queue = h.queue[:copy(h.queue, h.queue[h.head:])]
			h.head = 0
		}
		if s.moot(p) {
			continue
		}
		s.start(to, p, 0)
		return
	}
	h.queue, h.head = h.queue[:0], 0
	h.idle++
}

// moot reports whether nobody waits for a piece of work any more.
func (s *simulation) moot(p piece) bool {
	if p.kind != searched || p.again {
		return false
	}
	q := &s.queries[p.query]
	if !q.has(p.shard) {
		return false
	}
	s.underWay[p.node]--
	return true
}

func (s *simulation) router(q *query) int { return s.c.Routers[q.router] }

// finished goes on with what follows a piece of work.
func (s *simulation) finished(p piece) {
	switch p.kind {
	case beside:
		process, hosts := int(p.node), s.c.Routers
		if process >= len(hosts) {
			process, hosts = process-len(hosts), s.c.Nodes
		}
		s.enqueue(hosts[process], piece{kind: besideDone, work: s.w.Piece})
		s.at(s.between(s.w.Piece/s.w.Beside), p)
		return
	case besideDone:
		return
	}
	q := &s.queries[p.query]
	switch p.kind {
	case arrive:
		q.came, q.u, q.router = s.now, s.random.Float64(), int32(s.random.IntN(len(s.c.Routers)))
		if next := int(p.query) + 1; next < s.l.Queries {
			s.at(s.between(1/s.l.Rate), piece{kind: arrive, query: int32(next)})
		}
		if s.c.Client >= 0 {
			s.do(-1, s.c.Client, piece{kind: begin, query: p.query, work: s.w.Client / 2})
			return
		}
		s.finished(piece{kind: begin, query: p.query})
	case begin:
		s.do(s.c.Client, s.router(q), piece{kind: decoded, query: p.query, work: s.w.Query / 2})
	case decoded:
		if len(s.c.Users) == 0 {
			s.fanOut(p.query, q)
			return
		}
		s.do(-1, s.router(q), piece{kind: lookupSent, query: p.query, work: s.w.Call / 2})
	case lookupSent:
		n := s.pick(s.c.Users[s.random.IntN(len(s.c.Users))], -1)
		s.underWay[n]++
		s.do(s.router(q), s.c.Nodes[n], piece{kind: lookedUp, query: p.query, node: n, work: s.w.Lookup.At(s.random.Float64())})
	case lookedUp:
		s.underWay[p.node]--
		s.do(s.c.Nodes[p.node], s.router(q), piece{kind: lookupRead, query: p.query, work: s.w.Call / 2})
	case lookupRead:
		s.fanOut(p.query, q)
	case sent:
		s.ask(p, q)
	case searched:
		s.underWay[p.node]--
		s.do(s.c.Nodes[p.node], s.router(q), piece{kind: read, query: p.query, shard: p.shard, copy: p.copy, again: p.again, work: s.w.Call / 2})
	case read:
		s.replied(p, q)
	case merged:
		s.do(s.router(q), s.c.Client, piece{kind: answered, query: p.query, work: s.clientWork()})
	case answered:
		s.took = append(s.took, s.now-q.came)
		s.done++
	case hedge:
		s.hedge(p, q)
	}
}

func (s *simulation) clientWork() float64 {
	if s.c.Client < 0 {
		return 0
	}
	return s.w.Client / 2
}

// fanOut has the router ask all shards.
func (s *simulation) fanOut(number int32, q *query) {
	q.left = int32(len(s.c.Shards))
	q.again = s.random.Float64() < s.l.Again
	if n := len(s.free); n > 0 {
		q.calls, s.free = s.free[n-1], s.free[:n-1]
		clear(q.calls)
	} else {
		q.calls = make([]fan, len(s.c.Shards))
	}
	s.budget = min(s.budget+hedgeShare, hedgeSaved)
	for i := range s.c.Shards {
		s.do(-1, s.router(q), piece{kind: sent, query: number, shard: int32(i), work: s.w.Call / 2})
	}
}

// ask has a node search.
func (s *simulation) ask(p piece, q *query) {
	if len(q.calls) == 0 || p.copy == 1 && q.has(p.shard) {
		return // the other replica was first
	}
	call := &q.calls[p.shard]
	replicas := s.c.Shards[p.shard]
	not := int32(-1)
	if p.copy == 1 {
		not = call.node[0]
	}
	n := s.pick(replicas, not)
	call.node[p.copy] = n
	s.underWay[n]++
	if p.copy == 0 && !p.again {
		call.begun = s.now
		if s.l.Hedge && len(replicas) > 1 {
			s.at(s.usual, piece{kind: hedge, query: p.query, shard: p.shard})
		}
	}
	u := q.u
	if s.l.Same < 1 && s.random.Float64() >= s.l.Same {
		u = s.random.Float64()
	}
	s.do(s.router(q), s.c.Nodes[n], piece{kind: searched, query: p.query, shard: p.shard, copy: p.copy, again: p.again, node: n, work: s.w.Search.At(u)})
}

// pick returns the node of two that are drawn that has fewer requests; not is none of them.
func (s *simulation) pick(replicas []int, not int32) int32 {
	if len(replicas) == 1 {
		return int32(replicas[0])
	}
	draw := func(but int32) int32 {
		for {
			if n := int32(replicas[s.random.IntN(len(replicas))]); n != but && n != not {
				return n
			}
		}
	}
	a := draw(-1)
	if len(replicas) == 2 && not >= 0 {
		return a
	}
	b := draw(a)
	if s.underWay[b] < s.underWay[a] || s.underWay[b] == s.underWay[a] && s.random.IntN(2) == 0 {
		return b
	}
	return a
}

// hedge asks another replica beside one that takes long, if the budget allows it.
func (s *simulation) hedge(p piece, q *query) {
	if q.has(p.shard) {
		return
	}
	kept := hedgeKept
	if p.again { // it has waited twice as long
		kept = 0
	}
	if s.budget < float64(1+kept) {
		p.again = true
		s.at(2*s.usual, p)
		return
	}
	s.budget--
	s.hedges++
	s.do(-1, s.router(q), piece{kind: sent, query: p.query, shard: p.shard, copy: 1, work: s.w.Call / 2})
}

// replied takes in the answer of a shard, unless another replica was first.
func (s *simulation) replied(p piece, q *query) {
	if p.again {
		s.merge(p.query, q)
		return
	}
	if q.has(p.shard) {
		return
	}
	call := &q.calls[p.shard]
	call.ended = true
	s.add(s.now - call.begun)
	if q.left--; q.left > 0 {
		return
	}
	if q.again {
		s.do(-1, s.router(q), piece{kind: sent, query: p.query, shard: int32(s.random.IntN(len(s.c.Shards))), again: true, work: s.w.Call / 2})
		return
	}
	s.merge(p.query, q)
}

// merge has the router make the answer.
func (s *simulation) merge(number int32, q *query) {
	s.free = append(s.free, q.calls)
	q.calls = nil
	s.do(-1, s.router(q), piece{kind: merged, query: number, work: s.w.Query / 2})
}

// maxCalls is how many calls are kept.
const maxCalls = 100_000

// add takes in how long a call took.
func (s *simulation) add(took float64) {
	if len(s.calls) < maxCalls {
		s.calls = append(s.calls, took)
	}
	if !s.l.Hedge {
		return
	}
	s.last[s.n%window] = took
	s.n++
	if s.n < enough || s.n%refresh != 0 && s.n != enough {
		return
	}
	var sorted [window]float64
	list := sorted[:copy(sorted[:], s.last[:min(s.n, window)])]
	slices.Sort(list)
	q := list[int(math.Ceil(hedgeAfter*float64(len(list))))-1]
	s.usual = max(q+q/8, leastHedge)
}

// result sums up.
func (s *simulation) result() *Result {
	r := &Result{Hedged: float64(s.hedges) / float64(s.l.Queries)}
	r.Latency = slices.Sorted(slices.Values(s.took[len(s.took)/10:]))
	r.Call = slices.Sorted(slices.Values(s.calls))
	for i := range s.hosts {
		busy := s.hosts[i].busy / (s.now * float64(s.c.Cores[i]))
		r.Busy = append(r.Busy, busy)
		// Were less than all done by now, queues would have grown all the time.
		r.Overloaded = r.Overloaded || busy > 0.98
	}
	return r
}
