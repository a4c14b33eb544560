package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// trialServer is a server on trial.
type trialServer struct {
	run      *trialRun
	done     chan struct{} // closed when it has ended
	process  func(syscall.Signal)
	stderr   *lockedBuffer
	http     *http.Client
	answered bool
	newest   uint64 // generation that it answered from last
	refusals []string
	problems []string
}

// startServer starts a server, with a fault or without.
func (f *faultTrial) startServer(fault *fault, more ...string) *trialServer {
	args := append([]string{"serve", "--store", f.store, "--state", f.store + ".state", "--listen", "127.0.0.1:0", "--drain-delay", "0s", "--keep", "1ns", "--record-share", "1", "--log-format", "json"}, more...)
	s := &trialServer{run: f.newRun(args), done: make(chan struct{}), stderr: &lockedBuffer{}, http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}}
	cmd, log := f.trialProcess(s.run, fault)
	cmd.Stderr, cmd.WaitDelay = s.stderr, trialLimit
	s.process = func(signal syscall.Signal) { _ = cmd.Process.Signal(signal) } // it may have ended
	if err := cmd.Start(); err != nil {
		s.problems = append(s.problems, err.Error())
		close(s.done)
		return s
	}
	if log != "" {
		awaitTrace(log)
	}
	start := time.Now()
	if fault != nil && fault.after > 0 {
		time.AfterFunc(fault.after, func() { s.process(syscall.SIGKILL) })
	}
	go func() {
		defer close(s.done)
		_ = cmd.Wait() // its state says how it ended
		r := s.run
		r.took, r.stderr, r.code = time.Since(start), s.stderr.String(), cmd.ProcessState.ExitCode()
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		r.killed = status.Signaled() && status.Signal() == syscall.SIGKILL
		if log != "" {
			if err := r.readCalls(log); err != nil {
				s.problems = append(s.problems, err.Error())
			}
		}
	}()
	return s
}

func (s *trialServer) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// ask asks for the candidates of a user, nil if the server does not answer.
func (s *trialServer) ask(user string) *tandemv1.RetrieveResponse {
	m := whereServing.FindStringSubmatch(s.stderr.String())
	if m == nil {
		return nil // it does not listen yet
	}
	one := 1.0
	a, err := tandemv1connect.NewRetrievalServiceClient(s.http, "http://"+m[1]).
		Retrieve(context.Background(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: user, K: 5, RecallTarget: &one}))
	if err != nil {
		s.http.CloseIdleConnections() // one that a fault has hit answers nothing any more
		if s.answered && !s.ended() {
			s.refusals = append(s.refusals, err.Error())
		}
		return nil
	}
	return a.Msg
}

// stop has the server end, and returns when it has. One that does not end is killed.
func (s *trialServer) stop() {
	s.process(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(trialLimit):
		s.run.hung = true
		s.process(syscall.SIGQUIT)
		select {
		case <-s.done:
		case <-time.After(time.Second):
			s.process(syscall.SIGKILL)
			<-s.done
		}
	}
	s.http.CloseIdleConnections()
}

// users are how many users of a template are asked.
const users = 30

func userID(i int) string { return fmt.Sprintf("user-%07d", i%users) }

// candidates are those of an answer, as text.
func candidates(a *tandemv1.RetrieveResponse) string {
	var b strings.Builder
	for _, c := range a.Candidates {
		fmt.Fprintf(&b, "%s %v\n", c.Id, c.Score)
	}
	return b.String()
}

// servingAnswers are the right candidates, by the snapshot and the user.
type servingAnswers map[string]map[string]string

// learnServing notes what servers answer and do without a fault.
func (h *faultHarness) learnServing(t *testing.T) {
	h.serving = servingAnswers{}
	f := h.newTrial(-100, nil, layout{name: "store"})
	require.NoError(t, f.prepare(0))
	for _, snapshot := range []string{h.template.control, h.template.arm} {
		s := f.startServer(nil, "--snapshot", snapshot)
		h.serving[snapshot] = map[string]string{}
		for i := range users {
			require.Eventually(t, func() bool {
				a := s.ask(userID(i))
				if a != nil {
					h.serving[snapshot][userID(i)] = candidates(a)
				}
				return a != nil
			}, trialLimit, 5*time.Millisecond)
		}
		s.stop()
		require.Zero(t, s.run.code, "%s", s.run)
	}
	s := f.startServer(nil)
	start := time.Now()
	f.follow(s, false)
	h.usual["serve"] = time.Since(start)
	s.stop()
	f.judgeServer(s, false)
	require.Empty(t, append(f.problems, s.problems...))
	for _, call := range s.run.calls {
		if call.within(f.dir) {
			h.calls["serve"] = append(h.calls["serve"], call)
		}
	}
}

