package sections

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"unsafe"
)

// # Goals
//
// A page of a mapped file that cannot be read ends what reads it with an error that
// names the file, and not the process: other snapshots, and other queries, go on. A bug
// stays a panic, and costs as much to find as ever. What does not fault pays nothing.
//
// # Design
//
// The kernel answers a read of such a page, whether the disk failed or the file was
// cut, with SIGBUS. The runtime makes a panic of that only where the goroutine has
// asked for it, so every goroutine that reads mappings defers a [Guard]. The panic has
// the address, and the list of what is mapped tells whose it is: a panic at any other
// address, as of a nil pointer or of a file that was closed, is not the guard's and
// goes on.
//
// A goroutine that others wait for raises the [*FaultError] again where they wait, so
// that it reaches the guard of whoever began the work.

// ErrUnreadable is the class of every error that says that bytes of a file could not be
// read, so that nothing is known of them.
var ErrUnreadable = errors.New("unreadable")

// IsDamaged reports whether err says of a file that it is of no use as it is, be it
// [ErrCorrupt] or [ErrUnreadable]: another copy of it may be whole.
func IsDamaged(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnreadable)
}

// FaultError says that a page of a mapped file could not be read when it was needed:
// its disk failed, or the file was cut or changed while it was mapped. It is of class
// [ErrUnreadable].
type FaultError struct {
	Path   string
	Part   string // of the file: "section NAME", "header" or "table of contents"
	Offset int64  // bytes from the start of the file

	file *File
}

// Error implements error.
func (e *FaultError) Error() string {
	return fmt.Sprintf("shard file %s: %s: the page at %d cannot be read, for its disk failed or the file was cut while it was mapped: %v",
		e.Path, e.Part, e.Offset, ErrUnreadable)
}

// Unwrap returns the error's class.
func (e *FaultError) Unwrap() error { return ErrUnreadable }

// In reports whether the page is one of f.
func (e *FaultError) In(f *File) bool { return e.file == f }

// Guard makes a fault in a mapped file the error of the function that defers it:
//
//	defer sections.Guard(&err)()
//
// It holds for the calling goroutine, from the call until the deferred function runs.
// Guards nest.
func Guard(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			fault := FaultOf(p)
			if fault == nil {
				panic(p)
			}
			*err = fault
		}
	}
}

// FaultOf returns the fault in a mapped file that a recovered panic is, or nil if it is
// another panic.
func FaultOf(panicked any) *FaultError {
	switch p := panicked.(type) {
	case *FaultError:
		return p
	case interface {
		runtime.Error
		Addr() uintptr
	}:
		return faultAt(p.Addr())
	}
	return nil
}

// mapped are the files whose mappings a fault may be in. Like the address space, of
// which it is a part, it is the process's.
var mapped struct {
	sync.Mutex
	files map[*File]struct{}
}

func noteMapped(f *File) {
	mapped.Lock()
	defer mapped.Unlock()
	if mapped.files == nil {
		mapped.files = map[*File]struct{}{}
	}
	mapped.files[f] = struct{}{}
}

func noteUnmapped(f *File) {
	mapped.Lock()
	defer mapped.Unlock()
	delete(mapped.files, f)
}

// faultAt returns the fault at an address, or nil if no file is mapped there.
func faultAt(address uintptr) *FaultError {
	mapped.Lock()
	defer mapped.Unlock()
	for f := range mapped.files {
		if first := uintptr(unsafe.Pointer(unsafe.SliceData(f.mapping))); address-first < uintptr(len(f.mapping)) {
			offset := int64(address-first) &^ (PageSize - 1)
			return &FaultError{Path: f.path, Part: f.part(uint64(offset)), Offset: offset, file: f}
		}
	}
	return nil
}

// part names what is at an offset of the file.
func (f *File) part(offset uint64) string {
	if offset < PageSize {
		return "header"
	}
	for _, e := range f.entries {
		if offset-e.Offset < padded(e.Length) {
			return "section " + e.Name
		}
	}
	return "table of contents"
}
