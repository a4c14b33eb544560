package parquetfile

import (
	"fmt"
	"sync/atomic"
)

// What a file may make of its bytes. Some bytes can stand for any number of others: a page
// of zeros for as many as it says, a run of a level for two thousand million, a dictionary's
// value or a prefix for as many copies. So there are bounds, some bytes for any file and
// some for each byte that it has, far above what towers and logs take and below what a
// machine does: a small file takes little memory and ends soon, whatever it says.
const (
	// Bytes that the open columns hold: pages, dictionaries, lengths.
	heldBytes, heldPerByte = 32 << 20, 32
	// Bytes of all pages that are read, decompressed, and of the values in byte arrays.
	madeBytes, madePerByte = 4 << 30, 4096
	// Levels in all columns: values, nulls and empty lists.
	levelCount, levelsPerByte = 64 << 20, 4096
)

// A budget is what the columns of a file have taken. It may be used by several goroutines.
type budget struct {
	held, made         atomic.Int64
	mostHeld, mostMade int64
}

// hold takes n bytes more, until they are given back.
func (b *budget) hold(n int64) error {
	if held := b.held.Add(n); held > b.mostHeld {
		return fmt.Errorf("pages and dictionaries of %d bytes at a time; accepted: up to %d", held, b.mostHeld)
	}
	return nil
}

// release gives back n bytes.
func (b *budget) release(n int64) { b.held.Add(-n) }

// make takes n bytes, whether they are held or not.
func (b *budget) make(n int64) error {
	if made := b.made.Add(n); made > b.mostMade {
		return fmt.Errorf("pages and values of %d bytes; accepted: up to %d in all", made, b.mostMade)
	}
	return nil
}
