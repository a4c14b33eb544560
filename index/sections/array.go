package sections

import (
	"unsafe"
)

// Element is a fixed-size value that a section may hold an array of.
type Element interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int32 | ~int64 | ~float32 | ~float64
}

// Array returns a section as n values of T, in place. Any other length is an
// [ErrCorrupt] error. Like every supported platform, the format is
// little-endian.
func Array[T Element](f *File, name string, n int) ([]T, error) {
	data, err := f.Section(name)
	if err != nil {
		return nil, err
	}
	var t T
	size := int(unsafe.Sizeof(t))
	if n < 0 || len(data)/size != n || len(data)%size != 0 {
		return nil, Corruptf(name, "length %d is not %d values of %d bytes", len(data), n, size)
	}
	if n == 0 {
		return nil, nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(data))), n), nil
}

// Bytes returns the memory of values, for [Writer.Write].
func Bytes[T Element](values []T) []byte {
	if len(values) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), len(values)*int(unsafe.Sizeof(values[0])))
}
