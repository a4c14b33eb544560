package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	faultTrials = flag.Int("trials", 6, "how many faults TestFaultTrials makes")
	trialSeed   = flag.Uint64("seed", 1, "what TestFaultTrials and TestReleasesBehindABrokenProxy draw from")
	faultTrialN = flag.Int("trial", -1, "the one trial that TestFaultTrials makes")
	faultStrace = flag.Bool("strace", false, "have TestFaultTrials also make system calls fail, by strace")
)

// TestFaultTrials runs commands, and has something go wrong: the process is killed after
// some time or at some system call, a system call fails, or it is late while a rival
// runs. Then it looks, by reading the store's files itself:
//
//   - What was said with exit code 0 is there, and would survive a power failure.
//   - Nothing is half: the log of releases has no gap and no other entries than before,
//     each snapshot that is there has all its shards, whole.
//   - Nothing that a release needs is deleted, and nothing else but what gc may delete.
//   - A command that fails says why, and does not crash; none takes for ever.
//   - The next command of the same kind works.
//   - gc deletes what dead processes left.
//
// A server is never wrong, goes on once it serves, and serves the newest release once
// the faults are over.
//
//	go test ./cmd/tandem -run TestFaultTrials -v -timeout 0 -strace -trials 300 -seed 1
func TestFaultTrials(t *testing.T) {
	t.Parallel() // it waits
	if *faultStrace {
		if _, err := exec.LookPath("strace"); err != nil {
			t.Skipf("not run: %v", err)
		}
	}
	h := &faultHarness{template: newFaultTemplate(t), base: t.TempDir(), strace: *faultStrace}
	var err error
	h.base, err = filepath.EvalSymlinks(h.base)
	require.NoError(t, err)
	h.learn(t)
	report := faultReport{}
	defer func() { t.Logf("%s", &report) }()
	if *faultTrialN >= 0 {
		h.trial(t, &report, *faultTrialN)
		return
	}
	for number := 0; report.trials < *faultTrials; number++ {
		require.Less(t, number, 4*(*faultTrials), "too few faults hit anything")
		h.trial(t, &report, number)
	}
}

// faultHarness makes fault trials.
type faultHarness struct {
	template *faultTemplate
	base     string // folder of the trials
	strace   bool
	usual    map[string]time.Duration // how long each command takes
	calls    map[string][]call        // what each calls in the store
	built    string                   // what build builds
	serving  servingAnswers
}

// faultTrial is one trial.
type faultTrial struct {
	*faultHarness
	number  int
	random  *rand.Rand
	command *trialCommand
	layout  layout
	fault   fault

	dir    string // of the trial
	store  string
	target string // store that copy copies to

	before   *storeContent
	ledger   *ledger // nil once a run was not traced whole
	added    uint64  // most releases that were made since before
	problems []string
	runs     []*trialRun
}

func (f *faultTrial) problemf(format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf(format, args...))
}

// learn runs each command without a fault.
func (h *faultHarness) learn(t *testing.T) {
	h.usual, h.calls = map[string]time.Duration{}, map[string][]call{}
	for i := range trialCommands {
		c := &trialCommands[i]
		f := h.newTrial(-1-i, c, layout{name: "store"})
		require.NoError(t, f.prepare(0))
		r := f.run(c.args(f), nil)
		require.Zero(t, r.code, "%s: %s", r, r.stderr)
		f.judge(r, c)
		for _, problem := range f.problems {
			t.Errorf("without a fault: %s: %s", c.name, problem)
		}
		h.usual[c.name] = r.took
		for _, call := range r.calls {
			if call.within(f.dir) {
				h.calls[c.name] = append(h.calls[c.name], call)
			}
		}
		if c.name == "build" {
			h.built = strings.Split(r.stdout, `"`)[3]
		}
		require.NoError(t, os.RemoveAll(f.dir))
	}
	h.learnServing(t)
}

