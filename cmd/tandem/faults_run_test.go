package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fault is what goes wrong in a trial.
type fault struct {
	kind      string        // kill, error, kill at a call, rival
	after     time.Duration // of kill
	call      string        // the system call, of the others
	inject    []string      // flags of strace
	partly    bool          // strace sees only some files
	lasting   bool          // it may go on for ever
	rivalName string        // of rival
	rivalAt   time.Duration // when it starts
}

func (f *fault) String() string {
	switch {
	case f.inject == nil:
		return fmt.Sprintf("kill -9 after %s", f.after.Round(time.Millisecond))
	case f.rivalName != "":
		return fmt.Sprintf("%s beside %s", f.inject[1], f.rivalName)
	}
	return f.inject[1]
}

// errnos are those that system calls fail with.
var errnos = []string{"EIO", "ENOSPC", "EDQUOT", "EACCES", "EMFILE", "EINTR", "ESTALE", "ENOMEM"}

// changingCalls are the system calls that change what is in a file system, or make a
// change durable.
var changingCalls = []string{"write", "pwrite64", "ftruncate", "fsync", "fdatasync", "mkdirat", "linkat", "renameat", "renameat2", "unlinkat"}

// drawFault draws a fault from what the command calls when nothing goes wrong.
func (f *faultTrial) drawFault() fault {
	kind := f.random.IntN(20)
	if !f.strace || kind < 4 {
		return fault{kind: "kill", after: time.Duration(f.random.Float64() * float64(f.usual[f.name()]))}
	}
	// Each kind of call as often as any other, then each point as often as any other.
	calls := f.calls[f.name()]
	if kind < 8 { // a kill between two calls that change nothing is like one before them
		calls = slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return !slices.Contains(changingCalls, c.name) })
	}
	var kinds []string
	for _, c := range calls {
		kinds = append(kinds, c.name)
	}
	slices.Sort(kinds)
	if kinds = slices.Compact(kinds); len(kinds) == 0 { // such as a kill of verify
		return fault{kind: "kill", after: time.Duration(f.random.Float64() * float64(f.usual[f.name()]))}
	}
	name := kinds[f.random.IntN(len(kinds))]
	of := slices.DeleteFunc(slices.Clone(calls), func(c call) bool { return c.name != name })
	nth := of[f.random.IntN(len(of))].nth
	if f.command == nil {
		nth = 1 + f.random.IntN(nth) // threads share its calls in another way each time
	}
	out := fault{call: name}
	switch {
	case kind < 8:
		out.kind = "kill at a call"
		out.inject = []string{"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", name, nth)}
	case kind < 11 && f.command != nil && len(f.command.rivals) > 0:
		out.kind = "rival"
		out.rivalName = f.command.rivals[f.random.IntN(len(f.command.rivals))]
		out.rivalAt = time.Duration(f.random.Float64() * float64(f.usual[f.name()]))
		out.inject = []string{"-e", fmt.Sprintf("inject=%s:delay_enter=%d:when=%d", name, 150_000+f.random.IntN(300_000), nth)}
	default:
		out.kind = "error"
		errno := errnos[f.random.IntN(len(errnos))]
		when := fmt.Sprint(nth)
		if errno != "EINTR" { // one that never ends is no fault of those who try again
			switch f.random.IntN(5) {
			case 0:
				when = fmt.Sprintf("%d..%d", nth, nth+1+f.random.IntN(5))
				out.lasting = f.command == nil // each thread counts for itself
			case 1:
				when, out.lasting = fmt.Sprintf("%d+%d", nth, 1+f.random.IntN(4)), true
			}
		}
		out.inject = []string{"-e", fmt.Sprintf("inject=%s:error=%s:when=%s", name, errno, when)}
		if name == "mmap" {
			// Most map memory; those that map shards are counted by themselves.
			out.partly = true
			out.inject[1] = fmt.Sprintf("inject=mmap:error=%s:when=%d", errno, 1+f.random.IntN(6))
		}
	}
	return out
}

// flags returns those of strace.
func (f *faultTrial) flags(fault *fault) []string {
	if fault == nil {
		return nil
	}
	flags := slices.Clone(fault.inject)
	if fault.partly {
		for _, snapshot := range []string{f.template.control, f.template.arm, f.template.newest} {
			for _, digest := range f.template.of[snapshot] {
				flags = append(flags, "-P", f.resolve(filepath.Join(f.store, "shards", digest+".shard")))
			}
		}
	}
	return flags
}

// hit reports whether a fault hit a run: a process was killed, or strace changed what a
// call for a file of the trial did.
func (f *fault) hit(r *trialRun, dir string) bool {
	if f.kind == "kill" || f.kind == "kill at a call" {
		return r.killed
	}
	return slices.ContainsFunc(r.calls, func(c call) bool { return c.injected && c.within(dir) })
}

// hitElsewhere reports whether a fault hit what is not of the trial: a connection, or an
// output.
func (r *trialRun) hitElsewhere(dir string) bool {
	return slices.ContainsFunc(r.calls, func(c call) bool { return c.injected && !c.within(dir) })
}

