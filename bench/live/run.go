package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// Run measures. The error is of what kept it from measuring; what was slow or failed is told
// by the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	to, err := endpoint(o.Location)
	if err != nil {
		return nil, err
	}
	m := &measuring{o: &o, report: &Report{}, vector: make([]float32, o.Dim)}
	m.vector[0] = 1
	plain := make([]string, o.Servers)
	for i := range plain {
		plain[i] = o.Location
	}
	phases := []struct {
		name    string
		servers []string
		measure func(context.Context, []*server) error
	}{
		{"takedowns and upserts until they count", plain[:2], m.visible},
		{"takedowns while several servers append", plain, m.contended},
		{"as many events as one server takes", plain[:1], m.sustained},
	}
	if to != nil {
		for i := range plain {
			d, err := delay(o.Location, to, o.Delay)
			if err != nil {
				return nil, err
			}
			defer func() { _ = d.close() }() //nolint:gocritic // they are there for the whole run
			if i == 0 {
				phases[1].servers = nil
			}
			phases[1].servers = append(phases[1].servers, d.location)
		}
		m.delay = o.Delay
	}
	for _, phase := range phases {
		o.Progress(phase.name)
		servers, err := startAll(ctx, &o, phase.servers)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", phase.name, err)
		}
		err = phase.measure(ctx, servers)
		if err = errors.Join(err, stopAll(servers)); err != nil {
			return nil, fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	m.report.judge(to == nil)
	return m.report, nil
}

type measuring struct {
	o      *Options
	report *Report
	vector []float32 // of queries
	delay  time.Duration
	names  int // that were given
}

func takedown(app string) *tandemv1.LiveEvent {
	return &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Takedown{Takedown: &tandemv1.Takedown{App: app, Reason: "a measurement"}}}
}

// upsert makes an app, whose vector is drawn.
func (m *measuring) upsert(random *rand.Rand, app string) *tandemv1.LiveEvent {
	vector := make([]float32, m.o.Dim)
	for i := range vector {
		vector[i] = random.Float32()
	}
	return &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Upsert{Upsert: &tandemv1.Upsert{
		Tower: tandemv1.Tower_TOWER_APPS, Id: app, Model: m.o.Model, ModelVersion: m.o.ModelVersion, Vector: vector,
	}}}
}

// maxPause is how long there is nothing to do between two changes, at most, so that they come
// at any moment between two polls.
const maxPause = 400 * time.Millisecond

// freshShare is how many takedowns come with one upsert.
const freshShare = 3

// visible follows takedowns, and upserts, to the server that took them and to the other.
func (m *measuring) visible(ctx context.Context, servers []*server) error {
	random := rand.New(rand.NewPCG(1, 1))
	var own, other, fresh []time.Duration
	follow := func(s *server, app string, wanted bool, acknowledged time.Time, back *int) (time.Duration, error) {
		var first time.Time
		for {
			is, err := s.returns(ctx, m.vector, app)
			now := time.Now()
			switch {
			case err != nil:
				return 0, err
			case is == wanted && first.IsZero():
				first = now
			case is != wanted && !first.IsZero():
				*back++
			case now.Sub(acknowledged) > askTimeout:
				return 0, fmt.Errorf("%s after %s was acknowledged it does not count", askTimeout, app)
			}
			if !first.IsZero() && now.Sub(first) > 20*time.Millisecond {
				return first.Sub(acknowledged), nil
			}
			time.Sleep(time.Millisecond)
		}
	}
	for i := range m.o.Takedowns {
		hold(ctx, time.Duration(random.Float64()*float64(maxPause)))
		writer, reader := servers[i%2], servers[(i+1)%2]
		if err := writer.write(ctx, takedown(m.o.Apps[i])); err != nil {
			return err
		}
		acknowledged := time.Now()
		var took [2]time.Duration
		var errs [2]error
		var back [2]int
		var both sync.WaitGroup
		for j, s := range []*server{writer, reader} {
			both.Go(func() { took[j], errs[j] = follow(s, m.o.Apps[i], false, acknowledged, &back[j]) })
		}
		both.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			return err
		}
		own, other = append(own, took[0]), append(other, took[1])
		m.report.Back += back[0] + back[1]
		if i%freshShare != 0 {
			continue
		}
		hold(ctx, time.Duration(random.Float64()*float64(maxPause)))
		app := m.name()
		if err := writer.write(ctx, m.upsert(random, app)); err != nil {
			return err
		}
		ignored := 0
		d, err := follow(reader, app, true, time.Now(), &ignored)
		if err != nil {
			return err
		}
		fresh = append(fresh, d)
	}
	a, b, c := timesOf(own), timesOf(other), timesOf(fresh)
	m.report.Own, m.report.Other, m.report.Fresh = &a, &b, &c
	return ctx.Err()
}

