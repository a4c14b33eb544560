package machine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/tandem-ann/tandem/bench/capacity"
	"github.com/tandem-ann/tandem/bench/capacity/tail"
	"github.com/tandem-ann/tandem/bench/cluster"
	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Towers are what a snapshot is built of: generated ones.
type Towers struct {
	Apps, Users, Dim, Shards int
	Seed                     uint64
}

// Options say what is measured. All fields are required, but Progress.
type Options struct {
	// Program is the command of servers, and Dir an empty folder.
	Program, Dir string
	// Make builds towers into a store in a new folder, and releases the snapshot.
	Make func(ctx context.Context, store string, t Towers) (snapshot string, err error)
	// Rows are the sizes of shards that are searched, 2 to 16 of them.
	Rows []int
	// Dim is that of the towers, K what queries ask for, and Target the recall that they aim at.
	Dim, K int
	Target float64
	// Rates are how often processes are asked a second, ascending, 1 to 16 of them.
	Rates []float64
	// Time is how long each turn asks, and Rounds how many turns there are, of which the medians
	// count.
	Time   time.Duration
	Rounds int
	Seed   uint64
	// Progress, if not nil, is told what begins.
	Progress func(what string)
}

// Bounds of [Options].
const (
	leastRows   = 1000
	mostRows    = 10_000_000
	mostSizes   = 16
	mostRounds  = 100
	mostRate    = 20_000
	users       = 2000 // who ask
	quantiles   = 101
	routerParts = 8 // shards of the router's second measurement
)

// Validate returns an error that names the option out of bounds.
func (o *Options) Validate() error {
	switch {
	case len(o.Rows) < 2 || len(o.Rows) > mostSizes:
		return fmt.Errorf("there are %d sizes of shards, want 2 to %d", len(o.Rows), mostSizes)
	case o.Dim < 1 || o.Dim > 4096:
		return fmt.Errorf("dim is %d, want 1 to 4096", o.Dim)
	case o.K < 1 || o.K > leastRows:
		return fmt.Errorf("k is %d, want 1 to %d", o.K, leastRows)
	case !(o.Target > 0 && o.Target < 1):
		return fmt.Errorf("target is %v, want more than 0, less than 1", o.Target)
	case len(o.Rates) < 1 || len(o.Rates) > mostSizes:
		return fmt.Errorf("there are %d rates, want 1 to %d", len(o.Rates), mostSizes)
	case o.Time < 100*time.Millisecond || o.Time > time.Hour:
		return fmt.Errorf("time is %s, want 100ms to 1h", o.Time)
	case o.Rounds < 1 || o.Rounds > mostRounds:
		return fmt.Errorf("rounds is %d, want 1 to %d", o.Rounds, mostRounds)
	}
	for i, rate := range o.Rates {
		if !(rate >= 1 && rate <= mostRate) || i > 0 && rate <= o.Rates[i-1] {
			return fmt.Errorf("rate %d is %v a second, want ascending ones from 1 to %d", i+1, rate, mostRate)
		}
	}
	for _, rows := range o.Rows {
		if rows < leastRows || rows > mostRows {
			return fmt.Errorf("a shard of %d rows is to be searched, want %d to %d", rows, leastRows, mostRows)
		}
	}
	return nil
}

