package main

import (
	"io"
	"sync"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// transfers shows how many bytes of all shards together were uploaded, downloaded or
// checked.
type transfers struct {
	mu    sync.Mutex
	p     progress
	shown snapshots.TransferKind
	known map[snapshots.TransferKind]map[manifest.Digest]snapshots.Transfer
}

func newTransfers(w io.Writer) *transfers {
	return &transfers{p: newProgress(w), known: map[snapshots.TransferKind]map[manifest.Digest]snapshots.Transfer{}}
}

// Transfer is told of each transfer. Calls may come from any goroutine. Of several kinds
// it shows one until all that is known of it is done.
func (t *transfers) Transfer(now snapshots.Transfer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[now.Kind] == nil {
		t.known[now.Kind] = map[manifest.Digest]snapshots.Transfer{}
	}
	_, known := t.known[now.Kind][now.Digest]
	t.known[now.Kind][now.Digest] = now
	if now.Kind != t.shown {
		if done, size := t.total(t.shown); done < size {
			return
		}
	}
	done, size := t.total(now.Kind)
	if !known || now.Kind != t.shown {
		t.shown = now.Kind
		t.p.Stage(string(now.Kind)+" bytes", size)
	}
	t.p.Step(done)
}

// total returns how many bytes of a kind are done, and how many there are.
func (t *transfers) total(kind snapshots.TransferKind) (done, size int64) {
	for _, each := range t.known[kind] {
		done, size = done+each.Done, size+each.Size
	}
	return done, size
}

// Done ends the display.
func (t *transfers) Done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.Done()
}