// newTrial returns a trial. Its number and the seed decide what is random in it.
func (h *faultHarness) newTrial(number int, c *trialCommand, l layout) *faultTrial {
	return &faultTrial{faultHarness: h, number: number, random: rand.New(rand.NewPCG(*trialSeed, uint64(number))), command: c, layout: l}
}

// layouts are those that trials draw from; most stores are plain.
var layouts = []layout{
	{"store", ""}, {"store", ""}, {"store", ""}, {"store", ""},
	{"st[o]re *?", ""}, {"store", "releases"}, {"store", "snapshots"}, {"store", "shards"},
}

// trial makes one trial and reports it. A fault that hits nothing is drawn again.
func (h *faultHarness) trial(t *testing.T, report *faultReport, number int) {
	f := h.newTrial(number, nil, layout{})
	if c := f.random.IntN(len(trialCommands) + 1); c < len(trialCommands) {
		f.command = &trialCommands[c]
	}
	f.layout = layouts[f.random.IntN(len(layouts))]
	for attempt := range 6 {
		f.fault = f.drawFault()
		err := f.prepare(attempt)
		require.NoError(t, err)
		hit := false
		if f.command == nil {
			hit = f.serve()
		} else {
			hit = f.try()
		}
		if hit || len(f.problems) > 0 {
			report.add(f)
			break
		}
		require.NoError(t, os.RemoveAll(f.dir))
	}
	if len(f.problems) > 0 {
		slices.Sort(f.problems)
		f.problems = slices.Compact(f.problems) // what is lost stays lost
		t.Errorf("trial %d: %s with %s in %q%s:\n- %s\nagain: go test ./cmd/tandem -run '^TestFaultTrials$' -v -strace=%v -seed %d -trial %d\n%s",
			number, f.name(), &f.fault, f.layout.name, f.linkText(), strings.Join(f.problems, "\n- "), h.strace, *trialSeed, number, f.transcript())
	}
	require.NoError(t, os.RemoveAll(f.dir))
}

func (f *faultTrial) name() string {
	if f.command == nil {
		return "serve"
	}
	return f.command.name
}

func (f *faultTrial) linkText() string {
	if f.layout.linked == "" {
		return ""
	}
	return " with a symbolic link " + f.layout.linked
}

// transcript lists what was run.
func (f *faultTrial) transcript() string {
	var b strings.Builder
	for _, r := range f.runs {
		fmt.Fprintf(&b, "%s\n", r)
	}
	return b.String()
}

// prepare makes the store anew.
func (f *faultTrial) prepare(attempt int) error {
	f.dir = filepath.Join(f.base, fmt.Sprintf("%d-%d", f.number, attempt))
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		return err
	}
	var err error
	if f.store, err = f.template.copyTo(f.dir, f.layout); err != nil {
		return err
	}
	f.target = filepath.Join(f.dir, "new", "target")
	if f.fault.rivalName == "gc of the target" {
		if err := os.MkdirAll(filepath.Join(f.target, "shards"), 0o755); err != nil {
			return err
		}
	}
	f.before = readStoreContent(f.store)
	f.added, f.problems, f.runs = 0, f.before.problems, nil
	f.ledger = nil
	if f.strace {
		f.ledger = newLedger(f.resolve)
	}
	return nil
}

// resolve returns the path of a file without the symbolic link of the layout.
func (f *faultTrial) resolve(path string) string {
	if f.layout.linked == "" {
		return path
	}
	if rest, in := strings.CutPrefix(path, filepath.Join(f.store, f.layout.linked)+"/"); in {
		return filepath.Join(f.dir, "elsewhere", f.layout.linked, rest)
	}
	return path
}

// try runs the command with the fault, judges, runs the next command and gc, and judges
// again. It reports whether the fault hit anything.
func (f *faultTrial) try() bool {
	c := f.command
	r := f.run(c.args(f), &f.fault)
	if !f.fault.hit(r, f.dir) {
		return false
	}
	f.judge(r, c)
	now := readStoreContent(f.store)
	args := r.args
	if c.next != nil {
		args = c.next(f, now)
	}
	works := f.next(args)
	if c.then != nil {
		for _, args := range c.then(f, readStoreContent(f.store)) {
			f.next(args)
		}
	}
	f.cleanUp(f.store)
	if c.name == "copy" && works {
		f.cleanUp(f.target)
	}
	return true
}

