package wording

import (
	"bytes"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// Right aligns the cells of a table to the right.
const Right = tabwriter.AlignRight

// gap is how many spaces are between two columns of a table.
const gap = 2

// Columns returns how many characters a line that is written to w may have: what its own method
// Columns says, or else 0, for any number.
func Columns(w io.Writer) int {
	if s, ok := w.(interface{ Columns() int }); ok {
		return s.Columns()
	}
	return 0
}

// Page is a text that is put together in memory, in lines as long as those of a writer.
type Page struct {
	strings.Builder
	columns int
}

// NewPage returns an empty page, in lines as w has them. It writes nothing to w.
func NewPage(w io.Writer) *Page { return &Page{columns: Columns(w)} }

// Columns returns how many characters a line may have, 0 for any number.
func (p *Page) Columns() int { return p.columns }

// Table writes lines of cells as aligned columns. Cells are separated by tabs; a line without a
// tab ends the columns above it, and stays as it is.
//
// Where lines may have so many characters only ([Columns]), columns that are too wide together
// are made narrower: cells are continued in the line below, at spaces. Where words alone are too
// wide, each line below the first becomes lines of its own, one for each cell, which the first
// line names. No character is lost, and no word is cut.
type Table struct {
	w       io.Writer
	align   uint
	columns int
	text    bytes.Buffer
}

// NewTable returns a table that is written to w by [Table.Flush], aligned to the left, or as a
// flag says ([Right]).
func NewTable(w io.Writer, align ...uint) *Table {
	t := &Table{w: w, columns: Columns(w)}
	for _, a := range align {
		t.align |= a
	}
	return t
}

// Write takes text of the table. It does not fail.
func (t *Table) Write(text []byte) (int, error) { return t.text.Write(text) }

// Flush writes what was taken, and forgets it.
func (t *Table) Flush() error {
	defer t.text.Reset()
	lines := strings.SplitAfter(t.text.String(), "\n")
	if t.columns == 0 {
		return t.aligned(t.w, lines)
	}
	var all bytes.Buffer
	for len(lines) > 0 {
		n := 1
		if isRow := strings.Contains(lines[0], "\t"); isRow {
			for n < len(lines) && strings.Contains(lines[n], "\t") {
				n++
			}
		}
		if err := t.block(&all, lines[:n]); err != nil {
			return err
		}
		lines = lines[n:]
	}
	_, err := t.w.Write(all.Bytes())
	return err
}

// aligned writes lines as wide as they are.
func (t *Table) aligned(w io.Writer, lines []string) error {
	tw := tabwriter.NewWriter(w, 0, 0, gap, ' ', t.align)
	for _, line := range lines {
		if _, err := io.WriteString(tw, line); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// block writes lines that have columns in common, or a single one that has none.
func (t *Table) block(w *bytes.Buffer, lines []string) error {
	var plain bytes.Buffer
	if err := t.aligned(&plain, lines); err != nil {
		return err
	}
	fits := !strings.Contains(lines[0], "\t")
	if !fits {
		fits = true
		for line := range strings.Lines(plain.String()) {
			fits = fits && utf8.RuneCountInString(strings.TrimRight(line, " \n")) <= t.columns
		}
	}
	rows := make([][]string, 0, len(lines))
	count := 0
	for _, line := range lines {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		rows = append(rows, cells)
		if count = max(count, len(cells)-1); cells[len(cells)-1] != "" {
			count = max(count, len(cells))
		}
	}
	widths := t.narrowed(rows, count)
	switch {
	case fits, widths == nil && (count < 3 || len(rows) < 2):
		w.Write(plain.Bytes())
	case widths == nil:
		records(w, rows)
	default:
		for _, cells := range rows {
			t.row(w, cells, widths)
		}
	}
	return nil
}

// narrowed returns how wide columns are that fit into a line, nil if their words do not. The
// widest are made narrower until they do.
func (t *Table) narrowed(rows [][]string, count int) []int {
	full, least := make([]int, count), make([]int, count)
	for _, cells := range rows {
		for i, cell := range cells[:min(len(cells), count)] { // beyond it is nothing
			full[i] = max(full[i], utf8.RuneCountInString(cell))
			for word := range strings.FieldsSeq(cell) {
				least[i] = max(least[i], utf8.RuneCountInString(word))
			}
		}
	}
	widest := 0
	for _, n := range full {
		widest = max(widest, n)
	}
	for most := widest; most >= 0; most-- {
		widths, all := make([]int, count), gap*(count-1)
		floor := true // no column can be narrower
		for i := range widths {
			widths[i] = max(least[i], min(full[i], most))
			floor = floor && widths[i] == least[i]
			all += widths[i]
		}
		if all <= t.columns {
			return widths
		}
		if floor {
			break
		}
	}
	return nil
}

// row writes the cells of a row, which go on in the lines below where they are too wide.
func (t *Table) row(w *bytes.Buffer, cells []string, widths []int) {
	open := len(cells) - 1 // no tab ends it, so that it is aligned to the left
	if len(cells) > 1 && cells[open] == "" {
		cells, open = cells[:open], -1
	}
	parts, height := make([][]string, len(cells)), 1
	for i, cell := range cells {
		parts[i] = Wrap(cell, widths[i])
		height = max(height, len(parts[i]))
	}
	for n := range height {
		line := ""
		for i, part := range parts {
			text := ""
			if n < len(part) {
				text = part[n]
			}
			room := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if i > 0 {
				line += strings.Repeat(" ", gap)
			}
			if t.align&Right != 0 && i != open {
				line += room + text
			} else {
				line += text + room
			}
		}
		w.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// records writes a line for each cell, with its name, which the first row has.
func records(w *bytes.Buffer, rows [][]string) {
	names, width := rows[0], 0
	for _, name := range names {
		width = max(width, utf8.RuneCountInString(strings.TrimSpace(name)))
	}
	for n, cells := range rows[1:] {
		if n > 0 {
			w.WriteByte('\n')
		}
		for i := range max(len(names), len(cells)) {
			if i == max(len(names), len(cells))-1 && i > 0 && (i >= len(names) || names[i] == "") && (i >= len(cells) || cells[i] == "") {
				break // behind the last tab
			}
			name, cell := "", ""
			if i < len(names) {
				name = strings.TrimSpace(names[i])
			}
			if i < len(cells) {
				cell = strings.TrimSpace(cells[i])
			}
			line := name + strings.Repeat(" ", width-utf8.RuneCountInString(name)+gap) + cell
			w.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
}

// Wrap divides a text into lines of at most so many characters, at spaces; a word that is longer
// is a line of its own. A text that fits is one line, as it is.
func Wrap(text string, width int) (lines []string) {
	if utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	line, length := "", 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if length > 0 && length+1+n > width {
			lines, line, length = append(lines, line), "", 0
		}
		if length > 0 {
			line, length = line+" ", length+1
		}
		line, length = line+word, length+n
	}
	return append(lines, line)
}
