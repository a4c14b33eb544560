package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/bench"
	"github.com/tandem-ann/tandem/bench/overload"
)

// Row is one thing that was measured, beside what is wanted.
type Row struct {
	Name   string `json:"name"`
	Target string `json:"target"`
	Found  string `json:"found"`
	Missed bool   `json:"missed"`
}

// RowsReport is what [Rows] has found.
type RowsReport struct {
	Rows []Row `json:"rows"`
	// Faults is what was counted while faults went on.
	Faults *Report `json:"faults,omitempty"`
}

// Broken names the rows that missed their targets.
func (r *RowsReport) Broken() []string {
	var list []string
	for _, row := range r.Rows {
		if row.Missed {
			list = append(list, row.Name+": "+row.Found)
		}
	}
	return list
}

// WriteTable writes the report for people.
func (r *RowsReport) WriteTable(w io.Writer) error {
	for _, row := range r.Rows {
		missed := ""
		if row.Missed {
			missed = "MISSED "
		}
		if _, err := fmt.Fprintf(w, "%s: %s%s\n    wanted: %s\n", row.Name, missed, row.Found, row.Target); err != nil {
			return err
		}
	}
	if r.Faults == nil {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return r.Faults.WriteTable(w)
}

func (r *RowsReport) add(name, target string, missed bool, format string, args ...any) {
	r.Rows = append(r.Rows, Row{name, target, fmt.Sprintf(format, args...), missed})
}

// The rows, in their order, beside those of faults.
const (
	rowTopK     = "topk"
	rowLatency  = "latency"
	rowCPU      = "cpu"
	rowGrowth   = "growth"
	rowOverload = "overload"
)

// RowNames are the names of all rows.
func RowNames() []string {
	return append(append([]string{rowTopK, rowLatency, rowCPU, rowGrowth}, FaultNames()...), rowOverload)
}

// CheckRows returns an error that names the first of some rows that there is not.
func CheckRows(names []string) error {
	for _, name := range names {
		if !slices.Contains(RowNames(), name) {
			return fmt.Errorf("there is no row %q; accepted: %s", name, strings.Join(RowNames(), ", "))
		}
	}
	return nil
}

// Rows measures each of some rows, all if none is named, and each fault by itself. An error is
// of what could not be measured: the report has what was.
func Rows(ctx context.Context, o Options, names []string) (report *RowsReport, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := CheckRows(names); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	for _, name := range names {
		if slices.Contains(FaultNames(), name) {
			o.Faults = append(o.Faults, name)
		}
	}
	wants := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }
	report = &RowsReport{}
	if len(names) != 1 || names[0] != rowOverload {
		if err := report.measure(ctx, &o, wants); err != nil {
			return report, err
		}
	}
	if wants(rowOverload) {
		return report, report.overload(ctx, o)
	}
	return report, nil
}

// measure measures all rows but that of overload.
func (r *RowsReport) measure(ctx context.Context, o *Options, wants func(string) bool) (err error) {
	w, err := newWorld(ctx, o)
	defer func() { err = errors.Join(err, w.close()) }()
	if err != nil {
		return err
	}
	for _, row := range []struct {
		name string
		do   func(context.Context, *world) error
	}{{rowTopK, r.topK}, {rowLatency, r.latency}, {rowCPU, r.cpu}, {rowGrowth, r.growth}} {
		if wants(row.name) {
			o.Progress(row.name)
			if err := row.do(ctx, w); err != nil {
				return fmt.Errorf("row %s: %w", row.name, err)
			}
		}
	}
	return r.faults(ctx, w, wants)
}

// What shards are asked for at most of n·k rows, where there are so many shards, and this k.
const (
	maxShare    = 0.1
	shareShards = 16
	shareK      = 1000
)

