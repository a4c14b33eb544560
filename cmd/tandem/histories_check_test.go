package main

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
)

// registerOp is what one caller did to, or saw of, one app: a register that says whether the
// app is down. Times are since the history began, by the monotonic clock of the callers.
type registerOp struct {
	client   int
	server   int // that was asked last; -1 for none
	app      int
	write    bool
	down     bool // what was written or seen
	call     time.Duration
	ret      time.Duration
	strict   bool           // a read that demands all that any caller knew when it was asked
	position shard.Position // the zero position if it is not known
	how      string
}

func (o *registerOp) String() string {
	what := map[bool]string{true: "wrote", false: "saw"}[o.write]
	state := map[bool]string{true: "down", false: "up"}[o.down]
	text := fmt.Sprintf("%s..%s client %d %s app %d %s by %s of server %d at %s",
		o.call.Round(time.Microsecond), o.ret.Round(time.Microsecond), o.client, what, o.app, state, o.how, o.server, o.position)
	if o.strict {
		text += ", with min_live"
	}
	return text
}

// registers is a history: what was done and seen, from where on.
type registers struct {
	fence time.Duration
	first []bool // which apps were down when it began

	mu       sync.Mutex
	ops      []registerOp
	restores []restore
}

// restore is when a store was made what it was when it was copied. Who does that deletes the
// last entry first, so meanwhile the log ends, for a moment each, with every entry between:
// that one which a server has read last may be proved to be the last then.
type restore struct {
	from, to time.Duration
	head     shard.Position // at least that of the store before
}

func (h *registers) restored(r restore) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.restores = append(h.restores, r)
}

// amid reports whether an answer may be by a proof of a log that ended before its head, since
// a store was being restored. Such an answer is right for as long as the proof is.
func (h *registers) amid(o *registerOp) bool {
	return !o.write && !o.strict && slices.ContainsFunc(h.restores, func(r restore) bool {
		return o.ret >= r.from && o.call <= r.to+h.fence && o.position.Log == r.head.Log && before(o.position, r.head)
	})
}

func (h *registers) add(ops ...registerOp) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, ops...)
}

const (
	// atATime is how many reads that the fence bounds are judged together of those that are
	// so at one moment. Each is judged with all else; more of them at a time say next to
	// nothing more, and take a time that grows like two to their number.
	atATime = 6
	// checkTime is how long one judgement may take.
	checkTime = time.Minute
	// mostShown is how many of the reads that are wrong are shown of each app.
	mostShown = 3
)

// check returns what is wrong with a history:
//
//   - Each app is a register that is linearizable for writes and for reads with min_live of
//     all that their callers can know. Other reads see a value that was current at a time
//     from the fence before they were asked to when they were answered. This looks at
//     nothing but values and times.
//   - Answers at one position say the same, whoever gave them.
//   - No answer is of a position before that of a write that was acknowledged longer than the
//     fence before it was asked for; but for what a store has not any more that is just being
//     restored.
//   - No server answers from an earlier position than it has before.
func (h *registers) check() []string {
	var wrong []string
	for app, down := range h.first {
		wrong = append(wrong, h.checkRegister(app, down)...)
	}
	return append(wrong, h.checkPositions()...)
}

// checkRegister judges one app.
func (h *registers) checkRegister(app int, down bool) []string {
	var firm, loose []registerOp // what is linearizable, and the reads that the fence bounds
	for _, o := range h.ops {
		switch {
		case o.app != app:
		case o.write || o.strict:
			firm = append(firm, o)
		case !h.amid(&o):
			o.call -= h.fence
			loose = append(loose, o)
		}
	}
	if r := linearizable(down, firm); r != porcupine.Ok {
		return []string{fmt.Sprintf("app %d is %s as a register, by writes and reads with min_live alone:%s", app, verdict(r), h.culprits(down, firm, nil))}
	}
	for _, group := range groups(loose) {
		if r := linearizable(down, append(slices.Clone(firm), group...)); r != porcupine.Ok {
			return []string{fmt.Sprintf("app %d is %s as a register whose other reads may be %s old:%s", app, verdict(r), h.fence, h.culprits(down, firm, loose))}
		}
	}
	return nil
}

