package input

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// The folders by which tables are told, of which the files are not the rows: files of
// earlier versions are among them, and rows that were deleted or changed.
const (
	deltaLog    = "_delta_log"
	hudiFolder  = ".hoodie"
	icebergMeta = "metadata"
)

// icebergFile reports whether a file of a folder of that name makes it Iceberg's.
func icebergFile(name string) bool {
	return strings.HasSuffix(name, ".metadata.json") || name == "version-hint.text"
}

// tableError refuses a table, unless err says that it is unknown whether it is one.
func tableError(dir, table string, err error) error {
	if err != nil || table == "" {
		return err
	}
	return fmt.Errorf("%s is a table of %s, whose files are not its rows: some are of earlier versions, or have rows that were deleted since; export it as plain Parquet, "+
		"such as with spark.read.format(%q).load(...).write.parquet(...), and name that folder", dir, table, strings.ToLower(strings.Fields(table)[0]))
}

// localTable returns what kind of table a folder of this machine is, empty for none.
func localTable(dir string) (string, error) {
	for name, table := range map[string]string{deltaLog: "Delta Lake", hudiFolder: "Hudi"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err == nil && info.IsDir() {
			return table, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, icebergMeta))
	if err != nil {
		if info, statErr := os.Stat(filepath.Join(dir, icebergMeta)); statErr != nil && errors.Is(statErr, fs.ErrNotExist) || statErr == nil && !info.IsDir() {
			err = nil
		}
		return "", err
	}
	for _, e := range entries {
		if icebergFile(e.Name()) {
			return "Iceberg", nil
		}
	}
	return "", nil
}

// keyTable returns what kind of table the key of an object tells of, and its folder.
func keyTable(key string) (dir, table string) {
	parts := strings.Split(key, "/")
	for i, part := range parts[:len(parts)-1] {
		switch {
		case part == deltaLog:
			table = "Delta Lake"
		case part == hudiFolder:
			table = "Hudi"
		case part == icebergMeta && i == len(parts)-2 && icebergFile(parts[i+1]):
			table = "Iceberg"
		default:
			continue
		}
		return strings.Join(parts[:i], "/"), table
	}
	return "", ""
}

// refuseLocalTables is refuseTables for a folder of this machine, as it is called and as
// it is where links lead.
func (s *search) refuseLocalTables(name string) error {
	called, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(called)
	if err != nil {
		return err
	}
	err = s.refuseTables(filepath.ToSlash(called), "", localTable)
	if err == nil && real != called {
		err = s.refuseTables(filepath.ToSlash(real), "", localTable)
	}
	return err
}

// refuseTables returns an error if a folder is that of a table, or of a part of one: a
// partition, or where Iceberg keeps files. An error names it below base.
func (s *search) refuseTables(dir, base string, kind func(dir string) (string, error)) error {
	for {
		table, err := kind(dir)
		if table != "" || err != nil {
			return tableError(base+dir, table, err)
		}
		name := path.Base(dir)
		if !strings.Contains(name, "=") && name != "data" {
			return nil
		}
		dir = path.Dir(dir)
	}
}
