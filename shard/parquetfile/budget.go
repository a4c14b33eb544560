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
	// Bytes of all pages that are read, decompressed; and of all byte arrays in them.
	madeBytes, madePerByte = 4 << 30, 4096
	// Levels in all columns: values, nulls and empty lists.
	levelCount, levelsPerByte = 8 << 20, 4096
)

// A budget is what the columns of a file have taken. It may be used by several goroutines.
type budget struct {
	held, unpacked, made             atomic.Int64
	mostHeld, mostUnpacked, mostMade int64
}

// newBudget returns the budget of a file of a size, within the limits of who reads it.
func newBudget(size int64, l Limits) *budget {
	b := &budget{mostHeld: heldBytes + heldPerByte*size, mostMade: madeBytes + madePerByte*size, mostUnpacked: l.UnpackedBytes}
	if l.UnpackedBytes > 0 {
		b.mostHeld = max(b.mostHeld, l.UnpackedBytes)
	} else {
		b.mostUnpacked = b.mostMade
	}
	return b
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

// unpack makes n bytes of a page.
func (b *budget) unpack(n int64) error {
	if unpacked := b.unpacked.Add(n); unpacked > b.mostUnpacked {
		return fmt.Errorf("pages of %d bytes; accepted: up to %d in all", unpacked, b.mostUnpacked)
	}
	return nil
}

// make makes n bytes of values.
func (b *budget) make(n int64) error {
	if made := b.made.Add(n); made > b.mostMade {
		return fmt.Errorf("values of %d bytes; accepted: up to %d in all", made, b.mostMade)
	}
	return nil
}
