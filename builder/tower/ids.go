package tower

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/tandem-ann/tandem/builder/input"
)

// idReader reads the ids of rows from files of their own, one after the other.
type idReader struct {
	files []idFile
	notes []string
	file  int // being read
	ids   ids // nil before it is opened
}

// ids are the ids of one file. An error names what is wrong and where.
type ids interface {
	next() (string, error) // io.EOF after the last
	close() error
}

// idFile is a file of ids, of which is known how it is to be read.
type idFile struct {
	input.File
	npy    *npyIDs // nil for text
	quoted bool    // as CSV quotes
	header bool    // the first line is not an id
	count  int64
}

// openIDs reads id files once, and returns a reader of them. Rows are the files that the
// ids are of, with as many rows as counts say. A first line that is the name of the column
// of ids is taken for a header if that makes the number right.
func openIDs(files []input.File, column string, rows []input.File, counts []int64) (*idReader, error) {
	r := &idReader{}
	if note := misordered(files); note != "" {
		r.notes = append(r.notes, note)
	}
	var ids, want int64
	for _, n := range counts {
		want += n
	}
	for i, f := range files {
		survey, err := surveyIDs(f, column)
		if err != nil {
			return nil, err
		}
		if len(files) == len(rows) {
			if survey.header = survey.header && survey.count == counts[i]+1; survey.header {
				survey.count--
			}
			if survey.count != counts[i] {
				return nil, fmt.Errorf("open %s: %d rows, and %d ids in %s: want one id for each row", rows[i].Name(), counts[i], survey.count, f.Name())
			}
		} else if survey.header {
			survey.count--
		}
		if survey.header {
			r.notes = append(r.notes, fmt.Sprintf("%s: its first line is %s and is taken for a header", f.Name(), column))
		}
		ids += survey.count
		r.files = append(r.files, survey)
	}
	if ids != want {
		return nil, fmt.Errorf("open %s: %d rows in %d files, and %d ids in %d, the first %s: want one id for each row",
			rows[0].Name(), want, len(rows), ids, len(files), files[0].Name())
	}
	return r, nil
}

// next returns the next id.
func (r *idReader) next() (string, error) {
	for {
		if r.file == len(r.files) {
			return "", io.ErrUnexpectedEOF
		}
		f := &r.files[r.file]
		if r.ids == nil {
			var err error
			if r.ids, err = f.open(); err != nil {
				return "", err
			}
		}
		id, err := r.ids.next()
		switch {
		case errors.Is(err, io.EOF):
			if err := r.close(); err != nil {
				return "", err
			}
			r.file++
		case err != nil:
			return "", fmt.Errorf("read %s: %w", f.Name(), err)
		default:
			return id, nil
		}
	}
}

func (r *idReader) close() error {
	if r.ids == nil {
		return nil
	}
	ids := r.ids
	r.ids = nil
	return ids.close()
}

// open returns the ids of the file.
func (f *idFile) open() (ids, error) {
	if f.npy != nil {
		return f.npy.reader(f.File), nil
	}
	text, err := openText(f.File)
	if err != nil {
		return nil, err
	}
	t := &textIDs{text: text, lines: newLineReader(text, maxIDLine), quoted: f.quoted}
	if f.header {
		if _, err := t.next(); err != nil {
			return nil, errors.Join(fmt.Errorf("read %s: %w", f.Name(), err), t.close())
		}
	}
	return t, nil
}

// maxIDLine bounds a line of an id file. Ids are judged by the caller: this is
// only so that a file that is not one of lines takes no memory.
const maxIDLine = 64 << 10

// textIDs are ids of which each is a line.
type textIDs struct {
	text   io.ReadCloser
	lines  *lineReader
	quoted bool
}

func (t *textIDs) next() (string, error) {
	line, err := t.lines.next()
	if err != nil {
		return "", err
	}
	if t.quoted {
		line, _ = unquote(line)
	}
	return string(line), nil
}

func (t *textIDs) close() error { return t.text.Close() }

