package tower

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/tandem-ann/tandem/builder/input"
)

// bigANNElements are the elements of formats that only a file's extension tells.
var bigANNElements = map[string]element{".fbin": float32s, ".u8bin": uint8s, ".i8bin": int8s}

// extension returns the extension of a name, in lower case.
func extension(name string) string { return strings.ToLower(path.Ext(name)) }

// hasExtension reports whether a name has an extension, before or after others such as
// that of a compression.
func hasExtension(name string, extensions ...string) bool {
	base := strings.ToLower(path.Base(name))
	return slices.ContainsFunc(extensions, func(e string) bool { return strings.HasSuffix(base, e) || strings.Contains(base, e+".") })
}

// foreign says that a file is not one that is looked for.
func foreign(head []byte, want string) error {
	format := input.FormatOf(head)
	text := "it is " + string(format)
	if len(head) == 0 {
		text = "it is empty"
	} else if format == input.Unknown || format == input.Text {
		text += fmt.Sprintf(", and begins with %.16q", head)
	}
	return fmt.Errorf("%w: %s; accepted are %s", input.ErrForeign, text, want)
}

// AcceptRows is the [input.Accept] of towers: Parquet, .npy, and the formats that only an
// extension tells. A file that is named as one of them, or has rows of a kind that is not
// read, is not left out of a folder but an error.
func AcceptRows(name string, head []byte) error {
	want := "Parquet and .npy, told by their first bytes, and " + strings.Join(slices.Sorted(maps.Keys(bigANNElements)), ", ")
	if _, ok := bigANNElements[extension(name)]; ok {
		return nil
	}
	switch format := input.FormatOf(head); {
	case format == input.Parquet, format == input.Npy:
		return nil
	case format == input.Avro, format == input.ORC, format == input.Arrow, format == input.HDF5,
		hasExtension(name, ".parquet", ".npy", ".npz", ".fbin", ".u8bin", ".i8bin"):
		return fmt.Errorf("%s: %s", name, strings.TrimPrefix(foreign(head, want).Error(), input.ErrForeign.Error()+": "))
	}
	return foreign(head, want)
}

// AcceptIDs is the [input.Accept] of id files: text, which may be compressed, and .npy.
func AcceptIDs(_ string, head []byte) error {
	switch input.FormatOf(head) {
	case input.Npy, input.Text, input.Gzip, input.Zstd:
		return nil
	}
	return foreign(head, "text of one id per line, which may be compressed by gzip or zstd, and an .npy array of strings or integers")
}

// AcceptAttributes is the [input.Accept] of attributes: JSON Lines, which may be
// compressed.
func AcceptAttributes(name string, head []byte) error {
	text, known := beginning(head)
	text = bytes.TrimLeft(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), " \t\r\n")
	if known && (len(text) > 0 && text[0] == '{' || hasExtension(name, ".jsonl", ".ndjson", ".json")) || !known && isCompressed(head) {
		return nil
	}
	return foreign(head, "JSON Lines, one object per line, which may be compressed by gzip or zstd")
}

// acceptInteractions returns the [input.Accept] of interactions with columns of those
// names: Parquet, and CSV, which may be compressed.
func acceptInteractions(o InteractionOptions) input.Accept {
	return func(name string, head []byte) error {
		if input.FormatOf(head) == input.Parquet {
			return nil
		}
		text, known := beginning(head)
		if !known && isCompressed(head) || known && hasExtension(name, ".csv", ".tsv") {
			return nil
		}
		const want = "Parquet, and CSV of which the first line names the columns, which may be compressed by gzip or zstd"
		if known && len(text) > 0 {
			_, _, _, err := o.header(text)
			if err != nil {
				err = fmt.Errorf("%w: it is text, and %w; accepted are %s", input.ErrForeign, err, want)
			}
			return err
		}
		return foreign(head, want)
	}
}

func isCompressed(head []byte) bool {
	format := input.FormatOf(head)
	return format == input.Gzip || format == input.Zstd
}

// beginning returns the text that a file begins with, if head is that or its compression.
func beginning(head []byte) (text []byte, known bool) {
	switch input.FormatOf(head) {
	case input.Text:
		return head, true
	case input.Gzip:
		if r, err := gzip.NewReader(bytes.NewReader(head)); err == nil {
			text, _ = io.ReadAll(io.LimitReader(r, 4096)) // head is cut
			return text, len(text) > 0
		}
	}
	return nil, false
}

// delimiters are what may stand between the columns of text.
const delimiters = ",\t;|"

// header parses the first line of a text, and returns what stands between the columns and
// where those of ids are.
func (o *InteractionOptions) header(text []byte) (delimiter rune, user, app int, err error) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	var first error
	for _, d := range delimiters {
		r := csv.NewReader(bytes.NewReader(text))
		r.Comma = d
		names, err := r.Read()
		if err == nil {
			user, app, err = o.columnsOf(names)
		}
		if err == nil {
			return d, user, app, nil
		}
		if first == nil {
			first = err
		}
	}
	return 0, 0, 0, first
}
