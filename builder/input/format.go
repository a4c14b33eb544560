package input

import (
	"bytes"
	"errors"
)

// headSize is how many of a file's first bytes an [Accept] is shown.
const headSize = 4096

// Accept returns nil if a file of a name, whose first bytes are head (all of them, if it
// has fewer than 4096), is one of those that are looked for. An error of class [ErrForeign]
// says that it is of another sort, and is left out if it was found in a folder; another
// error ends the search.
type Accept func(name string, head []byte) error

// ErrForeign is the class of an error that says that a file is not one of those that an
// input is made of.
var ErrForeign = errors.New("not a file of the input")

// ErrChanged is the class of an error that says that a file was written to since it was opened: what was read
// is neither what it was nor what it is.
var ErrChanged = errors.New("has changed while it was read")

// Format is what a file's first bytes say that it is.
type Format string

// The formats that are told by their first bytes. Their texts are for people.
const (
	Parquet Format = "Parquet"
	Npy     Format = "a NumPy array"
	Gzip    Format = "compressed by gzip"
	Zstd    Format = "compressed by zstd"
	Zip     Format = "a zip archive (such as .npz and .pt)"
	Avro    Format = "Avro"
	ORC     Format = "ORC"
	Arrow   Format = "an Arrow or Feather file"
	HDF5    Format = "HDF5"
	Pickle  Format = "a Python pickle"
	UTF16   Format = "text in UTF-16"
	Text    Format = "text"
	Unknown Format = "of no known format"
)

var magics = []struct {
	magic  string
	format Format
}{
	{"PAR1", Parquet}, {"PARE", Parquet}, // the latter with an encrypted footer
	{"\x93NUMPY", Npy},
	{"\x1f\x8b", Gzip}, {"\x28\xb5\x2f\xfd", Zstd}, {"PK\x03\x04", Zip},
	{"Obj\x01", Avro}, {"ORC", ORC}, {"ARROW1", Arrow}, {"FEA1", Arrow}, {"\x89HDF\r\n\x1a\n", HDF5},
	{"\x80\x02", Pickle}, {"\x80\x03", Pickle}, {"\x80\x04", Pickle}, {"\x80\x05", Pickle},
	{"\xff\xfe", UTF16}, {"\xfe\xff", UTF16},
}

// FormatOf tells a file's format by its first bytes.
func FormatOf(head []byte) Format {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.format
		}
	}
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18" { // a frame that readers skip
		return Zstd
	}
	if bytes.IndexByte(head, 0) < 0 {
		return Text
	}
	return Unknown
}