// name returns a name that no app has.
func (m *measuring) name() string {
	m.names++
	return fmt.Sprintf("bench-%d", m.names)
}

// hold waits, unless ctx ends.
func hold(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

const (
	// importedRows is how many apps imports make, again and again.
	importedRows = 5000
	// importedAtOnce is how many events a message of an import has.
	importedAtOnce = 100
)

// contended takes apps down through all servers at once, each by one caller who waits for
// each acknowledgement, and then again while others import.
func (m *measuring) contended(ctx context.Context, servers []*server) error {
	var err error
	if m.report.Contended, err = m.contend(ctx, servers, false); err != nil {
		return err
	}
	m.report.Loaded, err = m.contend(ctx, servers, true)
	return err
}

func (m *measuring) contend(ctx context.Context, servers []*server, imports bool) (*Contended, error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.Time)
	defer cancel()
	c := &Contended{Servers: len(servers), Delay: float64(m.delay) / float64(time.Millisecond)}
	took := make([][]time.Duration, len(servers))
	imported := 0
	var mu sync.Mutex // of c, imported and names
	failed := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if c.Failed++; c.FirstError == "" {
			c.FirstError = err.Error()
		}
	}
	var callers sync.WaitGroup
	start := time.Now()
	for i, s := range servers {
		callers.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				app := m.name()
				mu.Unlock()
				began := time.Now()
				err := s.write(context.WithoutCancel(ctx), takedown(app))
				if err != nil {
					failed(err)
				}
				took[i] = append(took[i], time.Since(began)) // however it ended
			}
		})
		if !imports {
			continue
		}
		random := rand.New(rand.NewPCG(2, uint64(i)))
		callers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				list := make([]*tandemv1.LiveEvent, importedAtOnce)
				for j := range list {
					list[j] = m.upsert(random, fmt.Sprintf("bench-import-%d", (n*importedAtOnce+j)%importedRows))
				}
				if err := s.write(context.WithoutCancel(ctx), list...); err != nil {
					failed(err)
					continue
				}
				mu.Lock()
				imported += len(list)
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	c.Imported = float64(imported) / time.Since(start).Seconds()
	var all []time.Duration
	for _, list := range took {
		all = append(all, list...)
		c.PerServer = append(c.PerServer, timesOf(list))
	}
	c.Acknowledged = timesOf(all)
	return c, parent(ctx)
}

// parent returns the error of a context, but for that of its own deadline.
func parent(ctx context.Context) error {
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// sustained has one server take as many events as it can, of one kind after the other.
func (m *measuring) sustained(ctx context.Context, servers []*server) error {
	random := rand.New(rand.NewPCG(3, 3))
	upserts := make([]*tandemv1.LiveEvent, 4*importedRows)
	for i := range upserts {
		upserts[i] = m.upsert(random, fmt.Sprintf("bench-import-%d", i))
	}
	for _, kind := range []struct {
		what             string
		clients, message int
		event            func(n int) *tandemv1.LiveEvent
	}{
		{"takedowns", 8, 1, func(n int) *tandemv1.LiveEvent { return takedown(fmt.Sprintf("bench-single-%d", n)) }},
		{"takedowns", 8, importedAtOnce, func(n int) *tandemv1.LiveEvent { return takedown(fmt.Sprintf("bench-down-%d", n)) }},
		{"upserts", 8, importedAtOnce, func(n int) *tandemv1.LiveEvent { return upserts[n%len(upserts)] }},
	} {
		s, err := m.sustain(ctx, servers[0], kind.what, kind.clients, kind.message, kind.event)
		if err != nil {
			return err
		}
		m.report.Sustained = append(m.report.Sustained, *s)
	}
	return nil
}

func (m *measuring) sustain(ctx context.Context, s *server, what string, clients, message int, event func(n int) *tandemv1.LiveEvent) (*Sustained, error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.Time)
	defer cancel()
	out := &Sustained{What: what, Clients: clients, Message: message}
	var took []time.Duration
	var mu sync.Mutex // of all that follows, and of those before
	next, written := 0, 0
	var callers sync.WaitGroup
	start := time.Now()
	for range clients {
		callers.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				from := next
				next += message
				mu.Unlock()
				list := make([]*tandemv1.LiveEvent, message)
				for i := range list {
					list[i] = event(from + i)
				}
				began := time.Now()
				err := s.write(context.WithoutCancel(ctx), list...)
				mu.Lock()
				took = append(took, time.Since(began))
				if err == nil {
					written += message
				} else if out.Failed++; out.FirstError == "" {
					out.FirstError = err.Error()
				}
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	out.Events = float64(written) / time.Since(start).Seconds()
	out.Acknowledged = timesOf(took)
	return out, parent(ctx)
}
