package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/release"
)

// A store that is restored has its logs of some seconds before: what was taken down since is up
// in it, and generations are used again. Servers that run go on with what they know until the
// fence has them refuse, and nobody starts from it who remembers more. Then a person writes again
// what is missing, and accepts both logs.

// logPrefixes are those of what a store has that changes.
var logPrefixes = []string{"live/", "releases/"}

// logs are all objects of both logs.
type logs map[string][]byte

// copyLogs returns what the store has of them.
func (s *Site) copyLogs(ctx context.Context) (logs, error) {
	out, bucket := logs{}, s.store.Objects()
	for _, prefix := range logPrefixes {
		for o, err := range bucket.List(ctx, prefix) {
			if err != nil {
				return nil, err
			}
			data, err := bucket.Read(ctx, o.Key)
			if errors.Is(err, objects.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			out[o.Key] = data
		}
	}
	return out, nil
}

// putBack makes the logs what they were when they were copied, the last object first, until
// nothing more comes that was on its way.
func (s *Site) putBack(ctx context.Context, copied logs) error {
	bucket := s.store.Objects()
	for again := true; again; {
		now, err := s.copyLogs(ctx)
		if err != nil {
			return err
		}
		again = false
		for _, key := range slices.Backward(slices.Sorted(maps.Keys(now))) {
			if bytes.Equal(now[key], copied[key]) {
				continue
			}
			again = true
			if err := bucket.Delete(ctx, key); err != nil && !errors.Is(err, objects.ErrNotFound) {
				return err
			}
			delete(now, key)
		}
		for key, data := range copied {
			if _, there := now[key]; there {
				continue
			}
			if err := bucket.Create(ctx, key, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// restoreStore restores the store to some seconds before, and starts one process anew, which
// must refuse; what ends it is a person who accepts that.
func restoreStore(ctx context.Context, w *world) (heal func(context.Context) error, err error) {
	copied, err := w.ages(ctx)
	if err != nil {
		return nil, err
	}
	w.sender.writing.Lock()
	err = w.caughtUp(ctx)
	if err == nil {
		err = w.site.putBack(ctx, copied)
	}
	w.sender.writing.Unlock()
	if err != nil {
		return nil, err
	}
	again, err := w.refused(ctx)
	return func(ctx context.Context) error {
		return errors.Join(w.acceptStore(ctx, copied), again(ctx))
	}, err
}

// ages copies the logs, and waits until both have gone on.
func (w *world) ages(ctx context.Context) (logs, error) {
	w.sender.writing.Lock()
	copied, err := w.site.copyLogs(ctx)
	at := w.sender.registers.position()
	w.sender.writing.Unlock()
	if err != nil {
		return nil, err
	}
	if w.random.IntN(2) == 0 {
		if err := w.switchRelease(ctx); err != nil {
			return nil, err
		}
		if err := w.site.settle(ctx); err != nil {
			return nil, err
		}
	}
	for err == nil && w.sender.registers.position() == at {
		err = rest(ctx, time.Second)
	}
	return copied, err
}

// caughtUp waits until all processes have read the log to its end.
func (w *world) caughtUp(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	at := w.sender.registers.position()
	for _, r := range append(slices.Clone(w.site.routers), w.site.alone) {
		q := question{K: 1}.request(w.o.Users[0])
		q.MinLive = wire.LivePosition(at)
		for {
			_, err := r.asked.Load().retrieval.Retrieve(limited, connect.NewRequest(q))
			if err == nil {
				break
			}
			if rest(limited, lookEvery) != nil {
				return fmt.Errorf("%s has not read the live log to %s: %w", r.name, at, err)
			}
		}
	}
	for _, n := range w.site.running() {
		for {
			status, err := n.status(limited)
			if err == nil && hasRead(status, at) {
				break
			}
			if rest(limited, lookEvery) != nil {
				return fmt.Errorf("%s has not read the live log to %s: %w", n.name, at, errors.Join(err, limited.Err()))
			}
		}
	}
	return nil
}

// hasRead reports whether a node says of all its shards that it has them at a position.
func hasRead(s *shardv1.NodeStatus, at shard.Position) bool {
	for _, snapshot := range s.GetSnapshots() {
		for _, h := range snapshot.GetShards() {
			if h.GetState() == shardv1.HeldState_HELD_STATE_READY && (h.GetLog() != at.Log || h.GetNewest() < at.Sequence) {
				return false
			}
		}
	}
	return true
}

// refused kills a process, which remembers more than the store has, and starts it again: it must
// end, and say what a person can do. What is returned starts it once a person has.
func (w *world) refused(ctx context.Context) (again func(context.Context) error, err error) {
	nodes := w.site.running()
	n := w.random.IntN(len(nodes) + len(w.site.routers))
	if n < len(nodes) || len(w.site.routers) == 1 { // or else nobody could be asked
		one := nodes[n%len(nodes)]
		one.kill()
		return func(ctx context.Context) error { return w.site.startNode(ctx, one) }, one.refuses(ctx)
	}
	r := w.site.routers[n-len(nodes)]
	r.killAsked()
	return func(ctx context.Context) error { return w.site.startRouter(ctx, r) }, r.refuses(ctx)
}

// refuses starts a process that must end with an error which says what a person is to accept.
func (p *process) refuses(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := p.start(limited)
	for err == nil && p.isRunning() {
		if p.isReady(limited) {
			return fmt.Errorf("%s serves from a store that is older than what it remembers", p.name)
		}
		if err = rest(limited, lookEvery); err != nil {
			return fmt.Errorf("%s neither serves from a store that is older than what it remembers nor ends: %w: %s", p.name, err, p.log())
		}
	}
	if p.isRunning() {
		return err
	}
	if said := p.log(); p.cmd.ProcessState.Success() || !strings.Contains(said, "accept") {
		return fmt.Errorf("%s, started from a store that is older than what it remembers: %w", p.name, p.ended())
	}
	return nil
}

// acceptStore has a person write again what a restored store lacks, and accept its logs.
func (w *world) acceptStore(ctx context.Context, copied logs) error {
	s := w.sender
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := w.site.putBack(ctx, copied); err != nil { // what was on its way is behind a gap
		return err
	}
	err := s.registers.accept(func(down, up []int32) (at shard.Position, err error) {
		for _, again := range []struct {
			command string
			apps    []int32
		}{{"takedown", down}, {"restore", up}} {
			args := []string{"--reason", "written again"}
			for _, app := range again.apps {
				args = append(args, w.oracle.apps[app])
			}
			if len(again.apps) == 0 {
				continue
			}
			if _, err := w.site.live(ctx, again.command, args...); err != nil {
				return at, err
			}
		}
		said, err := w.site.live(ctx, "accept", "--reason", "a measurement", "--json")
		if err != nil {
			return at, err
		}
		var accepted struct{ Position shard.Position }
		err = json.Unmarshal(said, &accepted)
		return accepted.Position, err
	})
	if err != nil {
		return fmt.Errorf("accept the live log: %w", err)
	}
	return w.site.switchWith(ctx, w.site.now, w.oracle.released, release.Change{Restored: true, Reason: "a measurement"})
}

// live runs a command of the live log on the store itself, and returns what it prints.
func (s *Site) live(ctx context.Context, name string, args ...string) ([]byte, error) {
	args = append([]string{"live", name, "--store", s.o.Location, "--cache", filepath.Join(s.dir, "cache")}, args...)
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, s.o.Program, args...)
	cmd.Stderr = &stderr
	said, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tandem live %s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return said, nil
}
