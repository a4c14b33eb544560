package tower

import (
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// run is the training run that wrote the rows of a tower; see [RunKey].
type run struct {
	name   string // "" as long as nothing says it
	said   string // what said it first
	column bool   // rows say it
	file   string // the first
}

// ofFile takes note of what a file says. All files must say the same, or none anything.
func (r *run) ofFile(f *parquetfile.File, column bool, file string, first bool) error {
	name, is := f.Value(RunKey)
	if is {
		if err := manifest.CheckRun(name); err != nil {
			return fmt.Errorf("open %s: metadata %s: %w", file, RunKey, err)
		}
	}
	if first {
		*r = run{name: name, said: "the metadata of " + file, column: column, file: file}
		return nil
	}
	const want = "all files of a tower must be of one training run"
	switch {
	case name != r.name && is && r.name != "":
		return fmt.Errorf("open %s: metadata %s is %.80q, and %.80q in %s: %s", file, RunKey, name, r.name, r.file, want)
	case name != r.name && is:
		return fmt.Errorf("open %s: metadata %s is %.80q, and %s has none: %s", file, RunKey, name, r.file, want)
	case name != r.name:
		return fmt.Errorf("open %s: there is no metadata %s, and in %s it is %.80q: %s", file, RunKey, r.file, r.name, want)
	case column != r.column:
		return fmt.Errorf("open %s: either it or %s has a column %s, and the other has none: %s", file, r.file, RunKey, want)
	}
	return nil
}

// ofRow takes note of what a row says.
func (r *run) ofRow(name string) error {
	switch {
	case name == r.name && name != "":
		return nil
	case name == "":
		return errors.New("it is null or empty, want the name of the training run")
	case r.name != "":
		return fmt.Errorf("it is %.80q, and %.80q in %s: all rows of a tower must be of one training run", name, r.name, r.said)
	}
	if err := manifest.CheckRun(name); err != nil {
		return err
	}
	r.name, r.said = name, "rows before"
	return nil
}
