package main

import (
	"io"
	"sync"

	"github.com/tandem-ann/tandem/shard"
)

// transfers shows how many bytes of all shards together were uploaded or downloaded.
type transfers struct {
	mu    sync.Mutex
	p     progress
	known map[shard.Digest]shard.Transfer
}

func newTransfers(w io.Writer) *transfers {
	return &transfers{p: newProgress(w), known: map[shard.Digest]shard.Transfer{}}
}

// Transfer is told of each transfer. Calls may come from any goroutine.
func (t *transfers) Transfer(now shard.Transfer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, known := t.known[now.Digest]
	t.known[now.Digest] = now
	var done, size int64
	for _, each := range t.known {
		if each.Upload == now.Upload {
			done, size = done+each.Done, size+each.Size
		}
	}
	if !known || last.Upload != now.Upload {
		name := "download bytes"
		if now.Upload {
			name = "upload bytes"
		}
		t.p.Stage(name, size)
	}
	t.p.Step(done)
}

// Done ends the display.
func (t *transfers) Done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.Done()
}
