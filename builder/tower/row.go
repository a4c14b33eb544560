package tower

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// A Row is one entity of a tower, as the file has it.
type Row struct {
	// Number is the row's position in the whole input, from 0.
	Number int64
	// File is the position of the row's file among those of the input.
	File int
	// ID is the entity's id as found, "" when it is null. Integer ids are
	// written in decimal.
	ID string
	// Vector is the embedding, of any length, nil when it is null. A null
	// element is NaN. A double that float32 cannot hold is an infinity.
	Vector []float32
	// Packed says that Vector was bytes, and is what they are as float32.
	Packed bool
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
	TypeChange ProblemKind = "attribute type change"    // a value of another type than the attribute's
	OutOfRange ProblemKind = "attribute out of range"   // an integer that int64 cannot hold, or a float that is infinite
	NotObject  ProblemKind = "not a JSON object"        // a JSON Lines line that is not one JSON object in UTF-8
	NoID       ProblemKind = "attributes without an id" // a JSON Lines line whose id is missing or neither a string nor an integer
	// BadEmbedding is of bytes or text that are not numbers.
	BadEmbedding ProblemKind = "malformed embedding"
	TwiceKey     ProblemKind = "repeated JSON key"     // a JSON Lines line that has a key twice
	Surrogate    ProblemKind = "half a surrogate pair" // a JSON string that is no Unicode text
)

// A Reader yields the rows of a tower in the order of the input.
type Reader interface {
	// Schema returns the attributes that rows have.
	Schema() attribute.Schema
	// Rows returns the number of rows that the headers of all files promise.
	Rows() int64
	// Run names the training run that wrote the rows, as their files or rows say; empty
	// if they do not. A run that rows say is known once the first one was read. See
	// [RunKey].
	Run() string
	// Next returns the next row, and io.EOF after the last. The row and its
	// slices are valid until the next call; its strings, and the attribute
	// values, for good. After an error every call returns it again.
	Next() (*Row, error)
	// Notes returns what has been left out so far, or read in another way than
	// the input may have meant, as sentences for people.
	Notes() []string
	// Unknown returns the columns that were to be ignored and are not in the input.
	Unknown() []string
	// Survey returns what all files amount to. The run is that of [Reader.Run] by then.
	Survey() *Survey
	// Close closes the files. It may be called twice.
	Close() error
}

// Options say what to read.
type Options struct {
	// Paths are Parquet files, or .npy, .fbin, .u8bin or .i8bin files, of which the first
	// bytes, or for the latter three the extensions, say which they are; folders of them,
	// globs, and URLs of those. See [input.Open].
	Paths []string
	// Files are the files of Paths, if they are open already; then the caller closes them.
	Files *input.Set
	// IDs are the paths of the id files: one id per line, or an .npy array of strings or
	// integers. They are required beside formats that have no ids, and refused beside
	// Parquet.
	IDs []string
	// IDFiles are the files of IDs, if they are open already; then the caller closes them.
	IDFiles *input.Set
	// NumberRows makes a row's number its id in formats that have no ids, instead
	// of an id file.
	NumberRows bool
	// IDColumn names the Parquet column of ids. A name may be a path into structs, with
	// dots between the names, here and below.
	IDColumn string
	// EmbeddingColumn names the Parquet column of vectors, or with one * the columns of
	// their components, such as emb_*, in the order of their numbers. The default is
	// "embedding"; if there is no such column, embedding_0, embedding_1 and so on are the
	// components.
	EmbeddingColumn string
	// AttributeColumns are the Parquet columns that become attributes; none named is all
	// that are not ids, embeddings or IgnoreColumns.
	AttributeColumns []string
	// IgnoreColumns are Parquet columns that do not become attributes.
	IgnoreColumns []string
	// RenameColumns gives attributes another name than their Parquet columns, or keys of
	// PartitionAttributes, have.
	RenameColumns map[string]string
	// PartitionAttributes are keys of Hive partitions (dt in dt=2026-11-20/) of the files'
	// paths, which become attributes. Every file must have them.
	PartitionAttributes []string
	// AttributeTypes are the types of attributes, by name, that are other than those the
	// input says. Names that the input does not have are ignored.
	AttributeTypes map[string]attribute.Type
	// Part says that Files are not the whole input; nil if they are.
	Part *Part
}