func (o *Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// site is a store with one snapshot, the servers of it, and the snapshot as it is opened here.
type site struct {
	o        *Options
	towers   Towers
	store    *snapshots.Store
	snapshot *snapshots.Snapshot
	servers  *cluster.Servers
	users    []string
	vectors  [][]float32
	cpu      float64 // seconds of the build
}

// open builds towers, and opens the snapshot. The site must be closed, even after an error.
func (o *Options) open(ctx context.Context, t Towers) (s *site, err error) {
	s = &site{o: o, towers: t}
	location := filepath.Join(o.Dir, nameOf(t))
	before, err := ownCPU()
	if err != nil {
		return s, err
	}
	digest, err := o.Make(ctx, location, t)
	if err != nil {
		return s, fmt.Errorf("build %d apps in %d shards: %w", t.Apps, t.Shards, err)
	}
	after, err := ownCPU()
	if err != nil {
		return s, err
	}
	s.cpu = after - before
	if s.store, err = snapshots.OpenStore(ctx, location, snapshots.Options{Cache: filepath.Join(o.Dir, "cache")}); err != nil {
		return s, err
	}
	if s.snapshot, err = snapshots.Open(ctx, s.store, manifest.Digest(digest)); err != nil {
		return s, err
	}
	if err := s.snapshot.Warm(ctx); err != nil {
		return s, err
	}
	tower := s.snapshot.Tower(shard.Users)
	for _, row := range probe.Pick(tower, users, nil) {
		v, ok, err := tower.Vector(ctx, shard.Moment{Time: time.Now()}, row.ID)
		if err != nil || !ok {
			return s, fmt.Errorf("user %s has no vector: %w", row.ID, err)
		}
		s.users, s.vectors = append(s.users, row.ID), append(s.vectors, v)
	}
	return s, nil
}

// serve starts servers.
func (s *site) serve(ctx context.Context, nodes int) (err error) {
	s.servers, err = cluster.StartServers(ctx, cluster.ServersOptions{
		Program: s.o.Program, Location: filepath.Join(s.o.Dir, s.name()), Nodes: nodes, Replicas: 1, Routers: 1, Shards: 2 * s.towers.Shards,
		Flags: []string{"--live-poll", "300ms"}, // as in a bucket
	})
	return err
}

func (s *site) name() string { return nameOf(s.towers) }

func nameOf(t Towers) string { return fmt.Sprintf("%d-shards-%d-apps-%d", t.Shards, t.Apps, t.Seed) }

func (s *site) close() (err error) {
	if s == nil {
		return nil
	}
	if s.servers != nil {
		err = errors.Join(err, s.servers.Close())
	}
	if s.snapshot != nil {
		err = errors.Join(err, s.snapshot.Close())
	}
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	return err
}

// id names a shard of the site.
func (s *site) id(tower shard.Kind) remote.ShardID {
	return remote.ShardID{Snapshot: s.snapshot.Digest(), Tower: tower, Number: 0, Of: s.towers.Shards}
}

// parts is what was measured of each step at one rate, in turns: seconds of processors, and times.
type parts struct {
	nodeCall, callerCall, lookup, routerQuery, routerCall, client []float64
	call                                                          []float64 // how long they took
	others                                                        []float64
	// aloneCall is nodeCall while nobody else was asked, and each what a query of one shard takes.
	aloneCall []float64
	each      float64
	rate      float64
	// fill is the share of the processors that is to be at work meanwhile, in whatever: 0 for no more
	// than what is measured.
	fill float64
}

// common is what was measured that does not depend on the rate.
type common struct {
	search                         []float64
	beside, nodeBytes, routerBytes []float64
}

// filler returns what has the processors be at work for as much of the time as they are to be, beside
// what takes so many seconds of one for each that is asked; nil if that is enough. It asks another
// cluster of the same program, as where processes share a machine.
func (p *parts) filler(ctx context.Context, spare *spare, each float64) *filler {
	missing := p.fill*float64(runtime.NumCPU()) - p.rate*each
	if spare == nil || missing <= 0 {
		return nil
	}
	return &filler{func(i int) error { return spare.asker.ask(ctx, i) }, missing / spare.each, spare.client}
}

// spare is a cluster that is asked beside what is measured.
type spare struct {
	asker        *asker
	each, client float64 // seconds of processors for each query, and of them of this process
}

// newSpare measures what a cluster takes for a query, for which it is asked so often a second.
func newSpare(ctx context.Context, s *site, rate float64) (*spare, error) {
	t, err := queries(ctx, s.servers, s.users, s.o.K, rate, s.o.Time, s.o.Seed, nil)
	if err != nil {
		return nil, fmt.Errorf("ask a cluster beside: %w", err)
	}
	out := &spare{each: t.self, client: t.self}
	for _, v := range t.cpu {
		out.each += v
	}
	out.asker, err = newAsker(s.servers.Routers()[0].Address, s.users, s.o.K)
	return out, err
}

// one measures a shard by itself, asked as one of so many: how long it takes while nobody else is
// asked, and what it takes of processors beside the filler.
func (s *site) one(ctx context.Context, c *common, list []*parts, spare *spare, shards int, seed uint64) error {
	rows, expected := shard.Share(s.o.K, shards)
	took, err := searches(ctx, s.snapshot.Tower(shard.Apps), s.vectors, rows, expected, s.o.Target)
	if err != nil {
		return err
	}
	c.search = append(c.search, took...)
	mean := tail.NewTimes(took, len(took)).Mean()
	node := s.servers.Nodes()[0]
	for _, p := range list {
		search := func(d time.Duration, f *filler) (turn, error) {
			t, err := calls(ctx, node, s.id(shard.Apps), s.snapshot.Tower(shard.Apps), s.vectors, rows, expected, s.o.Target, p.rate, d, seed, f)
			if err != nil {
				return t, fmt.Errorf("ask one shard: %w", err)
			}
			p.others = append(p.others, t.others)
			return t, nil
		}
		t, err := search(s.o.Time, nil)
		if err != nil {
			return err
		}
		p.call, p.callerCall = append(p.call, t.took...), append(p.callerCall, t.self)
		p.aloneCall = append(p.aloneCall, t.cpu[node.PID]-mean)
		if f := p.filler(ctx, spare, t.self+t.cpu[node.PID]); f != nil {
			if t, err = search(s.o.Time, f); err != nil {
				return err
			}
		}
		p.nodeCall = append(p.nodeCall, t.cpu[node.PID]-mean)
		t, err = lookups(ctx, node, s.id(shard.Users), s.users, p.rate, s.o.Time/2, seed, p.filler(ctx, spare, t.self+t.cpu[node.PID]))
		if err != nil {
			return fmt.Errorf("ask for vectors: %w", err)
		}
		p.lookup = append(p.lookup, t.cpu[node.PID])
	}
	return nil
}

// memories reads what a node and a router have in memory beside shards.
func (s *site) memories(c *common) error {
	own, files, err := memoryOf(s.servers.Nodes()[0].PID)
	if err != nil {
		return err
	}
	c.nodeBytes = append(c.nodeBytes, max(0, own+files-s.bytes()))
	own, files, err = memoryOf(s.servers.Routers()[0].PID)
	c.routerBytes = append(c.routerBytes, own+files)
	return err
}

// bytes are those of the files of the snapshot.
func (s *site) bytes() float64 {
	sum := 0.0
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, one := range s.snapshot.Manifest().Tower(kind).Shards {
			sum += float64(one.Size)
		}
	}
	return sum
}

