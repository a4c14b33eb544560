package release_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// machine runs processes that use one store. Their requests wait for their turn, and what
// happens next is drawn: whose request has its effect, and whether it is answered, who is
// killed, who begins, how much time goes by.
type machine struct {
	archive *archive
	faults  *objectstest.Faults
	random  *rand.Rand
	clients func(name string) *client

	failed error // the first that check found

	mu      sync.Mutex
	waiting []*turn
	running map[string]context.CancelFunc
	dead    map[string]bool
	begun   int
	written map[string]time.Time // when an object was last written
	copied  map[int]time.Time    // when a version was published by a copy that was acknowledged
	log     []string
}

// turn is a request that waits.
type turn struct {
	objectstest.Request
	since time.Time
	fate  chan objectstest.Fault
}

func newMachine(t *testing.T, a *archive, before map[string][]byte, seed uint64) *machine {
	m := &machine{
		archive: a, faults: old(before), random: rand.New(rand.NewPCG(seed, 0)),
		running: map[string]context.CancelFunc{}, dead: map[string]bool{},
		written: map[string]time.Time{}, copied: map[int]time.Time{},
	}
	m.clients = func(name string) *client { return newClient(t, m.faults, a, name) }
	m.faults.Inject(objectstest.Rule{Choose: m.wait})
	return m
}

func (m *machine) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, time.Now().Format("15:04:05.0 ")+fmt.Sprintf(format, args...))
}

// wait is what each request does first.
func (m *machine) wait(q objectstest.Request) objectstest.Fault {
	t := &turn{Request: q, since: time.Now(), fate: make(chan objectstest.Fault, 1)}
	m.mu.Lock()
	if m.dead[q.Client] {
		m.mu.Unlock()
		return objectstest.Fail
	}
	m.waiting = append(m.waiting, t)
	m.mu.Unlock()
	return <-t.fate
}

// turns returns the requests that wait, in an order that does not depend on goroutines.
func (m *machine) turns() []*turn {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortStableFunc(m.waiting, func(a, b *turn) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Op, b.Op), cmp.Compare(a.Key, b.Key))
	})
	return slices.Clone(m.waiting)
}

// end ends the wait of a request.
func (m *machine) end(t *turn, fate objectstest.Fault) {
	if time.Since(t.since) > inFlight {
		fate = objectstest.Fail
	}
	m.note("%s %s %.40s %s", t.Client, t.Op, t.Key, fate)
	m.mu.Lock()
	m.waiting = slices.DeleteFunc(m.waiting, func(other *turn) bool { return other == t })
	if t.Op == objectstest.Write && fate != objectstest.Fail {
		m.written[t.Key] = time.Now()
	}
	m.mu.Unlock()
	t.fate <- fate
	synctest.Wait()
	if q := t.Op; m.failed == nil && (q == objectstest.Create || q == objectstest.Write || q == objectstest.Delete) {
		m.failed = m.check()
	}
}

// pass lets time go by. A request that is on its way for longer than inFlight has had its
// effect before, or never will.
func (m *machine) pass(d time.Duration) {
	for round := 0; ; round++ {
		on := false
		for _, t := range m.turns() {
			if age := time.Since(t.since); round < 4 && age <= inFlight && age+d > inFlight {
				switch m.random.IntN(4) {
				case 0:
				case 1:
					on = true
					m.end(t, objectstest.Lose)
				default:
					on = true
					m.end(t, "")
				}
			}
		}
		if !on {
			break
		}
	}
	m.note("%s pass", d)
	time.Sleep(d)
}

// operation is what a process does.
type operation struct {
	name string
	run  func(context.Context, *client) error
}

// operations lists what processes do, each as often as is its share.
func (m *machine) operations() []operation {
	collect := operation{"collect", func(ctx context.Context, c *client) error { return c.collect(ctx) }}
	list := []operation{
		collect, collect, collect,
		{"promote", func(ctx context.Context, c *client) error { return c.promote(ctx) }},
		{"split", func(ctx context.Context, c *client) error { return c.split(ctx) }},
		{"rollback", func(ctx context.Context, c *client) error { return c.rollback(ctx, 0) }},
		{"remove 3", func(ctx context.Context, c *client) error { return c.Store().Remove(ctx, c.archive.digests[3], c.Live) }},
	}
	for _, n := range []int{0, 1, 3} {
		list = append(list,
			operation{fmt.Sprint("start ", n), func(ctx context.Context, c *client) error { return c.start(ctx, n) }},
			operation{fmt.Sprint("copy ", n), func(ctx context.Context, c *client) error {
				err := c.copy(ctx, n)
				m.mu.Lock()
				defer m.mu.Unlock()
				if err == nil && ctx.Err() == nil && n != 3 { // that is removed
					m.copied[n] = m.written["snapshots/"+string(c.archive.digests[n])+".json"]
				}
				return err
			}})
	}
	for _, back := range []uint64{1, 8, 9, 10, 12} {
		list = append(list, operation{fmt.Sprint("rollback by ", back), func(ctx context.Context, c *client) error {
			now, err := c.Current(ctx)
			if err != nil || now.Generation <= back {
				return err
			}
			return c.rollback(ctx, now.Generation-back)
		}})
	}
	return list
}