// next runs a command without a fault, which must work, and judges. Only what a gc that
// died was about to delete may be refused for some time, if the command says so.
func (f *faultTrial) next(args []string) (works bool) {
	r := f.run(args, nil)
	f.judge(r, commandOf(args))
	if toFirst := slices.Equal(args[len(args)-2:], []string{"--to", "1"}); toFirst && r.code != 0 && strings.Contains(r.stderr, "a gc has marked") {
		if err := age(f.store); err != nil {
			f.problemf("%v", err)
		}
		r = f.run(args, nil)
		f.judge(r, commandOf(args))
	}
	if r.code != 0 {
		f.problemf("run %d: the next command fails", r.number)
	}
	return r.code == 0
}

// cleanUp runs gc long after what died, which must leave no leftovers, and judges.
func (f *faultTrial) cleanUp(store string) {
	if err := age(store); err != nil {
		f.problemf("%v", err)
	}
	keep := 1
	if f.name() == "build" {
		keep = 2 // what was the newest too
	}
	gc := f.run(f.gc(store, keep), nil)
	if gc.code != 0 {
		f.problemf("run %d: gc fails", gc.number)
	}
	if there := readStoreContent(store); len(there.leftovers) > 0 {
		f.problemf("gc leaves %s", strings.Join(there.leftovers, ", "))
	}
	f.judge(gc, commandOf(gc.args))
}

// judge looks for what is wrong after a run of a command.
func (f *faultTrial) judge(r *trialRun, c *trialCommand) {
	if r.hung {
		f.problemf("run %d: it took longer than %s", r.number, trialLimit)
	}
	if r.waited && !c.mayWait {
		f.problemf("run %d: it waits, and must not", r.number)
	}
	elsewhere := r.hitElsewhere(f.dir) // such as the runtime's own calls, which it does not survive
	if r.crashed() && !elsewhere {
		f.problemf("run %d: it crashes", r.number)
	}
	if r.code > 0 && !r.hung && strings.TrimSpace(r.stderr) == "" && !elsewhere {
		f.problemf("run %d: it exits with %d and says nothing", r.number, r.code)
	}
	now := readStoreContent(f.store)
	f.problems = append(f.problems, now.problems...)
	f.problems = append(f.problems, now.lost(f.before, f.mayGo(now))...)
	f.added += c.adds + r.rivalAdds
	if now.head > f.before.head+f.added {
		f.problemf("the log went from %d to %d by %d changes", f.before.head, now.head, f.added)
	}
	f.before, f.added = now, 0
	if f.ledger != nil {
		f.ledger.read(r.calls)
		f.problems = append(f.problems, f.ledger.errors...)
		f.ledger.errors = nil
	}
	if r.rival != nil {
		f.judgeRival(r.rival, now)
	}
	if r.code != 0 || c.said == nil {
		return
	}
	problems, files := c.said(f, r.stdout, now)
	f.problems = append(f.problems, problems...)
	if f.ledger != nil {
		for _, lost := range f.ledger.lost(files...) {
			f.problemf("run %d: it exits with 0, and a power failure could take %s", r.number, lost)
		}
	}
}

// judgeRival looks for what is wrong with what ran beside a command.
func (f *faultTrial) judgeRival(r *trialRun, now *storeContent) {
	if r.hung {
		f.problemf("the rival took longer than %s", trialLimit)
	}
	if r.code != 0 && strings.TrimSpace(r.stderr) == "" {
		f.problemf("the rival exits with %d and says nothing", r.code)
	}
	if r.crashed() {
		f.problemf("the rival crashes")
	}
	if r.code == 0 && r.args[0] == "release" {
		problems, _ := f.released(r.stdout, now)
		f.problems = append(f.problems, problems...)
	}
}