// mostWide is how often a second a router of several shards is asked, so that one machine does it.
const mostWide = 150

// router measures a router of one shard, and one of several, of one node each.
func router(ctx context.Context, list []*parts, spare *spare, one, more *site, seed uint64) error {
	for _, p := range list {
		ask := func(s *site, rate float64, f *filler) (float64, error) {
			t, err := queries(ctx, s.servers, s.users, s.o.K, rate, s.o.Time, seed, f)
			if err != nil {
				return 0, fmt.Errorf("ask a router: %w", err)
			}
			p.others = append(p.others, t.others)
			if s == one && rate == p.rate {
				p.client = append(p.client, t.self)
				p.each = t.self
				for _, v := range t.cpu {
					p.each += v
				}
			}
			return t.cpu[s.servers.Routers()[0].PID], nil
		}
		var f *filler
		if p.each > 0 {
			f = p.filler(ctx, spare, p.each)
		}
		took, err := ask(one, p.rate, f)
		if err != nil {
			return err
		}
		slow, low := took, min(p.rate, mostWide)
		if low < p.rate {
			if slow, err = ask(one, low, nil); err != nil {
				return err
			}
		}
		wide, err := ask(more, low, nil)
		if err != nil {
			return err
		}
		call := (wide - slow) / float64(more.towers.Shards-1)
		p.routerCall = append(p.routerCall, call)
		p.routerQuery = append(p.routerQuery, took-2*call) // the vector of the user is a call too
	}
	return nil
}

// idle measures what processes take that nobody asks.
func idle(ctx context.Context, c *common, sites []*site, d time.Duration) error {
	var pids []int
	for _, s := range sites {
		for _, one := range slices.Concat(s.servers.Nodes(), s.servers.Routers()) {
			pids = append(pids, one.PID)
		}
	}
	before := map[int]float64{}
	for _, pid := range pids {
		var err error
		if before[pid], err = processCPU(pid); err != nil {
			return err
		}
	}
	start := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	seconds := time.Since(start).Seconds()
	for _, pid := range slices.Sorted(maps.Keys(before)) {
		after, err := processCPU(pid)
		if err != nil {
			return err
		}
		c.beside = append(c.beside, (after-before[pid])/seconds)
	}
	return nil
}

// wakes are the waits of a call of one shard: the caller's timer, the node, and the caller again.
const wakes = 3

