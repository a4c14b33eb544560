package tower

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
)

// maxNpyHeader bounds the text header; NumPy's own are below 10 kB for arrays
// of plain numbers.
const maxNpyHeader = 64 << 10

// npyElements are the element types that are read. A byte has no order.
var npyElements = map[string]element{
	"<f4": float32s, "<f8": float64s, "<f2": float16s,
	"|u1": uint8s, "<u1": uint8s, "|i1": int8s, "<i1": int8s,
}

// npyDict matches the header: a Python dictionary of three keys in any order,
// as NumPy writes it for an array of plain numbers. Structured and subarray
// types do not match.
var (
	npyDict  = regexp.MustCompile(`^\{\s*(?:'\w+':\s*(?:'[^']*'|\([^()]*\)|\w+)\s*,?\s*){3}\}\s*$`)
	npyDescr = regexp.MustCompile(`'descr':\s*'([^']*)'`)
	npyOrder = regexp.MustCompile(`'fortran_order':\s*(True|False)`)
	npyShape = regexp.MustCompile(`'shape':\s*\(([^()]*)\)`)
	npyTwo   = regexp.MustCompile(`^\s*(\d+)L?\s*,\s*(\d+)L?\s*,?\s*$`)
	npyOne   = regexp.MustCompile(`^\s*(\d+)L?\s*,\s*(?:1L?\s*,?\s*)?$`) // also of one column
)

// npyText is what the header of an .npy file says.
type npyText struct {
	descr   string // the type of its elements
	fortran bool
	shape   string // what is between the brackets
	size    int64  // bytes of the header
}

// readNpy reads the header of an .npy file, versions 1 to 3.
func readNpy(r io.Reader) (h npyText, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || string(head[:6]) != "\x93NUMPY" {
		return h, errors.New("not an .npy file: it does not start with \\x93NUMPY")
	}
	var length uint32
	switch major := head[6]; major {
	case 1:
		var b [2]byte
		_, err = io.ReadFull(r, b[:])
		length, h.size = uint32(binary.LittleEndian.Uint16(b[:])), 10
	case 2, 3:
		var b [4]byte
		_, err = io.ReadFull(r, b[:])
		length, h.size = binary.LittleEndian.Uint32(b[:]), 12
	default:
		return h, fmt.Errorf(".npy version %d.%d, want 1 to 3", major, head[7])
	}
	if err != nil || length > maxNpyHeader {
		return h, fmt.Errorf(".npy header is cut off, or its length of %d bytes is above %d", length, maxNpyHeader)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return h, fmt.Errorf(".npy header of %d bytes is cut off", length)
	}
	h.size += int64(length)
	descr, order, shape := npyDescr.FindSubmatch(text), npyOrder.FindSubmatch(text), npyShape.FindSubmatch(text)
	if !npyDict.Match(text) || descr == nil || order == nil || shape == nil {
		return h, fmt.Errorf(".npy header %.200q: want an array of plain numbers or strings", text)
	}
	h.descr, h.fortran, h.shape = string(descr[1]), string(order[1]) == "True", string(shape[1])
	return h, nil
}

// npyHeader parses the header of an .npy file of rows.
func npyHeader(r io.Reader) (h rawHeader, err error) {
	text, err := readNpy(r)
	if err != nil {
		return h, err
	}
	h.size = text.size
	var ok bool
	if h.element, ok = npyElements[text.descr]; !ok {
		return h, fmt.Errorf(".npy of type %.40q: accepted are <f4, <f8, <f2, |u1 and |i1", text.descr)
	}
	if text.fortran {
		return h, errors.New(".npy in Fortran order: save it with numpy.ascontiguousarray")
	}
	two := npyTwo.FindStringSubmatch(text.shape)
	if two == nil {
		return h, fmt.Errorf(".npy of shape (%.80s): want (rows, dimension)", text.shape)
	}
	rows, err1 := strconv.ParseUint(two[1], 10, 63)
	dim, err2 := strconv.ParseUint(two[2], 10, 63)
	if err1 != nil || err2 != nil {
		return h, fmt.Errorf(".npy of shape (%.80s): too large", text.shape)
	}
	h.rows, h.dim = rows, dim
	return h, nil
}
