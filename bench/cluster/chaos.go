package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// world is a site with those who ask and write.
type world struct {
	o       *Options
	site    *Site
	oracle  *Oracle
	sender  *sender
	tally   *tally
	random  *rand.Rand // of the faults
	begun   map[string]int
	left    map[string]string // why faults cannot be
	asking  sync.WaitGroup
	endAsks context.CancelFunc
}

// newWorld starts a site, and has it asked and written to. It must be closed, even after an
// error.
func newWorld(ctx context.Context, o *Options) (*world, error) {
	oracle := newOracle(o.Users, o.Apps, o.Questions)
	w := &world{o: o, oracle: oracle, tally: newTally(), random: rand.New(rand.NewPCG(o.Seed, 1)), begun: map[string]int{}}
	var err error
	if w.site, err = newSite(ctx, o, oracle); err != nil {
		return w, err
	}
	w.sender = &sender{o: o, site: w.site, oracle: oracle, registers: newRegisters(""), tally: w.tally}
	return w, nil
}

// ask has queries and writes go on until the world is closed, or rested.
func (w *world) ask(ctx context.Context) {
	asking, end := context.WithCancel(ctx)
	w.endAsks = end
	w.asking.Go(func() { w.sender.run(asking, 2) })
	for i := range writers {
		w.asking.Go(func() { w.sender.write(asking, i) })
	}
}

// close ends what goes on, then the site.
func (w *world) close() error {
	if w.endAsks != nil {
		w.endAsks()
	}
	w.asking.Wait()
	return w.site.close()
}

// healing is how long it may take until a fault is over that the run's end cuts short.
const healing = 3 * time.Minute

// do has a fault go on for some time, during which a release is switched or not, and waits until
// all is well. What was begun is always ended.
func (w *world) do(ctx context.Context, f *fault, lasts time.Duration, switching bool) (err error) {
	w.o.Progress(fmt.Sprintf("%s%s", f.name, map[bool]string{true: " and a release"}[switching]))
	w.tally.begin(f.name, f.fences)
	w.begun[f.name]++
	defer func() {
		if err != nil {
			err = fmt.Errorf("fault %s: %w", f.name, err)
		}
	}()
	if switching && (f.lasts == 0 || f.fences) { // it does all by itself, or leaves no store
		if err := w.switchRelease(ctx); err != nil {
			return err
		}
		switching = false
	}
	heal, err := f.inject(ctx, w)
	if err == nil && f.lasts > 0 {
		err = rest(ctx, lasts/2)
		if err == nil && switching {
			err = w.switchRelease(ctx)
		}
		if err == nil {
			err = rest(ctx, lasts/2)
		}
	}
	ended, cancel := context.WithTimeout(context.WithoutCancel(ctx), healing)
	defer cancel()
	healed := time.Now()
	if heal != nil {
		err = errors.Join(err, heal(ended))
	}
	if ctx.Err() != nil {
		return nil // the run has ended
	}
	if err == nil {
		err = w.site.settle(ended)
	}
	if err == nil && f.fences {
		err = w.fresh(ended, healed)
	}
	return err
}

// fresh waits until routers answer by proofs of the live log that were made after a time. Before
// they look again, the last proof may become older than the fence, and they were ready until then.
func (w *world) fresh(ctx context.Context, since time.Time) error {
	for _, r := range w.site.routers {
		for {
			asked := time.Now()
			a, err := r.asked.Load().retrieval.Retrieve(ctx, connect.NewRequest(question{K: 1}.request(w.o.Users[0])))
			if err == nil && a.Msg.Staleness.AsDuration() < asked.Sub(since) {
				break
			}
			if restErr := rest(ctx, lookEvery); restErr != nil {
				return fmt.Errorf("%s does not answer by a proof of after the fault: %w", r.name, errors.Join(restErr, err))
			}
		}
	}
	return nil
}

// switchRelease has the next snapshot serve.
func (w *world) switchRelease(ctx context.Context) error {
	next := (slices.Index(w.o.Snapshots, w.site.now) + 1) % len(w.o.Snapshots)
	w.begun["release"]++
	return w.site.switchTo(ctx, w.o.Snapshots[next], w.oracle.released)
}

// between is how long all is well between two faults, at least.
const between = 2 * time.Second

// calm is the time in which all is well.
func (w *world) calm(ctx context.Context, d time.Duration) error {
	w.tally.begin(steadyPhase, false)
	return rest(ctx, d)
}

// Chaos has faults go on that are drawn from the seed, each kind before any comes again, and
// reports what was counted. An error is of what could not be measured; what is wrong with
// answers is in the report.
func Chaos(ctx context.Context, o Options) (report *Report, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	w, err := newWorld(ctx, &o)
	defer func() { err = errors.Join(err, w.close()) }()
	if err != nil {
		return nil, err
	}
	kinds := w.kinds()
	w.ask(ctx)
	err = w.calm(ctx, between)
	for end := time.Now().Add(o.Time); err == nil && time.Now().Before(end); {
		w.random.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		for _, f := range kinds {
			if err != nil || !time.Now().Before(end) {
				break
			}
			lasts := time.Duration((0.5 + w.random.Float64()) * float64(f.lasts))
			if err = w.do(ctx, f, lasts, w.random.IntN(2) == 0); err == nil {
				err = w.calm(ctx, between+time.Duration(w.random.Float64()*float64(between)))
			}
		}
	}
	w.endAsks()
	w.asking.Wait()
	return w.report(), errors.Join(err, ctx.Err())
}

// kinds are the faults that there are to be.
func (w *world) kinds() []*fault {
	var list []*fault
	w.left = map[string]string{}
	for i := range faults {
		f := &faults[i]
		if !w.o.wants(f.name) {
			continue
		}
		if f.cannot != nil {
			if why := f.cannot(w.site); why != "" {
				w.left[f.name] = why
				w.o.Progress(f.name + " is left out: " + why)
				continue
			}
		}
		list = append(list, f)
	}
	return list
}