// wake returns how long processors take to begin, by what calls took beyond what they take of
// processors. Where processors were shared with others, it has what that cost.
func (p *parts) wake(c *common) tail.Times {
	call, search := tail.NewTimes(p.call, quantiles), tail.NewTimes(c.search, quantiles)
	work := middle(p.aloneCall) + middle(p.callerCall)
	var beyond tail.Times
	for i := range call {
		beyond = append(beyond, call[i]-search.At(float64(i)/float64(len(call)-1))-work)
	}
	slices.Sort(beyond)
	mean := beyond.Mean()
	out := make(tail.Times, len(beyond))
	for i, v := range beyond {
		// Waits that are drawn apart add up to what varies less than they do.
		out[i] = max(0, mean/wakes+(v-mean)/1.7320508)
	}
	return out
}

// Measure measures this machine, with processes that it starts.
func Measure(ctx context.Context, o Options) (_ *capacity.Measured, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m := &capacity.Measured{
		Version: capacity.MeasuredVersion, Machine: model(), Processors: runtime.NumCPU(), Dim: o.Dim, K: o.K, Target: o.Target,
	}
	var sites []*site
	defer func() {
		for _, s := range sites {
			err = errors.Join(err, s.close())
		}
	}()
	for _, rows := range o.Rows {
		o.progress("build a shard of %d rows", rows)
		s, err := o.open(ctx, Towers{Apps: rows, Users: users, Dim: o.Dim, Shards: 1, Seed: o.Seed})
		sites = append(sites, s)
		if err != nil {
			return nil, err
		}
		m.Builds = append(m.Builds, capacity.Built{Apps: rows, Users: users, CPU: rounded(s.cpu)})
		for _, shards := range []int{1, 4, 16} {
			asked, expected := shard.Share(o.K, shards)
			took, err := searches(ctx, s.snapshot.Tower(shard.Apps), s.vectors, asked, expected, o.Target)
			if err != nil {
				return nil, err
			}
			m.Searches = append(m.Searches, capacity.Searched{Rows: rows, Asked: asked, Expected: expected, Times: micros(tail.NewTimes(took, quantiles))})
		}
	}
	more, err := o.open(ctx, Towers{Apps: routerParts * leastRows, Users: users, Dim: o.Dim, Shards: routerParts, Seed: o.Seed})
	sites = append(sites, more)
	if err != nil {
		return nil, err
	}
	one := sites[0]
	c, list := &common{}, make([]*parts, len(o.Rates))
	for i := range list {
		list[i] = &parts{rate: o.Rates[i]}
	}
	for _, s := range []*site{one, more} {
		if err := s.serve(ctx, 1); err != nil {
			return nil, err
		}
	}
	if err := one.memories(c); err != nil {
		return nil, err
	}
	for round := range o.Rounds {
		o.progress("round %d of %d", round+1, o.Rounds)
		seed := o.Seed + uint64(round)
		if err := one.one(ctx, c, list, nil, 4, seed); err != nil {
			return nil, err
		}
		if err := router(ctx, list, nil, one, more, seed); err != nil {
			return nil, err
		}
		if err := idle(ctx, c, []*site{one, more}, o.Time/2); err != nil {
			return nil, err
		}
	}
	var others []float64
	for i, p := range list {
		w := p.work(c)
		m.Steps = append(m.Steps, capacity.Steps{
			Rate: o.Rates[i], NodeCall: rounded(1e6 * (w.Search.Mean() - tail.NewTimes(c.search, 1000).Mean())), NodeLookup: rounded(1e6 * w.Lookup.Mean()),
			RouterCall: rounded(1e6 * w.Call), RouterQuery: rounded(1e6 * w.Query), Client: rounded(1e6 * w.Client),
		})
		others = append(others, p.others...)
	}
	m.Beside, m.Others = rounded(middle(c.beside)), rounded(middle(others))
	m.Wake = micros(list[len(list)/2].wake(c))
	m.NodeBytes, m.RouterBytes = rounded(middle(c.nodeBytes)), rounded(middle(c.routerBytes))
	return m, nil
}

// rounded returns a number to four digits: more is none of what was measured.
func rounded(v float64) float64 {
	out, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)
	if err != nil {
		return v
	}
	return out
}

func micros(t tail.Times) []float64 {
	out := make([]float64, len(t))
	for i, v := range t {
		out[i] = rounded(1e6 * v)
	}
	return out
}
