package tower

import (
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// readParquetPairs calls each with every interaction of a file.
func readParquetPairs(o InteractionOptions, f input.File, each func(user, app string) error) (err error) {
	pf, err := parquetfile.Open(f, f.Size())
	if err != nil {
		return err
	}
	root := schemaTree(pf.Schema())
	var columns [2]*column
	for i, name := range []string{o.UserColumn, o.AppColumn} {
		n := root.find(name)
		if n == nil {
			var names []string
			for _, child := range root.children {
				names = append(names, child.Name())
			}
			return fmt.Errorf("no column is called %s; the columns are %s", name, listed(names))
		}
		s := n.shape()
		if !s.id() {
			return fmt.Errorf("column %s is %s, want %s", name, s.text, supportedIDs)
		}
		columns[i] = &column{shape: s, name: name}
	}
	defer func() { err = errors.Join(err, columns[0].close(), columns[1].close()) }()
	for group := range pf.Groups() {
		if err := readPairs(pf, group, columns, each); err != nil {
			return err
		}
	}
	return nil
}

// readPairs reads one row group.
func readPairs(f *parquetfile.File, group int, columns [2]*column, each func(user, app string) error) error {
	var ids [2]string
	for _, c := range columns {
		if err := c.open(f, group); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	for range f.GroupRows(group) {
		for i, c := range columns {
			var err error
			if ids[i], err = c.id(); err != nil {
				return fmt.Errorf("column %s: %w", c.name, err)
			}
		}
		if err := each(ids[0], ids[1]); err != nil {
			return err
		}
	}
	for _, c := range columns {
		if err := c.finish(); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return nil
}
