package live

import (
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrDamaged is the class of every error that says that an entry or a checkpoint does not have
// the bytes that were written.
var ErrDamaged = errors.New("it is damaged")

// An entry that follows tells a damaged one by its hash; the last has none that follows. So an
// entry has a checksum: the last 4 of the 16 bytes that its header has for telling it from
// others, where older readers see 4 random bytes. These bytes come first in the header, ahead
// of the version, in entries that have a checksum, and behind it in those without one, which
// began with the version. Decoders take either order.
const (
	nonceKey   = 0x07
	nonceHead  = 0x40 + nonceSize // of a string of so many bytes
	versionKey = 0x01
	sumSize    = 4
	sumAt      = 3 + nonceSize - sumSize // behind the head of the map, the key, the head
)

// damaged gives an error of what cannot be decoded the class [ErrDamaged].
func damaged(err error) error {
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrVersion) || errors.Is(err, ErrKey) || errors.Is(err, ErrNoKey) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entrySum returns the CRC-32C of an entry but for the place of the checksum.
func entrySum(data []byte) uint32 {
	return crc32.Update(crc32.Checksum(data[:sumAt], castagnoli), castagnoli, data[sumAt+sumSize:])
}

// checkSum returns an error of class [ErrDamaged] if an entry begins as none does, or has a
// checksum that is not that of its bytes.
func checkSum(data []byte) error {
	if len(data) > 2 && data[1] == versionKey {
		return nil // it has none
	}
	if len(data) < sumAt+sumSize || data[1] != nonceKey || data[2] != nonceHead {
		return fmt.Errorf("header: %w: it does not begin as an entry does", ErrDamaged)
	}
	if says, is := [4]byte(data[sumAt:]), entrySum(data); says != [4]byte{byte(is >> 24), byte(is >> 16), byte(is >> 8), byte(is)} {
		return fmt.Errorf("%w: its bytes have the CRC-32C %08x, and it says %x", ErrDamaged, is, says)
	}
	return nil
}