func verdict(r porcupine.CheckResult) string {
	if r == porcupine.Illegal {
		return "not linearizable"
	}
	return fmt.Sprintf("not judged within %s", checkTime)
}

// culprits lists reads that cannot be, whatever becomes of the other reads, or, where it takes
// several of them, the whole history.
func (h *registers) culprits(down bool, firm, loose []registerOp) string {
	writes := slices.DeleteFunc(slices.Clone(firm), func(o registerOp) bool { return !o.write })
	beside := firm // of one of loose
	if loose == nil {
		beside, loose = writes, slices.DeleteFunc(slices.Clone(firm), func(o registerOp) bool { return o.write })
	}
	var b strings.Builder
	shown, more := 0, 0
	show := func(o *registerOp) { fmt.Fprintf(&b, "\n    %s", o) }
	for i := range loose {
		o := &loose[i]
		if linearizable(down, append(slices.Clone(beside), *o)) == porcupine.Ok {
			continue
		}
		if shown++; shown > mostShown {
			more++
			continue
		}
		show(o)
		for j := range writes { // those that it is about
			if w := &writes[j]; w.ret > o.call-2*h.fence && w.call < o.ret+h.fence {
				b.WriteString("\n      beside")
				show(w)
			}
		}
	}
	if more > 0 {
		fmt.Fprintf(&b, "\n    and %d more", more)
	}
	if shown == 0 {
		b.WriteString(" no read alone, but these together:")
		for _, list := range [][]registerOp{writes, loose} {
			for i := range list {
				show(&list[i])
			}
		}
	}
	return b.String()
}

// groups divides reads so that in each group few are at one moment, and none is left out.
func groups(reads []registerOp) [][]registerOp {
	slices.SortFunc(reads, func(a, b registerOp) int { return cmp.Compare(a.call, b.call) })
	type group struct {
		ops  []registerOp
		ends []time.Duration // of those that are at the moment
	}
	var all []*group
	for _, o := range reads {
		var into *group
		for _, g := range all {
			g.ends = slices.DeleteFunc(g.ends, func(end time.Duration) bool { return end < o.call })
			if into == nil && len(g.ends) < atATime {
				into = g
			}
		}
		if into == nil {
			into = &group{}
			all = append(all, into)
		}
		into.ops, into.ends = append(into.ops, o), append(into.ends, o.ret)
	}
	var out [][]registerOp
	for _, g := range all {
		out = append(out, g.ops)
	}
	return out
}

// linearizable asks porcupine.
func linearizable(down bool, ops []registerOp) porcupine.CheckResult {
	type input struct{ write, down bool }
	model := porcupine.Model{
		Init: func() any { return down },
		Step: func(state, in, out any) (bool, any) {
			if i := in.(input); i.write {
				return true, i.down
			}
			return out == state, state
		},
	}
	history := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		history[i] = porcupine.Operation{ClientId: i, Input: input{o.write, o.down}, Output: o.down, Call: int64(o.call), Return: int64(o.ret)}
	}
	return porcupine.CheckOperationsTimeout(model, history, checkTime)
}

