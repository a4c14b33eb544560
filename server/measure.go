package server

import (
	"context"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/console"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/metrics"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/overlay"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// adminClose is how long those who operate a server have to take what they asked for when it
// ends: it is gone then.
const adminClose = time.Second

// startAdmin starts the listener for those who operate the server, if there is to be one. The
// caller calls end when all else has ended. The procedures of the console are answered by api; nil
// for a server that has none of them.
func (s *Service) startAdmin(c *Config, api http.Handler) (end func() error, err error) {
	if c.Admin == nil {
		return func() error { return nil }, nil
	}
	o := *c.Admin
	if o.TLS == nil {
		o.TLS = c.TLS
	}
	if o.Protect == nil && c.Options.Guard != nil {
		o.Protect = c.Options.Guard.Require(auth.Admin)
		if o.ProtectDocs == nil {
			o.ProtectDocs = c.Options.Guard.Require(auth.Any &^ auth.Internal)
		}
	}
	o.Failed, o.Refused = s.events.ConnectionFailed, s.adminRefused
	listening := o.Listening
	o.Listening = func(a net.Addr) {
		s.events.AdminListening(a)
		if listening != nil {
			listening(a)
		}
	}
	handlers := adminhttp.Handlers{Metrics: c.Metrics.Handler(), Alive: alive, Ready: s.health.readiness, Started: s.health.startup}
	if c.Console != nil && api != nil {
		page := console.New(console.Options{API: api, Guard: c.Options.Guard, Hosts: c.Console.Hosts, TLS: o.TLS != nil})
		handlers.Console = page
		if c.Admin.ProtectDocs == nil && c.Options.Guard != nil {
			o.ProtectDocs = page.Readable
		}
		heard := o.Listening
		o.Listening = func(a net.Addr) {
			heard(a)
			s.events.Console(consoleURL(a, o.TLS != nil))
		}
	}
	admin, err := adminhttp.Start(o, handlers)
	if err != nil {
		return nil, err
	}
	return func() error { return admin.Close(adminClose) }, nil
}

// consoleURL returns where a browser of this machine opens the console of a listener.
func consoleURL(a net.Addr, tls bool) string {
	u := url.URL{Scheme: "http", Host: a.String(), Path: console.Path}
	if tls {
		u.Scheme = "https"
	}
	if host, port, err := net.SplitHostPort(u.Host); err == nil && net.ParseIP(host).IsUnspecified() {
		u.Host = net.JoinHostPort("localhost", port)
	}
	return u.String()
}

// adminRefused tells of a request that the listener for those who operate the server refuses.
func (s *Service) adminRefused(r *http.Request, caller string, denied *auth.DeniedError) {
	err := connect.NewError(connect.CodePermissionDenied, denied) // of no procedure, and so without a reason
	if denied.Denial != auth.OtherHost {
		err = deniedError(denied)
	}
	s.events.AdminRefused(events.Request{
		Procedure: excerpt(r.URL.Path), ID: newID(), Code: err.Code().String(), Err: err, Caller: caller, Peer: r.RemoteAddr, Protocol: "http", HTTP: r.Proto,
	})
}

// measure returns what the service is now, for metrics. Requests are bounded by l, and
// connections by conns, where there are any.
func (s *Service) measure(l *limiter, conns *listener) metrics.State {
	f := s.status.Load()
	out := metrics.State{
		Phase: [...]metrics.Phase{phaseLoading: metrics.Loading, phaseReady: metrics.Serving, phaseDraining: metrics.Draining}[s.health.current()],
		Ready: s.health.ready(), Memory: metrics.Memory{Mapped: f.bytes}, Live: s.measureLive(),
		CPU: cpuOf(os.DirFS("/")),
	}
	if f.limit != math.MaxInt64 {
		out.Memory.Limit = f.limit
	}
	if s.holds != nil {
		status, _ := s.holds.Status()
		out.Memory = metrics.Memory{Mapped: int64(status.GetMapped()), Limit: int64(status.GetWeight())}
		out.Target = status.GetGeneration()
	}
	if s.certificates != nil {
		from, until := s.certificates.Validity()
		out.Certificate = &metrics.Certificate{From: from, Until: until}
	}
	if t := s.target.Load(); t != nil {
		out.Target = t.generation
	}
	if age, ok := s.staleness.age(); ok {
		state, _ := s.staleness.look()
		out.Releases = metrics.Log{Followed: true, Broken: livelog.Broken(state), Staleness: age}
	}
	if now := s.current.Load(); now != nil {
		out.Generation, out.Since = now.generation, now.since
		for i := range now.arms {
			out.Arms = append(out.Arms, now.arms[i].measure())
		}
	}
	if s.audits != nil {
		counts := s.audits.Counts()
		out.Audits = &counts
	}
	if s.scans != nil {
		counts := s.scans.Counts()
		out.Audits = &counts
	}
	out.Mapped, out.Cluster = s.measureMapped(), s.measureCluster()
	if l != nil {
		out.Load = l.measure()
	}
	if conns != nil {
		out.Connections = conns.measure()
	}
	return out
}

// publishedWait is how long it may take to look up when a snapshot was published: what answers
// is switched after it.
const publishedWait = 2 * time.Second

// publishedAt returns when a snapshot was published, the zero time if the store does not say:
// then metrics leave it out.
func publishedAt(ctx context.Context, store *snapshots.Store, d manifest.Digest) time.Time {
	ctx, cancel := context.WithTimeout(ctx, publishedWait)
	defer cancel()
	at, err := store.Published(ctx, d)
	if err != nil {
		return time.Time{}
	}
	return at
}

func (s *Service) measureLive() *metrics.Live {
	if s.live == nil || !s.live.IsRead() {
		return nil
	}
	view, _ := s.live.Look(nil)
	state, _ := s.live.State()
	room, used := s.live.Room()
	return &metrics.Live{
		Log:      metrics.Log{Followed: true, Broken: livelog.Broken(state), Staleness: view.Proof.Age()},
		Position: view.Position.Sequence, Fence: s.live.Fence(), Refuses: s.live.Refuses(),
		Takedowns: view.Down.Len(), Forgotten: view.Forgotten.Len(), FreshBytes: used, FreshLimit: room.Bytes,
	}
}

// measure does not read the files of the snapshot, which may be closed meanwhile.
func (a *arm) measure() metrics.Arm {
	m := a.snapshot.Manifest()
	out := metrics.Arm{
		Name: a.name, Weight: a.weight, Published: a.published, Lost: a.lost.count(),
		Apps: metrics.Tower{Rows: m.Apps.Rows}, Users: metrics.Tower{Rows: m.Users.Rows}, Recall: a.audited.Look(),
	}
	if m.Live != nil {
		out.Inputs = m.Live.Sequence
	}
	if a.layer != nil {
		status := a.layer.Now().Status
		overlaid(&out.Apps, &status.Apps)
		overlaid(&out.Users, &status.Users)
	}
	return out
}

func overlaid(out *metrics.Tower, s *overlay.TowerStatus) {
	out.Dead, out.Changed, out.Fresh, out.FreshBytes, out.Windows, out.Misfits = s.Dead, s.Changed, s.Fresh, s.FreshBytes, s.Windows, s.MisfitCount
}

// measureMapped returns what is mapped: the arms first, then what is kept, the newest first.
func (s *Service) measureMapped() (list []metrics.Mapped) {
	now := s.current.Load()
	var kept []metrics.Mapped
	s.mapped.mu.Lock()
	defer s.mapped.mu.Unlock()
	for _, one := range slices.Backward(s.mapped.list) {
		m := one.snapshot.Manifest()
		mapped := metrics.Mapped{Snapshot: one.snapshot.Digest(), Model: m.Model, ModelVersion: m.ModelVersion}
		answers := false
		if now != nil {
			for _, a := range now.arms {
				if a.serving == one {
					mapped.Arm, answers = a.name, true
					list = append(list, mapped)
				}
			}
		}
		if !answers {
			kept = append(kept, mapped)
		}
	}
	return append(list, kept...)
}

func (l *limiter) measure() *metrics.Load {
	out := &metrics.Load{
		Bytes: l.bytes.inUse(), MaxBytes: l.bytes.most,
		Turns: len(l.turns), MaxTurns: cap(l.turns), Queue: len(l.queue), MaxQueue: cap(l.queue),
	}
	l.work.measured(out)
	return out
}

// measured says what is in flight.
func (a *admission) measured(out *metrics.Load) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out.Requests, out.MaxRequests = a.requests, a.maxRequests
	out.MaxShortWork = a.maxWork / shortShare
	out.ShortWork, out.LongWork, out.MaxLongWork = a.short, a.long, a.maxWork-out.MaxShortWork
	out.Correction = a.ratio
}

func (l *listener) measure() *metrics.Connections {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &metrics.Connections{Open: len(l.open), Max: l.most, Refused: l.refusedAll, Flooded: l.floodedAll}
}
