package input

import "io"

// A File is one file of an input, open for reading: what it yields does not change, or
// the input says so when it has been read. Any number of goroutines may read it. Who
// opened the input closes its files; readers do not.
type File interface {
	io.ReaderAt
	// Size is the number of bytes.
	Size() int64
	// Name names the file for people: its path or URL.
	Name() string
}
