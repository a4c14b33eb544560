package tower

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tandem-ann/tandem/builder/input"
)

// npyIDs is an .npy array of ids: strings or integers, in one column.
type npyIDs struct {
	kind   byte // U, S, i or u
	big    bool // big-endian
	width  int  // bytes of an element
	header int64
	count  int64
}

var npyIDType = regexp.MustCompile(`^([<>|=])([USiu])(\d{1,6})$`)

// openNpyIDs parses the header of an array of ids.
func openNpyIDs(f input.File) (*npyIDs, error) {
	text, err := readNpy(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		return nil, err
	}
	const accepted = "accepted are strings (U, S) and integers (i, u): save it with ids.astype(str)"
	m := npyIDType.FindStringSubmatch(text.descr)
	if m == nil {
		return nil, fmt.Errorf(".npy of ids of type %.40q: %s", text.descr, accepted)
	}
	n, _ := strconv.Atoi(m[3])
	a := &npyIDs{kind: m[2][0], big: m[1] == ">", width: n, header: text.size}
	switch {
	case a.kind == 'U':
		a.width *= utf32Size
	case a.kind != 'S' && n != 1 && n != 2 && n != 4 && n != 8:
		return nil, fmt.Errorf(".npy of ids of type %.40q: %s", text.descr, accepted)
	}
	one := npyOne.FindStringSubmatch(text.shape)
	if one == nil {
		return nil, fmt.Errorf(".npy of ids of shape (%.80s): want (rows,)", text.shape)
	}
	count, err := strconv.ParseInt(one[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf(".npy of ids of shape (%.80s): too large", text.shape)
	}
	a.count = count
	high, low := bits.Mul64(uint64(count), uint64(a.width))
	if high != 0 || f.Size() < a.header || low != uint64(f.Size()-a.header) {
		return nil, fmt.Errorf("header says %d ids of %d bytes each; the file has %d bytes after it", count, a.width, f.Size()-a.header)
	}
	return a, nil
}

// reader returns the ids.
func (a *npyIDs) reader(f input.File) ids {
	return &npyIDReader{npyIDs: a, br: bufio.NewReaderSize(io.NewSectionReader(f, a.header, f.Size()-a.header), 256<<10), left: a.count, data: make([]byte, a.width)}
}

type npyIDReader struct {
	*npyIDs
	br   *bufio.Reader
	left int64
	data []byte
}

func (r *npyIDReader) next() (string, error) {
	if r.left == 0 {
		return "", io.EOF
	}
	r.left--
	if _, err := io.ReadFull(r.br, r.data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	return r.decode(r.data)
}

func (r *npyIDReader) close() error { return nil }

// utf32Size is how many bytes NumPy has for a character.
const utf32Size = 4

// decode returns the id that an element is.
func (a *npyIDs) decode(data []byte) (string, error) {
	var order binary.ByteOrder = binary.LittleEndian
	if a.big {
		order = binary.BigEndian
	}
	switch a.kind {
	case 'S':
		return trimPadding(string(data)), nil
	case 'U':
		var text []byte
		for ; len(data) > 0; data = data[utf32Size:] {
			c := order.Uint32(data)
			if c > utf8.MaxRune || !utf8.ValidRune(rune(c)) {
				return "", fmt.Errorf("%#x is not a character of Unicode", c)
			}
			text = utf8.AppendRune(text, rune(c))
		}
		return trimPadding(string(text)), nil
	}
	var u uint64
	switch len(data) {
	case 1:
		u = uint64(data[0])
	case 2:
		u = uint64(order.Uint16(data))
	case 4:
		u = uint64(order.Uint32(data))
	case 8:
		u = order.Uint64(data)
	}
	if a.kind == 'u' {
		return strconv.FormatUint(u, 10), nil
	}
	unused := 64 - 8*len(data)
	return strconv.FormatInt(int64(u<<unused)>>unused, 10), nil
}

// trimPadding takes off the zeros that fill up a string of an array.
func trimPadding(text string) string { return strings.TrimRight(text, "\x00") }
