package tower

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// A Survey is what all files of a tower amount to: who has it can read some of them alone
// and finds in each row what it has in the whole input.
type Survey struct {
	// Format is [input.Parquet], or [input.Npy] for all formats of plain numbers.
	Format input.Format `json:"format"`
	// Rows are the numbers of rows of the files, in their order.
	Rows []int64 `json:"rows"`
	// Columns are the attributes that the files have, without partition keys and before any
	// type is told; Nulls are those that have no value and so no type.
	Columns []attribute.Field `json:"columns,omitempty"`
	Nulls   []string          `json:"nulls,omitempty"`
	// Partitions are the keys of partitions that become attributes.
	Partitions []Partition `json:"partitions,omitempty"`
	// Run is the training run; Said is what said it first.
	Run  string `json:"run,omitempty"`
	Said string `json:"said,omitempty"`
}

// Partition is a key of Hive partitions that becomes an attribute.
type Partition struct {
	attribute.Field
	Texts []string `json:"texts"` // of each file
}

// Part says which part of an input files are.
type Part struct {
	// Survey is that of the whole input.
	Survey *Survey
	// First is the position of the first file, which the others follow.
	First int
}

// Total returns the number of rows of all files.
func (s *Survey) Total() (n int64) {
	for _, rows := range s.Rows {
		n += rows
	}
	return n
}

// Starts returns the numbers of the first row of each file.
func (s *Survey) Starts() []int64 {
	starts := make([]int64, len(s.Rows))
	for i := range s.Rows[:max(len(s.Rows)-1, 0)] {
		starts[i+1] = starts[i] + s.Rows[i]
	}
	return starts
}

// check returns an error unless files of a format can be the part.
func (p *Part) check(format input.Format, files int) error {
	switch {
	case p == nil:
	case format != p.Survey.Format:
		return fmt.Errorf("its format is not that of the input, %s", p.Survey.Format)
	case p.First < 0 || p.First+files > len(p.Survey.Rows):
		return fmt.Errorf("files %d to %d of an input of %d", p.First, p.First+files-1, len(p.Survey.Rows))
	case format != input.Parquet && files != len(p.Survey.Rows):
		return fmt.Errorf("%d of %d files; files of plain numbers are read together", files, len(p.Survey.Rows))
	}
	return nil
}

// extend is [extend] for a part of an input.
func (p *Part) extend(r Reader, o Options) (Reader, error) {
	x := &extended{Reader: r}
	for _, of := range p.Survey.Partitions {
		if err := x.addField(of.Field, of.Texts, of.Name, func(i int) string { return fmt.Sprintf("file %d of the input", i) }); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		x.surveyed = append(x.surveyed, of)
	}
	return x.finish(o)
}

// surveyPart takes over what is known of the whole input, and looks whether the footers of
// a part fit.
func (r *parquetReader) surveyPart() error {
	survey := r.options.Part.Survey
	r.run = run{name: survey.Run, said: survey.Said}
	var err error
	if r.schema, err = attribute.NewSchema(survey.Columns); err != nil {
		return fmt.Errorf("open %s: %w", r.files[0].Name(), err)
	}
	r.nulls = survey.Nulls
	for i, f := range r.files {
		pf, err := openParquetFile(f)
		if err != nil {
			return err
		}
		s, err := selectColumns(pf, &r.options)
		if err != nil {
			return fmt.Errorf("open %s: %w", f.Name(), err)
		}
		if part := r.options.Part; pf.Rows() != survey.Rows[part.First+i] {
			return fmt.Errorf("open %s: it has %d rows, and had %d before", f.Name(), pf.Rows(), survey.Rows[part.First+i])
		}
		r.rows += pf.Rows()
		for _, note := range s.notes {
			if !slices.Contains(r.notes, note) {
				r.notes = append(r.notes, note)
			}
		}
		for k, a := range s.attributes {
			field, ok := r.schema.Lookup(a.name)
			switch {
			case a.null() && (ok || slices.Contains(r.nulls, a.name)):
			case !ok:
				return fmt.Errorf("open %s: column %s is not one of the input, or had no value there", f.Name(), s.columns[k])
			case a.attribute() != r.schema.Field(field).Type && !(a.float() && r.schema.Field(field).Type == attribute.Float):
				return fmt.Errorf("open %s: column %s is %s, and in the whole input it is of type %v", f.Name(), s.columns[k], a.text, r.schema.Field(field).Type)
			}
		}
		for _, field := range r.schema.Fields() {
			if !slices.ContainsFunc(s.attributes, func(a shape) bool { return a.name == field.Name }) {
				return fmt.Errorf("open %s: attribute %s of the input is missing", f.Name(), field.Name)
			}
		}
	}
	slices.Sort(r.notes)
	return nil
}