// checkPositions judges by what answers say of themselves.
func (h *registers) checkPositions() []string {
	var wrong []string
	note := func(format string, args ...any) {
		if len(wrong) < 2*mostShown {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	ops := slices.Clone(h.ops)
	type moment struct {
		at  shard.Position
		app int
	}
	seen := map[moment]*registerOp{}
	var writes, reads []*registerOp
	for i := range ops {
		o := &ops[i]
		if o.write {
			writes = append(writes, o)
			continue
		}
		if o.position == (shard.Position{}) {
			continue
		}
		reads = append(reads, o)
		m := moment{o.position, o.app}
		if other := seen[m]; other == nil {
			seen[m] = o
		} else if other.down != o.down {
			note("answers at one position differ:\n    %s\n    %s", other, o)
		}
	}
	slices.SortFunc(writes, func(a, b *registerOp) int { return cmp.Compare(a.ret, b.ret) })
	slices.SortFunc(reads, func(a, b *registerOp) int { return cmp.Compare(a.call, b.call) })
	var highest *registerOp
	next := 0
	for _, o := range reads {
		for ; next < len(writes) && writes[next].ret < o.call-h.fence; next++ {
			if highest == nil || before(highest.position, writes[next].position) {
				highest = writes[next]
			}
		}
		if highest != nil && before(o.position, highest.position) && !h.amid(o) {
			note("an answer is older than the fence:\n    %s\n    after\n    %s", o, highest)
		}
	}
	byServer := map[int][]*registerOp{}
	for _, o := range reads {
		byServer[o.server] = append(byServer[o.server], o)
	}
	for _, server := range slices.Sorted(maps.Keys(byServer)) {
		list := byServer[server] // by when they were asked
		done := slices.SortedFunc(slices.Values(list), func(a, b *registerOp) int { return cmp.Compare(a.ret, b.ret) })
		var last *registerOp
		next := 0
		for _, o := range list {
			for ; next < len(done) && done[next].ret < o.call; next++ {
				if last == nil || before(last.position, done[next].position) {
					last = done[next]
				}
			}
			if last != nil && before(o.position, last.position) {
				note("a server goes back:\n    %s\n    after\n    %s", o, last)
			}
		}
	}
	return wrong
}

// sortedDown returns the keys of a map, the last first.
func sortedDown[V any](m map[string]V) []string {
	keys := slices.Sorted(maps.Keys(m))
	slices.Reverse(keys)
	return keys
}

const testFence = time.Second

// op is an operation of a test, of milliseconds.
func op(call, ret int, write, down, strict bool) registerOp {
	return registerOp{write: write, down: down, strict: strict, call: time.Duration(call) * time.Millisecond, ret: time.Duration(ret) * time.Millisecond}
}

func TestRegisters(t *testing.T) {
	const down, up = true, false
	write := func(call, ret int, d bool) registerOp { return op(call, ret, true, d, false) }
	read := func(call, ret int, d bool) registerOp { return op(call, ret, false, d, false) }
	strict := func(call, ret int, d bool) registerOp { return op(call, ret, false, d, true) }
	for _, c := range []struct {
		name string
		ops  []registerOp
		ok   bool
	}{
		{"nothing", nil, true},
		{"as it began", []registerOp{strict(0, 1, up)}, true},
		{"not as it began", []registerOp{strict(0, 1, down)}, false},
		{"down once it is acknowledged", []registerOp{write(0, 10, down), strict(11, 12, down)}, true},
		{"not down although it is acknowledged", []registerOp{write(0, 10, down), strict(11, 12, up)}, false},
		{"either while it is written", []registerOp{write(0, 100, down), strict(5, 6, up), strict(7, 8, down)}, true},
		{"not back while it is written", []registerOp{write(0, 100, down), strict(5, 6, down), strict(7, 8, up)}, false},
		{"old within the fence", []registerOp{write(0, 10, down), read(1005, 1006, up)}, true},
		{"old at the fence", []registerOp{write(0, 10, down), read(1010, 1011, up)}, true},
		{"older than the fence", []registerOp{write(0, 10, down), read(1011, 1012, up)}, false},
		{"older than the fence, answered late", []registerOp{write(0, 10, down), read(1011, 5000, up)}, false},
		{"old, with min_live", []registerOp{write(0, 10, down), strict(1000, 1001, up)}, false},
		{"never so", []registerOp{write(0, 10, down), read(500, 600, down), read(500, 600, up), read(3000, 3001, up)}, false},
		{"from what is to come", []registerOp{read(0, 1, down), write(2, 3, down)}, false},
		{"a write that counts twice", []registerOp{write(0, 10, down), write(20, 30, up), read(1500, 1501, down)}, false},
		{"a write that is lost", []registerOp{write(0, 10, down), write(20, 30, up), write(40, 50, down), read(2000, 2001, up)}, false},
		{"one that is never acknowledged may count", []registerOp{write(0, 1e6, down), strict(2000, 2001, up), strict(4000, 4001, down)}, true},
		{"and then it has counted", []registerOp{write(0, 1e6, down), strict(2000, 2001, down), read(4000, 4001, up)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &registers{fence: testFence, first: []bool{up}, ops: c.ops}
			wrong := h.checkRegister(0, up)
			assert.Equal(t, c.ok, len(wrong) == 0, "%s", wrong)
		})
	}
}

// What answers say of themselves is held against each other.
func TestRegistersByPosition(t *testing.T) {
	at := func(o registerOp, server int, sequence uint64) registerOp {
		o.server, o.position = server, shard.Position{Sequence: sequence}
		return o
	}
	for _, c := range []struct {
		want string
		ops  []registerOp
	}{
		{"answers at one position differ", []registerOp{
			at(op(0, 900, true, true, false), 0, 2), at(op(1, 2, false, true, false), 0, 2), at(op(1, 2, false, false, false), 1, 2),
		}},
		{"an answer is older than the fence", []registerOp{at(op(0, 10, true, false, false), 0, 2), at(op(1500, 1501, false, false, false), 1, 1)}},
		{"a server goes back", []registerOp{at(op(0, 10, false, false, false), 0, 2), at(op(20, 21, false, false, false), 0, 1)}},
		{"", []registerOp{at(op(0, 10, false, false, false), 0, 2), at(op(5, 21, false, false, false), 0, 1), at(op(30, 31, false, false, false), 1, 1)}},
	} {
		h := &registers{fence: testFence, first: []bool{false}, ops: c.ops}
		wrong := h.check()
		if c.want == "" {
			assert.Empty(t, wrong)
			continue
		}
		require.Len(t, wrong, 1)
		assert.Contains(t, wrong[0], c.want)
	}
}

// simulated draws the history of a system that is right, or has a bug: several replicas apply
// a log late, and answer as long as they are not later than the fence.
func simulated(random *rand.Rand, bug string) *registers {
	const apps, replicas, length = 3, 3, 20_000
	h := &registers{fence: testFence, first: make([]bool, apps)}
	type entry struct {
		app  int
		down bool
		at   int // when it counts
	}
	var log []entry
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for now := 100; now < length; {
		app, down := random.IntN(apps), random.IntN(2) == 0
		call, at, ret := now, now+random.IntN(20), now+20+random.IntN(20)
		if bug != "lost" || random.IntN(3) > 0 {
			log = append(log, entry{app, down, at})
		}
		h.add(registerOp{write: true, app: app, down: down, call: ms(call), ret: ms(ret)})
		now = ret + random.IntN(1500)
	}
	state := func(app, at int) bool {
		down := false
		for _, e := range log {
			if e.app == app && e.at <= at {
				down = e.down
			}
		}
		return down
	}
	for r := range replicas {
		for now := 2000; now < length; now += 1 + random.IntN(60) {
			strict := random.IntN(3) == 0
			ret := now + 1 + random.IntN(20)
			seen := ret - random.IntN(ret-now+1) // what it has applied when it looks
			if !strict || bug == "min_live" && random.IntN(5) == 0 {
				age := int(testFence / time.Millisecond)
				if bug == "fence" {
					age *= 3
				}
				seen = now - random.IntN(age)
			}
			app := random.IntN(apps)
			h.add(registerOp{client: r, server: r, app: app, down: state(app, seen), call: ms(now), ret: ms(ret), strict: strict, position: shard.Position{Sequence: uint64(seen)}})
		}
	}
	return h
}

// A system that is right passes, and one that has a bug does not, of which some are such that
// only many answers show them.
func TestRegistersOfASimulation(t *testing.T) {
	for seed := range uint64(4) {
		for _, bug := range []string{"", "fence", "min_live", "lost"} {
			h := simulated(rand.New(rand.NewPCG(*trialSeed, seed)), bug)
			var wrong []string
			for app, down := range h.first { // the positions are made up
				wrong = append(wrong, h.checkRegister(app, down)...)
			}
			assert.Equal(t, bug == "", len(wrong) == 0, "seed %d, bug %q: %s", seed, bug, wrong)
		}
	}
}