// crashed reports whether a run ended as Go ends a process that crashes.
func (r *trialRun) crashed() bool {
	return !r.hung && slices.ContainsFunc([]string{"panic: ", "fatal error: ", "unexpected fault address", "SIGBUS", "goroutine 1 ["},
		func(text string) bool { return strings.Contains(r.stderr, text) })
}

// trialLimit is how long a command may take, on a busy machine.
const trialLimit = 2 * time.Minute

// trialRun is a run of a command.
type trialRun struct {
	number         int // in its trial, from 1
	args           []string
	stdout, stderr string
	code           int // -1 if a signal ended it
	killed         bool
	hung           bool   // it was ended after trialLimit
	waited         bool   // it said that it waits, and went on when it had no more reason to
	calls          []call // if it was traced
	took           time.Duration

	rival     *trialRun
	rivalAdds uint64 // most releases that the rival made
}

func (r *trialRun) String() string {
	text := fmt.Sprintf("%d: tandem %s: exit code %d after %s", r.number, strings.Join(r.args, " "), r.code, r.took.Round(time.Millisecond))
	if r.killed {
		text += ", killed"
	}
	s := strings.TrimSpace(r.stderr)
	if said, dump, is := strings.Cut(s, "SIGQUIT: quit"); r.hung && is { // where it hangs
		s = said + dump[max(0, strings.Index(dump, "\ngoroutine 1 ")):]
	}
	if s != "" {
		const most = 2000
		text += "\n    " + strings.ReplaceAll(s[:min(len(s), most)], "\n", "\n    ")
	}
	if r.rival != nil {
		text += "\n  beside it, " + r.rival.String()
	}
	return text
}

// lockedBuffer is a buffer that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// waits matches what a command says that waits for a gc.
var waits = regexp.MustCompile(`(?i)\bwait`)

// trialProcess is a process with a fault or without, and where it is traced, if it is.
func (f *faultTrial) trialProcess(r *trialRun, fault *fault) (cmd *exec.Cmd, log string) {
	if !f.strace {
		return exec.Command("tandem", r.args...), ""
	}
	log = filepath.Join(f.dir, fmt.Sprintf("strace-%d.log", r.number))
	return straceCommand(log, f.flags(fault), r.args...), log
}

// newRun notes that a command is run.
func (f *faultTrial) newRun(args []string) *trialRun {
	r := &trialRun{number: len(f.runs) + 1, args: args}
	f.runs = append(f.runs, r)
	return r
}

// readCalls reads what a run called.
func (r *trialRun) readCalls(log string) (err error) {
	r.calls, err = readTrace(log)
	return err
}

// run runs a command to its end, with a fault or without.
func (f *faultTrial) run(args []string, fault *fault) *trialRun {
	r := f.newRun(args)
	cmd, log := f.trialProcess(r, fault)
	rivalDone := make(chan struct{})
	if fault != nil && fault.rivalName != "" {
		var rivalArgs []string
		rivalArgs, r.rivalAdds = f.rival(fault.rivalName)
		r.rival = &trialRun{args: rivalArgs}
		go func() {
			defer close(rivalDone)
			time.Sleep(fault.rivalAt)
			r.rival.await(exec.Command("tandem", rivalArgs...), "", 0, f.store)
		}()
	} else {
		close(rivalDone)
	}
	after := time.Duration(0)
	if fault != nil {
		after = fault.after
	}
	r.await(cmd, log, after, f.store)
	<-rivalDone
	if log != "" {
		if err := r.readCalls(log); err != nil {
			f.problemf("%v", err)
		}
		if fault != nil && fault.partly {
			f.ledger = nil
		}
	}
	return r
}

// await runs a command until it ends, is killed, or has taken too long. If it says that
// it waits, what it waits for is made old. The log is empty, or where it is traced.
func (r *trialRun) await(cmd *exec.Cmd, log string, killAfter time.Duration, store string) {
	var stdout, stderr lockedBuffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, trialLimit
	start := time.Now()
	if err := cmd.Start(); err != nil {
		r.code, r.stderr = -1, err.Error()
		return
	}
	if log != "" {
		awaitTrace(log)
	}
	if killAfter > 0 {
		kill := time.AfterFunc(killAfter, func() { _ = cmd.Process.Kill() }) // it may have ended
		defer kill.Stop()
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	limit := time.NewTimer(trialLimit)
	defer limit.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			r.took = time.Since(start)
			r.stdout, r.stderr, r.code = stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
			if ee := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ee) {
				r.stderr += err.Error()
			}
			status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
			r.killed = status.Signaled() && status.Signal() == syscall.SIGKILL && !r.hung
			return
		case <-limit.C:
			r.hung = true
			_ = cmd.Process.Signal(syscall.SIGQUIT) // have it say where it hangs
			time.AfterFunc(time.Second, func() { _ = cmd.Process.Kill() })
		case <-look.C:
			if !r.waited && !r.hung && waits.MatchString(stderr.String()) {
				r.waited = true
				if err := age(store); err != nil {
					fmt.Fprintf(&stderr, "%v", err)
				}
				limit.Reset(trialLimit)
			}
		}
	}
}