// topK asks each user every question once, and compares with what one machine answers; then it
// has some explained, to see for how many rows shards are asked.
func (r *RowsReport) topK(ctx context.Context, w *world) error {
	router := w.site.routers[0].asked.Load().retrieval
	none, asked, bad, told := newRegisters(""), 0, 0, ""
	for user, id := range w.o.Users {
		for _, q := range w.o.Questions {
			a, err := router.Retrieve(ctx, connect.NewRequest(q.request(id)))
			if err != nil {
				return err
			}
			asked++
			if found, text := w.oracle.judge(a.Msg, q, user, time.Now(), none, time.Hour); found != right {
				bad++
				told = ": " + text
			}
		}
	}
	k := min(shareK, len(w.o.Apps))
	var rows, most float64
	for _, id := range w.o.Users[:min(100, len(w.o.Users))] {
		q := question{K: k, Exact: true}.request(id)
		q.Explain = true
		a, err := router.Retrieve(ctx, connect.NewRequest(q))
		if err != nil {
			return err
		}
		for _, s := range a.Msg.Explain.GetShards() {
			rows += float64(s.Asked)
			most += float64(k)
		}
	}
	r.add(rowTopK, "equal on every query; at 16 shards and k=1,000 at most 10% of n·k rows", bad > 0 || w.site.parts >= shareShards && k == shareK && rows > maxShare*most,
		"%d of %d answers differ%s; %.1f%% of n·k rows asked for, at %d shards and k=%d", bad, asked, told, 100*rows/max(most, 1), w.site.parts, k)
	return nil
}

// latency has one client ask a router and the server with all shards in turn.
func (r *RowsReport) latency(ctx context.Context, w *world) error {
	router, alone := w.site.routers[0], w.site.alone
	random := rand.New(rand.NewPCG(w.o.Seed, 3))
	took := [2][]time.Duration{}
	q := question{K: min(100, len(w.o.Apps))}
	before, err := w.site.sizes()
	if err != nil {
		return err
	}
	warm := time.Now().Add(time.Second)
	for end := time.Now().Add(w.o.Time + time.Second); time.Now().Before(end); {
		request := q.request(w.o.Users[random.IntN(len(w.o.Users))])
		turn := random.IntN(2)
		for i := range 2 {
			which := (turn + i) % 2
			start := time.Now()
			if _, err := [2]*routing{router, alone}[which].asked.Load().retrieval.Retrieve(ctx, connect.NewRequest(request)); err != nil {
				return err
			}
			if start.After(warm) {
				took[which] = append(took[which], time.Since(start))
			}
		}
	}
	after, err := w.site.sizes()
	if err != nil {
		return err
	}
	middle := func(list []time.Duration) float64 {
		slices.Sort(list)
		return float64(list[len(list)/2]) / 1e6
	}
	if len(took[0]) == 0 {
		return errors.New("no query was asked in time")
	}
	through, beside := middle(took[0]), middle(took[1])
	grown := after.grown(before)
	r.add(rowLatency, "added p50 at most 0.4 ms; goroutines and connections do not grow", through-beside > 0.4 || grown != "",
		"p50 %.3f ms through a router, %.3f ms of one machine, of %d pairs: %.3f ms more; %s", through, beside, len(took[0]), through-beside, after.text(before))
	return nil
}

// growthLooks is how often processes are looked at while they are asked steadily. The first third
// of the time is not compared: what is opened for the most that is asked at a time, and kept for a
// while, comes then.
const growthLooks = 60

// growth asks routers at a steady rate, and compares the most goroutines and open files that each
// process has in the second third of the time with those of the last third.
func (r *RowsReport) growth(ctx context.Context, w *world) error {
	steady := &sender{o: w.o, site: w.site, oracle: w.oracle, registers: newRegisters(""), tally: newTally()}
	asking, end := context.WithCancel(ctx)
	var sending sync.WaitGroup
	sending.Go(func() { steady.run(asking, 4) })
	defer sending.Wait()
	defer end()
	var middle, last sizes
	for i := range growthLooks {
		if err := rest(ctx, w.o.Time/growthLooks); err != nil {
			return err
		}
		now, err := w.site.sizes()
		if err != nil {
			return err
		}
		switch 3 * i / growthLooks {
		case 1:
			middle = now.most(middle)
		case 2:
			last = now.most(last)
		}
	}
	end()
	sending.Wait()
	counted := steady.tally.phases[steadyPhase]
	var failed int64
	for _, n := range counted.failed {
		failed += n
	}
	grown := last.grown(middle)
	r.add(rowGrowth, "goroutines and connections do not grow", grown != "" || failed > 0,
		"%d queries in %s, %d failed; the most, in the second and in the last third: %s", counted.times.TotalCount(), w.o.Time, failed, last.text(middle))
	return nil
}