// begin begins a process.
func (m *machine) begin() {
	ops := m.operations()
	op := ops[m.random.IntN(len(ops))]
	m.begun++
	name := fmt.Sprintf("p%02d", m.begun)
	m.note("%s begins: %s", name, op.name)
	ctx, cancel := context.WithCancel(context.Background())
	c := m.clients(name)
	m.mu.Lock()
	m.running[name] = cancel
	m.mu.Unlock()
	go func() {
		err := op.run(ctx, c)
		m.note("%s ends: %v", name, err)
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.running, name)
		cancel()
	}()
}

// kill kills a process. The requests that it waits for may have their effect before.
func (m *machine) kill(name string) {
	m.note("%s is killed", name)
	for _, t := range m.turns() {
		if t.Client == name && m.random.IntN(2) == 0 {
			m.end(t, "")
		}
	}
	m.mu.Lock()
	m.dead[name] = true
	if cancel := m.running[name]; cancel != nil {
		cancel()
	}
	m.mu.Unlock()
	for _, t := range m.turns() {
		if t.Client == name {
			m.end(t, objectstest.Fail)
		}
	}
}

// step does what is drawn next.
func (m *machine) step() {
	turns := m.turns()
	m.mu.Lock()
	var names []string
	for name := range m.running {
		names = append(names, name)
	}
	m.mu.Unlock()
	slices.Sort(names)
	switch choice := m.random.IntN(100); {
	case len(names) == 0 || len(names) < 4 && choice < 20:
		m.begin()
	case choice < 22:
		m.kill(names[m.random.IntN(len(names))])
	case len(turns) == 0 || choice < 30:
		m.pass([]time.Duration{200 * time.Millisecond, 2 * time.Second, 15 * time.Second, 28 * time.Second, 62 * time.Second, 12 * time.Minute, 3 * time.Hour}[m.random.IntN(7)])
	case choice < 31:
		m.end(turns[m.random.IntN(len(turns))], objectstest.Fail)
	case choice < 32:
		m.end(turns[m.random.IntN(len(turns))], objectstest.Lose)
	default: // one process goes on for a while
		client := turns[m.random.IntN(len(turns))].Client
		for range 1 + m.random.IntN(20) {
			i := slices.IndexFunc(m.turns(), func(t *turn) bool { return t.Client == client })
			if i < 0 {
				break
			}
			m.end(m.turns()[i], "")
		}
	}
}

// check returns an error unless what is released is whole, and so is what was copied and
// is not old.
func (m *machine) check() error {
	if err := m.archive.releasedWhole(m.faults); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, at := range m.copied {
		if time.Since(at) >= keepFor {
			continue
		}
		if err := m.archive.whole(m.faults, m.archive.digests[n]); err != nil {
			return fmt.Errorf("copied %s ago: %w", time.Since(at), err)
		}
	}
	return nil
}

// stop lets every process end, in peace or killed.
func (m *machine) stop(peace bool) error {
	for range 10_000 {
		turns := m.turns()
		m.mu.Lock()
		running := len(m.running)
		m.mu.Unlock()
		switch {
		case running == 0 && len(turns) == 0:
			return nil
		case len(turns) == 0:
			time.Sleep(time.Second)
		case peace:
			m.end(turns[0], "")
		default:
			m.kill(turns[0].Client)
		}
	}
	return fmt.Errorf("processes do not end: %v", m.running)
}

// settled returns an error unless a collection leaves what is live, and nothing else.
func (m *machine) settled() error {
	time.Sleep(3 * time.Hour)
	m.faults.Heal()
	c := m.clients("last")
	ctx := context.Background()
	if err := c.collect(ctx); err != nil {
		return err
	}
	live, err := c.Live(ctx)
	if err != nil {
		return err
	}
	want := map[string]bool{}
	for _, d := range live {
		want["snapshots/"+string(d)+".json"] = true
		manifest := m.archive.manifests[slices.Index(m.archive.digests, d)]
		want["shards/"+string(manifest.Apps.Shards[0].Digest)+".shard"] = true
		want["shards/"+string(manifest.Users.Shards[0].Digest)+".shard"] = true
	}
	n := 0
	for _, prefix := range []string{"snapshots/", "shards/", "intents/", "doomed/"} {
		for _, key := range m.faults.Keys(prefix) {
			if !want[key] {
				return fmt.Errorf("a collection left %s", key)
			}
			n++
		}
	}
	if n != len(want) {
		return fmt.Errorf("a collection left %d of %d objects", n, len(want))
	}
	return nil
}

var histories = flag.Int("histories", someHistories, "how many histories TestCollectMachine goes through")

// Processes publish, release, roll back, remove and collect on one store; they are killed
// between any two requests, stand still, and get no answers. At any time what the last
// ten releases need is whole, and so is what was acknowledged and is not old. In the end
// nothing is left behind.
func TestCollectMachine(t *testing.T) {
	a := newArchive(t, 4)
	before := generations(t, a)
	for seed := range *histories {
		var m *machine
		synctest.Test(t, func(t *testing.T) {
			m = newMachine(t, a, before, uint64(seed))
			for steps := 50 + m.random.IntN(350); steps > 0 && m.failed == nil; steps-- {
				m.step()
			}
			if err := m.stop(m.failed == nil); m.failed == nil {
				m.failed = err
			}
			if m.failed == nil {
				m.failed = m.settled()
			}
		})
		if m.failed != nil {
			t.Fatalf("history %d, which may differ when it is tried again:\n%s\n%v", seed, strings.Join(m.log[max(0, len(m.log)-500):], "\n"), m.failed)
		}
	}
}