// serve runs a server with the fault while releases change, and then one without, and
// judges. It reports whether the fault hit anything.
func (f *faultTrial) serve() bool {
	s := f.startServer(&f.fault)
	f.follow(s, f.fault.lasting)
	s.stop()
	if !f.fault.hit(s.run, f.dir) {
		return false
	}
	f.judgeServer(s, f.fault.lasting)
	next := f.startServer(nil)
	f.follow(next, false)
	next.stop()
	f.judgeServer(next, false)
	if next.run.code != 0 {
		f.problemf("run %d: the next server fails", next.run.number)
	}
	f.ledger = nil // others have made releases
	f.cleanUp(f.store)
	return true
}

// changes is how many releases are made while a server is on trial.
const changes = 4

// follow makes releases while a server runs, asks it, and waits until it answers from
// the last one or ends.
func (f *faultTrial) follow(s *trialServer, lasting bool) {
	store, err := snapshots.OpenStore(context.Background(), f.store, snapshots.Options{})
	if err != nil {
		f.problemf("%v", err)
		return
	}
	defer store.Close()
	releases := release.New(store)
	limit := trialLimit // it tries again later each time
	if lasting {
		limit = time.Second
	}
	released := map[uint64]string{} // snapshots of those with one arm
	for n, e := range readStoreContent(f.store).entries {
		if len(e.Arms) == 1 {
			released[n] = e.Arms[0].Snapshot
		}
	}
	var head uint64
	for i := range changes {
		to := uint64(controlOnly + 4*(i%2))
		r, err := releases.Rollback(context.Background(), release.RollbackOptions{Change: release.Change{Author: "trial"}, To: to})
		if err != nil {
			f.problemf("rollback beside a server: %v", err)
			return
		}
		f.added++
		head = r.Generation
		released[head] = string(r.Arms[0].Snapshot)
		for until := time.Now().Add(f.usual["serve"] / 6); !s.ended() && time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
			f.askAndCheck(s, released)
		}
	}
	for until := time.Now().Add(limit); !s.ended() && time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		f.askAndCheck(s, released)
		if s.newest == head {
			return
		}
	}
	if !s.ended() && !lasting {
		s.problems = append(s.problems, fmt.Sprintf("after %s it answers from generation %d, not %d", limit, s.newest, head))
	}
}

// askAndCheck asks for a user and checks the answer.
func (f *faultTrial) askAndCheck(s *trialServer, released map[uint64]string) {
	user := userID(f.random.IntN(users))
	a := s.ask(user)
	if a == nil {
		return
	}
	s.answered = true
	switch want := released[a.Generation]; {
	case a.Generation < s.newest:
		s.problems = append(s.problems, fmt.Sprintf("it answers from generation %d after %d", a.Generation, s.newest))
	case a.Generation == bothArms: // the one that was there; either arm may answer
		want = a.Snapshot
		fallthrough
	default:
		if a.Snapshot != want || candidates(a) != f.serving[a.Snapshot][user] {
			s.problems = append(s.problems, fmt.Sprintf("generation %d, which has snapshot %s, answers %s for %s of snapshot %s", a.Generation, want, candidates(a), user, a.Snapshot))
		}
	}
	s.newest = max(s.newest, a.Generation)
}

// judgeServer looks for what is wrong after a server has ended.
func (f *faultTrial) judgeServer(s *trialServer, lasting bool) {
	r := s.run
	elsewhere := r.hitElsewhere(f.dir)
	if r.crashed() && !elsewhere {
		s.problems = append(s.problems, "it crashes")
	}
	switch {
	case r.hung:
		s.problems = append(s.problems, fmt.Sprintf("it does not stop within %s", trialLimit))
	case r.code > 0 && s.answered && !lasting && !elsewhere:
		s.problems = append(s.problems, "it ended although it had answered")
	case r.code > 0 && strings.TrimSpace(r.stderr) == "" && !elsewhere:
		s.problems = append(s.problems, "it says nothing")
	}
	if len(s.refusals) > 0 && !elsewhere && !r.killed {
		s.problems = append(s.problems, fmt.Sprintf("%d queries failed: %s", len(s.refusals), s.refusals[0]))
	}
	for _, problem := range slices.Compact(s.problems) {
		f.problemf("run %d: %s", r.number, problem)
	}
	now := readStoreContent(f.store)
	f.problems = append(f.problems, now.problems...)
	f.problems = append(f.problems, now.lost(f.before, nil)...)
}
