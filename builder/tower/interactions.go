package tower

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// InteractionOptions say which users used which apps.
type InteractionOptions struct {
	// Path is a Parquet file, or a CSV file whose first line names its columns. Other
	// columns are not read.
	Path string
	// UserColumn and AppColumn name the columns of ids, strings or integers.
	UserColumn, AppColumn string
}

// InteractionsPathError says that a path cannot be one of interactions: there is no such
// file, or its extension is not known.
type InteractionsPathError struct{ Err error }

func (e InteractionsPathError) Error() string { return e.Err.Error() }
func (e InteractionsPathError) Unwrap() error { return e.Err }

// ReadInteractions calls each with every interaction, in the order of the file. The
// strings are good for ever. An error of each ends the reading and is returned.
func ReadInteractions(o InteractionOptions, each func(user, app string) error) error {
	var err error
	switch ext := strings.ToLower(filepath.Ext(o.Path)); ext {
	case ".parquet":
		err = readParquetPairs(o, each)
	case ".csv":
		err = readCSVPairs(o, each)
	default:
		err = InteractionsPathError{fmt.Errorf("extension %q is not known; accepted are .parquet and .csv", ext)}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = InteractionsPathError{err}
	}
	if err != nil {
		return fmt.Errorf("read interactions %s: %w", o.Path, err)
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

func readCSVPairs(o InteractionOptions, each func(user, app string) error) (err error) {
	f, err := os.Open(o.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := csv.NewReader(f)
	r.ReuseRecord = true
	names, err := r.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty: the first line must name the columns")
	}
	if err != nil {
		return err
	}
	names = slices.Clone(names)
	names[0] = strings.TrimPrefix(names[0], "\ufeff")
	user, app, err := o.columnsOf(names)
	if err != nil {
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

func readParquetPairs(o InteractionOptions, each func(user, app string) error) (err error) {
	f, pf, err := openParquetFile(o.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	all, err := shapes(pf.Metadata().Schema)
	if err != nil {
		return err
	}
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = s.name
	}
	user, app, err := o.columnsOf(names)
	if err != nil {
		return err
	}
	for _, i := range []int{user, app} {
		if t := all[i].attribute(); t != attribute.Keyword && t != attribute.Int {
			return fmt.Errorf("column %s is %s, want strings or integers", all[i].name, all[i].text)
		}
	}
	columns := [2]*column{{shape: all[user]}, {shape: all[app]}}
	defer func() { err = errors.Join(err, columns[0].close(), columns[1].close()) }()
	for _, group := range pf.RowGroups() {
		if err := readPairs(group, columns, each); err != nil {
			return err
		}
	}
	return nil
}

// readPairs reads one row group.
func readPairs(group parquet.RowGroup, columns [2]*column, each func(user, app string) error) error {
	if err := openPairs(group, columns); err != nil {
		return err
	}
	for range group.NumRows() {
		user, app, err := nextPair(columns)
		if err != nil {
			return err
		}
		if err := each(user, app); err != nil {
			return err
		}
	}
	return nil
}

func openPairs(group parquet.RowGroup, columns [2]*column) (err error) {
	defer guard(&err)
	chunks := group.ColumnChunks()
	for _, c := range columns {
		if err := c.open(chunks[c.leaf]); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return nil
}

func nextPair(columns [2]*column) (user, app string, err error) {
	defer guard(&err)
	for i, id := range []*string{&user, &app} {
		if *id, err = columns[i].id(); err != nil {
			return "", "", fmt.Errorf("column %s: %w", columns[i].name, err)
		}
	}
	return user, app, nil
}