// The clients and turns of the row of CPU.
const (
	cpuClients = 8
	cpuTurns   = 5
)

// cpu compares what servers with all shards take, of this program and of the older one.
func (r *RowsReport) cpu(ctx context.Context, w *world) (err error) {
	const target = "server CPU a query as before, k=100, 8 clients"
	if w.o.Old == "" {
		r.add(rowCPU, target, false, "not measured: there is no older program")
		return nil
	}
	old := &routing{process: process{name: "older", command: func() []string { return append([]string{w.o.Old}, w.site.flags("older")...) }}}
	defer func() { err = errors.Join(err, stopAll(&old.process)) }()
	if err := old.start(ctx); err != nil {
		return err
	}
	if err := old.awaitReady(ctx); err != nil {
		return err
	}
	w.site.ask(old)
	var took [2][]float64
	for range cpuTurns {
		for i, server := range []*routing{w.site.alone, old} {
			each, err := cpuOf(ctx, w, server)
			if err != nil {
				return err
			}
			took[i] = append(took[i], each)
		}
	}
	for _, list := range took {
		slices.Sort(list)
	}
	now, before := took[0][cpuTurns/2], took[1][cpuTurns/2]
	r.add(rowCPU, target, now > 1.03*before, "%.1f µs a query, %.1f µs of the older program: %.3f times (medians of %d)", now, before, now/before, cpuTurns)
	return nil
}

// cpuOf returns how many microseconds of CPU a server takes for a query.
func cpuOf(ctx context.Context, w *world, server *routing) (float64, error) {
	turn := max(w.o.Time/(2*cpuTurns), time.Second)
	pid := server.cmd.Process.Pid
	before, err := bench.ProcessCPU(pid)
	if err != nil {
		return 0, err
	}
	counts, errs := [cpuClients]int{}, [cpuClients]error{}
	var asking sync.WaitGroup
	for i := range cpuClients {
		asking.Go(func() {
			q := question{K: min(100, len(w.o.Apps))}
			for end := time.Now().Add(turn); time.Now().Before(end) && errs[i] == nil; counts[i]++ {
				_, errs[i] = server.asked.Load().retrieval.Retrieve(ctx, connect.NewRequest(q.request(w.o.Users[(counts[i]*cpuClients+i)%len(w.o.Users)])))
			}
		})
	}
	asking.Wait()
	after, err := bench.ProcessCPU(pid)
	n := 0
	for _, c := range counts {
		n += c
	}
	return float64((after - before).Microseconds()) / float64(max(n, 1)), errors.Join(append(errs[:], err)...)
}

// steadyTime is how long all is well before each fault, and hedgedTime for how long at least one
// goes on whose hedges are bounded: they are a share of many queries, since some are saved up.
const (
	steadyTime = 5 * time.Second
	hedgedTime = 20 * time.Second
)

// faults has each kind go on once, with a release during it, and takedowns.
func (r *RowsReport) faults(ctx context.Context, w *world, wants func(string) bool) error {
	kinds := slices.DeleteFunc(w.kinds(), func(f *fault) bool { return !wants(f.name) })
	for _, name := range slices.Sorted(maps.Keys(w.left)) {
		if wants(name) {
			r.add(name, "to be run", false, "NOT RUN: %s", w.left[name])
		}
	}
	if len(kinds) == 0 {
		return ctx.Err()
	}
	w.ask(ctx)
	var err error
	hedges := map[string]float64{}
	for _, f := range kinds {
		if err = w.calm(ctx, steadyTime); err != nil {
			break
		}
		lasts := f.lasts
		switch {
		case f.away:
			lasts = max(w.o.Away, f.lasts)
		case f.hedged:
			lasts = max(hedgedTime, f.lasts)
		}
		before, asked := w.site.hedges(ctx), w.tally.asked()
		if err = w.do(ctx, f, lasts, true); err != nil {
			break
		}
		if after := w.site.hedges(ctx); after >= before && before >= 0 {
			hedges[f.name] = (after - before) / max(1, float64(w.tally.asked()-asked))
		} else {
			hedges[f.name] = -1
		}
	}
	if err == nil {
		err = w.calm(ctx, time.Second)
	}
	w.endAsks()
	w.asking.Wait()
	r.Faults = w.report()
	r.judge(kinds, hedges)
	return errors.Join(err, ctx.Err())
}

