package tower

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// A Row is one entity of a tower, as the file has it.
type Row struct {
	// Number is the row's position in the whole input, from 0.
	Number int64
	// ID is the entity's id as found, "" when it is null. Integer ids are
	// written in decimal.
	ID string
	// Vector is the embedding, of any length, nil when it is null. A null
	// element is NaN. A double that float32 cannot hold is an infinity.
	Vector []float32
	// Attributes are aligned with the reader's schema. A null and an empty list
	// are absent.
	Attributes []attribute.Value
	// Problems are the row's values that could not be represented, and are
	// absent from Attributes.
	Problems []Problem
}

// A Problem is why one value of a row, or a whole line, cannot be used.
type Problem struct {
	Kind   ProblemKind
	Detail string // names the place, the value and what is accepted
}

// A ProblemKind groups problems for counting. Its text is for people.
type ProblemKind string

// The kinds of problems.
const (
	TypeChange ProblemKind = "attribute type change"    // a value of another type than the attribute's first
	OutOfRange ProblemKind = "attribute out of range"   // an integer that int64 cannot hold, or a float that is infinite
	NotObject  ProblemKind = "not a JSON object"        // a JSON Lines line that is not one JSON object in UTF-8
	NoID       ProblemKind = "attributes without an id" // a JSON Lines line whose id is missing or neither a string nor an integer
	TwiceKey   ProblemKind = "repeated JSON key"        // a JSON Lines line that has a key twice
)

// A Reader yields the rows of a tower in the order of the input.
type Reader interface {
	// Schema returns the attributes that rows have.
	Schema() attribute.Schema
	// Rows returns the number of rows that the headers of all files promise.
	Rows() int64
	// Next returns the next row, and io.EOF after the last. The row and its
	// slices are valid until the next call; its strings, and the attribute
	// values, for good. After an error every call returns it again.
	Next() (*Row, error)
	// Notes returns what has been left out so far, or read in another way than
	// the input may have meant, as sentences for people.
	Notes() []string
	// Close closes the files. It may be called twice.
	Close() error
}

// Options say what to read.
type Options struct {
	// Path is a Parquet file, a folder of Parquet files, or an .npy, .fbin,
	// .u8bin or .i8bin file.
	Path string
	// IDs is the path of the id file, one id per line. It is required beside
	// formats that have no ids, and refused beside Parquet.
	IDs string
	// NumberRows makes a row's number its id in formats that have no ids, instead
	// of an id file.
	NumberRows bool
	// IDColumn names the Parquet column of ids.
	IDColumn string
	// EmbeddingColumn names the Parquet column of vectors. The default is
	// "embedding".
	EmbeddingColumn string
	// IgnoreColumns are Parquet columns that do not become attributes.
	IgnoreColumns []string
}

// DefaultEmbeddingColumn is the Parquet column of vectors unless named.
const DefaultEmbeddingColumn = "embedding"

// Open opens a tower for reading. It reads headers and footers, and the whole id
// file once, to report what does not fit before any row is used.
func Open(o Options) (Reader, error) {
	if o.EmbeddingColumn == "" {
		o.EmbeddingColumn = DefaultEmbeddingColumn
	}
	info, err := os.Stat(o.Path)
	if err != nil {
		return nil, fmt.Errorf("open tower: %w", err)
	}
	ext := strings.ToLower(filepath.Ext(o.Path))
	if info.IsDir() || ext == ".parquet" {
		if o.IDs != "" {
			return nil, fmt.Errorf("open %s: an id file (%s) is for formats without ids; Parquet has an id column", o.Path, o.IDs)
		}
		return openParquet(o, info.IsDir())
	}
	header, ok := rawHeaders[ext]
	if !ok {
		return nil, fmt.Errorf("open %s: extension %q is not known; accepted are a .parquet file, a folder of them, %s", o.Path, ext, strings.Join(rawExtensions(), ", "))
	}
	return openRaw(o, info, header)
}

func rawExtensions() []string {
	var names []string
	for ext := range rawHeaders {
		names = append(names, ext)
	}
	slices.Sort(names)
	return names
}

// tally counts what a reader leaves out, in the order of first sight.
type tally struct {
	order  []string
	counts map[string]int64
}

// add counts one occurrence of format, which has one %d for the count.
func (t *tally) add(format string) {
	if t.counts == nil {
		t.counts = make(map[string]int64)
	}
	if t.counts[format]++; t.counts[format] == 1 {
		t.order = append(t.order, format)
	}
}

func (t *tally) notes() []string {
	notes := make([]string, len(t.order))
	for i, format := range t.order {
		notes[i] = strings.Replace(format, "%d", fmt.Sprint(t.counts[format]), 1)
	}
	return notes
}

// guard turns a panic of a decoder on a damaged file into an error.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %v", errDamaged, r)
	}
}

var errDamaged = errors.New("damaged file")