// unquote takes off the quotes of CSV, if a line has them.
func unquote(line []byte) ([]byte, bool) {
	if len(line) < 2 || line[0] != '"' || line[len(line)-1] != '"' {
		return line, false
	}
	inner := line[1 : len(line)-1]
	bare := bytes.ReplaceAll(inner, []byte(`""`), nil)
	if bytes.IndexByte(bare, '"') >= 0 {
		return line, false
	}
	return bytes.ReplaceAll(inner, []byte(`""`), []byte(`"`)), true
}

// surveyIDs reads an id file and finds out how it is to be read. What may be more than one
// id per line is an error that says what to do.
func surveyIDs(f input.File, column string) (idFile, error) {
	s := idFile{File: f}
	head, err := headOf(f)
	if err != nil {
		return s, err
	}
	if input.FormatOf(head) == input.Npy {
		s.npy, err = openNpyIDs(f)
		if err != nil {
			return s, fmt.Errorf("open %s: %w", f.Name(), err)
		}
		s.count = s.npy.count
		return s, nil
	}
	text, err := openText(f)
	if err != nil {
		return s, err
	}
	defer text.Close() // it was read
	if err := s.surveyText(text, column); err != nil {
		return s, fmt.Errorf("open %s: %w", f.Name(), err)
	}
	return s, nil
}

// separators are what divides columns of text, and may be part of ids.
var separators = [...]struct {
	char byte
	name string
}{{',', "comma"}, {';', "semicolon"}, {'|', "bar"}}

// checkIDLine returns an error if a line, by its number, is of another format than ids.
func checkIDLine(line []byte, number int64) error {
	text := bytes.TrimSpace(line)
	_, quoted := unquote(line)
	what := ""
	switch {
	case bytes.IndexByte(line, '\t') >= 0:
		return fmt.Errorf("line %d, %.80q, has a tab: want one id per line, and no other column", number, line)
	case len(text) > 0 && text[0] == '{' && validObject(text):
		what = "is a JSON object"
	case number == 1 && len(text) > 0 && text[0] == '[' && (len(text) == 1 || text[1] == '"' || json.Valid(text)):
		what = "begins a JSON array"
	case len(line) > 0 && line[0] == '"' && !quoted:
		what = "begins with a quote that does not end it"
	default:
		return nil
	}
	return fmt.Errorf("line %d, %.80q, %s: want one id per line, as it is, or quoted as CSV has it", number, line, what)
}

// surveyText counts lines, and sees whether they are quoted or have several fields.
//
// Writers of CSV quote all fields, or those that have a comma or a quote in them. So lines
// with quotes are of that kind if every line that has none also needs none; otherwise
// quotes are part of ids. A comma, semicolon or bar without quotes may be part of an id; if
// all lines have one, they are taken for rows of several columns.
func (f *idFile) surveyText(text io.Reader, column string) error {
	var quoted, bare int64
	var separated [len(separators)]int64 // lines that have one and no quotes
	var firstBare, firstQuoted int64     // lines
	lines := newLineReader(text, maxIDLine)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		f.count++
		if err := checkIDLine(line, f.count); err != nil {
			return err
		}
		inner, isQuoted := unquote(line)
		if f.count == 1 {
			f.header = column != "" && string(inner) == column
		}
		switch {
		case isQuoted:
			if quoted++; quoted == 1 {
				firstQuoted = f.count
			}
		default:
			if bytes.ContainsAny(line, `,"`) {
				if bare++; bare == 1 {
					firstBare = f.count
				}
			}
			for i, s := range separators {
				if bytes.IndexByte(line, s.char) >= 0 {
					separated[i]++
				}
			}
		}
	}
	if quoted > 0 && bare > 0 {
		return fmt.Errorf("line %d is in quotes, and line %d has a comma or a quote and is not: want one id per line, as it is, or quoted as CSV has it", firstQuoted, firstBare)
	}
	for i, s := range separators {
		if separated[i] > 0 && separated[i] == f.count {
			return fmt.Errorf("every line has a %s, as rows of several columns: want one id per line; an id that has a %s is quoted (\"a%cb\")", s.name, s.name, s.char)
		}
	}
	f.quoted = quoted > 0
	return nil
}
