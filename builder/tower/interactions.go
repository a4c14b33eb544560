package tower

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/input"
)

// InteractionOptions say which users used which apps.
type InteractionOptions struct {
	// Paths are Parquet files, or CSV files, which may be compressed by gzip or zstd and of
	// which the first lines name the columns; folders of them, globs, and URLs. See
	// [input.Open]. Other columns are not read.
	Paths []string
	// Files are the files of Paths, if they are open already; then the caller closes them.
	Files *input.Set
	// UserColumn and AppColumn name the columns of ids, strings or integers.
	UserColumn, AppColumn string
}

// InteractionsPathError says that a path cannot be one of interactions: there is no such
// file, or it is of another sort.
type InteractionsPathError struct{ Err error }

func (e InteractionsPathError) Error() string { return e.Err.Error() }
func (e InteractionsPathError) Unwrap() error { return e.Err }

// InteractionsError says that what a file of interactions has cannot be read, or why its reading ended
// otherwise: its cause may be of a disk or a store, too.
type InteractionsError struct{ Err error }

func (e *InteractionsError) Error() string { return e.Err.Error() }
func (e *InteractionsError) Unwrap() error { return e.Err }

// OpenInteractions opens the files of Paths. The caller closes them.
func OpenInteractions(ctx context.Context, o InteractionOptions, how input.Options) (*input.Set, error) {
	set, err := input.Open(ctx, o.Paths, acceptInteractions(o), how)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, input.ErrForeign) {
		err = InteractionsPathError{err}
	}
	if err != nil {
		return nil, fmt.Errorf("read interactions: %w", err)
	}
	return set, nil
}

// ReadInteractions calls each with every interaction, in the order of the files. The
// strings are good for ever. An error of each ends the reading and is returned. What is wrong with
// a file is an [*InteractionsError].
func ReadInteractions(ctx context.Context, o InteractionOptions, each func(user, app string) error) (err error) {
	if o.Files == nil {
		if o.Files, err = OpenInteractions(ctx, o, input.Options{}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Files.Close()) }()
	}
	for _, f := range o.Files.Files() {
		head, err := headOf(f)
		if err != nil {
			return &InteractionsError{err}
		}
		read := readCSVPairs
		if input.FormatOf(head) == input.Parquet {
			read = readParquetPairs
		}
		if err := read(o, f, each); err != nil {
			return &InteractionsError{fmt.Errorf("read interactions %s: %w", f.Name(), err)}
		}
	}
	return nil
}

// columnsOf returns the positions of the two columns.
func (o *InteractionOptions) columnsOf(names []string) (user, app int, err error) {
	user, app = slices.Index(names, o.UserColumn), slices.Index(names, o.AppColumn)
	for _, c := range []struct {
		at   int
		name string
	}{{user, o.UserColumn}, {app, o.AppColumn}} {
		if c.at < 0 {
			return 0, 0, fmt.Errorf("no column is called %s; the columns are %.500s", c.name, strings.Join(names, ", "))
		}
	}
	return user, app, nil
}

func readCSVPairs(o InteractionOptions, f input.File, each func(user, app string) error) (err error) {
	text, err := openText(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, text.Close()) }()
	br := bufio.NewReaderSize(text, maxCSVHeader)
	first, err := br.Peek(maxCSVHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if len(first) == 0 {
		return errors.New("it is empty: the first line must name the columns")
	}
	delimiter, user, app, err := o.header(first)
	if err != nil {
		return err
	}
	r := csv.NewReader(br)
	r.Comma, r.ReuseRecord = delimiter, true
	if _, err := r.Read(); err != nil { // the names
		return err
	}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(record[user], record[app]); err != nil {
			return err
		}
	}
}

// maxCSVHeader is the longest first line of CSV, in bytes.
const maxCSVHeader = 64 << 10