// RunKey is what a trainer calls the training run that both towers are of: a key of the
// metadata of Parquet files, or a column whose value is the same in every row. Any text of
// 1 to [manifest.MaxRun] bytes tells it from other runs. The column is no attribute.
const RunKey = "tandem_run"

// DefaultEmbeddingColumn is the Parquet column of vectors unless named.
const DefaultEmbeddingColumn = "embedding"

// Open opens a tower for reading. It reads headers and footers, and the whole id
// files once, to report what does not fit before any row is used. Files that are not open
// it opens, which fails if ctx ends, and its reader closes them.
func Open(ctx context.Context, o Options) (_ Reader, err error) {
	if o.EmbeddingColumn == "" {
		o.EmbeddingColumn = DefaultEmbeddingColumn
	}
	var own sets
	defer func() {
		if err != nil {
			err = errors.Join(err, own.close())
		}
	}()
	if o.Files == nil {
		if o.Files, err = own.open(ctx, o.Paths, AcceptRows, input.Options{Partitions: len(o.PartitionAttributes) > 0}); err != nil {
			return nil, err
		}
	}
	files := o.Files.Files()
	format, err := oneFormat(files)
	if err != nil {
		return nil, err
	}
	ids := len(o.IDs) > 0 || o.IDFiles != nil
	switch {
	case ids && format == input.Parquet:
		return nil, fmt.Errorf("open %s: an id file (%s) is for formats without ids; Parquet has an id column", files[0].Name(), o.ids())
	case ids && o.NumberRows:
		return nil, fmt.Errorf("open %s: an id file (%s) was given, and row numbers asked for as ids: want one of them", files[0].Name(), o.ids())
	case ids && o.IDFiles == nil:
		if o.IDFiles, err = own.open(ctx, o.IDs, AcceptIDs, input.Options{}); err != nil {
			return nil, err
		}
	}
	if err := o.Part.check(format, len(files)); err != nil {
		return nil, fmt.Errorf("open %s: %w", files[0].Name(), err)
	}
	var r Reader
	if format == input.Parquet {
		r, err = openParquet(o, files)
	} else {
		r, err = openRaw(o, files)
	}
	if err != nil {
		return nil, err
	}
	if o.Part != nil {
		r, err = o.Part.extend(r, o)
	} else {
		r, err = extend(r, o)
	}
	if err != nil {
		return nil, err
	}
	notes := slices.Clone(o.Files.Notes())
	if o.IDFiles != nil {
		notes = append(notes, o.IDFiles.Notes()...)
	}
	return &opened{r, own, notes}, nil
}

// ids names the first id file.
func (o *Options) ids() string {
	if o.IDFiles != nil {
		return o.IDFiles.Files()[0].Name()
	}
	return o.IDs[0]
}

// oneFormat returns the format of files, which must be the same. All that are not Parquet
// are rows of plain numbers.
func oneFormat(files []input.File) (input.Format, error) {
	var first input.Format
	for i, f := range files {
		head, err := headOf(f)
		if err != nil {
			return "", err
		}
		format := input.FormatOf(head)
		if format != input.Parquet {
			format = input.Npy
		}
		if i == 0 {
			first = format
		} else if format != first {
			parquet, other := f, files[0]
			if first == input.Parquet {
				parquet, other = other, parquet
			}
			return "", fmt.Errorf("open %s: it is Parquet, and %s is not: all files of a tower must be of one format", parquet.Name(), other.Name())
		}
	}
	return first, nil
}

// sets are inputs that a reader has opened itself.
type sets []*input.Set

func (s *sets) open(ctx context.Context, paths []string, accept input.Accept, o input.Options) (*input.Set, error) {
	set, err := input.Open(ctx, paths, accept, o)
	if err == nil {
		*s = append(*s, set)
	}
	return set, err
}

func (s *sets) close() error {
	var errs []error
	for _, set := range *s {
		errs = append(errs, set.Close())
	}
	*s = nil
	return errors.Join(errs...)
}

// opened is a reader with what its input says of its files.
type opened struct {
	Reader
	own   sets
	notes []string
}

func (o *opened) Notes() []string { return append(slices.Clone(o.notes), o.Reader.Notes()...) }
func (o *opened) Close() error    { return errors.Join(o.Reader.Close(), o.own.close()) }

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