// The bounds of single faults.
const (
	maxBack   = 2 * time.Second
	maxHedges = 0.05
)

// judge makes rows of what was counted while faults went on.
func (r *RowsReport) judge(kinds []*fault, hedges map[string]float64) {
	phases := map[string]Phase{}
	for _, p := range r.Faults.Phases {
		phases[p.Name] = p
	}
	for _, f := range kinds {
		p, ok := phases[f.name]
		if !ok {
			continue
		}
		var failed int64
		for _, n := range p.Failed {
			failed += n
		}
		times := p.P99 / max(p.Before, 1e-3)
		found := fmt.Sprintf("%d of %d failed, %d by the fence, %d killed; p99 %.2f times the %.1f ms before, back after %.2f s", failed, p.Queries, p.Fenced, p.Killed, times, p.Before, p.Back)
		share := hedges[f.name]
		if share >= 0 {
			found += fmt.Sprintf("; hedges %.2f%%", 100*share)
		}
		target, missed := "0 failed beyond the fence", failed > 0
		switch f.name {
		case "kill":
			target += ", p99 back within 2 s"
			missed = missed || p.Back < 0 || p.Back > maxBack.Seconds()
		case "router":
			target = "0 failed beyond those on their way to it"
		}
		if f.hedged {
			target += ", p99 at most 3 times the steady one, hedges at most 5%"
			missed = missed || times > slower || share > maxHedges
		}
		r.add(f.name, target, missed, "%s", found)
	}
	c := r.Faults
	r.add("answers", "none wrong, mixed, late or older under any of these", c.Wrong+c.Mixed+c.Late+c.Older > 0, "wrong %d, mixed %d, late %d, older %d, of %d candidates and %d takedowns", c.Wrong, c.Mixed, c.Late, c.Older, c.Rows, c.Downs)
}

// overload asks a router more than it can answer, with all servers on one processor.
func (r *RowsReport) overload(ctx context.Context, o Options) (err error) {
	o.Pinned, o.Routers, o.unjudged = true, 1, true
	w, err := newWorld(ctx, &o)
	defer func() { err = errors.Join(err, w.close()) }()
	if err != nil {
		return err
	}
	// The other servers of the processor are not to take of it.
	if err := errors.Join(w.site.alone.stop(), w.site.routers[0].stop()); err != nil {
		return err
	}
	found, err := overload.Run(ctx, overload.Options{
		Serve: func(tokens string) []string {
			return append([]string{o.Program}, append(w.site.routerFlags("overloaded"), "--tokens", tokens)...)
		},
		Users: o.Users, K: min(100, len(o.Apps)), Time: max(o.Time, time.Second), Deadline: o.Deadline, Seed: o.Seed, Progress: o.Progress,
	})
	if err != nil {
		return fmt.Errorf("row %s: %w", rowOverload, err)
	}
	share := found.Overload.Goodput() / found.Capacity
	r.add(rowOverload, "2x: goodput at least 90% of capacity, refusals under 5 ms", share < 0.9 || found.Refusals.P99 > 5000,
		"goodput %.1f%% of %.0f/s; refusals p99 %.2f ms in the router, of %d; sender behind by %.1f ms (p99)", 100*share, found.Capacity, found.Refusals.P99/1e3, found.Refusals.Count, found.Overload.Lag.P99/1e3)
	return nil
}
