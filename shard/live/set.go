package live

import (
	"cmp"
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"
	"strings"
	"unsafe"

	"github.com/cespare/xxhash/v2"
)

// A set holds keys, each with a few bytes, for readers that never wait: it does not change,
// and a change makes another set, which shares with it what is the same.
//
// Goals. Ten million keys in little more memory than their bytes, in few objects without
// pointers, so that the collector of garbage has next to nothing to do; a lookup that
// finds nothing, which nearly all do, in one read of memory or two; a change at a cost that does
// not depend on how many keys there are.
//
// Design. It is an extendible hash table (Fagin et al., "Extendible Hashing", ACM
// Transactions on Database Systems 4, 1979) that is copied where it is written. The first
// bits of a key's hash lead through a directory to a segment, one string of up to
// segmentKeys keys in the order of their hashes. In it 16 more bits of each hash come
// first. Hashes are spread evenly, so where a hash is among the others can be guessed from
// what it is, and a lookup reads a few of them beside that guess. Beside each segment the
// directory has a filter, one of Bloom's with two bits for each hash, that leaves out nearly
// all of what is not in the segment.
//
//	segment = depth (1 byte), 3 bytes of 0, n (4 bytes)
//	          n prints, of 2 bytes: the bits of the hash that follow the first depth
//	          n ends, of 4 bytes: where each entry ends, counted from the first
//	          n entries: the length of the key (2 bytes), the key, its value
//
// The order of keys, by hash and then by key, is that of checkpoints. It depends on nothing
// but the keys.
type set struct {
	depth  int      // how many bits of a hash lead to a slot of the directory
	chunks [][]slot // the directory: 1<<depth slots, in chunks so that few are copied
	count  int
}

// slot is one of the directory.
type slot struct {
	segment string
	filter  [8]uint64
}

func slotOf(depth int, list []item) slot {
	s := slot{segment: build(depth, list)}
	for i := range list {
		a, b := list[i].hash&511, list[i].hash>>9&511
		s.filter[a>>6] |= 1 << (a & 63)
		s.filter[b>>6] |= 1 << (b & 63)
	}
	return s
}

// may returns 0 if a key of that hash is not in the segment, and 1 if it may be.
func (s *slot) may(hash uint64) int {
	a, b := hash&511, hash>>9&511
	return int(s.filter[a>>6] >> (a & 63) & (s.filter[b>>6] >> (b & 63)) & 1)
}

const (
	segmentKeys = 64
	chunkBits   = 8
	headerSize  = 8
)

// item is a key with its value.
type item struct {
	hash       uint64
	key, value string
	gone       bool // in a change: the key is taken out
}

func hashKey(key string) uint64 { return xxhash.Sum64String(key) }

func (i item) compare(j item) int {
	return cmp.Or(cmp.Compare(i.hash, j.hash), strings.Compare(i.key, j.key))
}

func (s *set) place(hash uint64) int { return int(hash >> (64 - s.depth)) }

// slot returns the slot of a hash. The set is not empty.
func (s *set) slot(hash uint64) *slot {
	place := s.place(hash)
	return &s.chunks[place>>chunkBits][place&(1<<chunkBits-1)]
}

func u16(s string, at int) uint16 { return uint16(s[at]) | uint16(s[at+1])<<8 }

func u32(s string, at int) uint32 {
	return uint32(s[at]) | uint32(s[at+1])<<8 | uint32(s[at+2])<<16 | uint32(s[at+3])<<24
}

// keysOf returns how many keys a segment has; one that is empty text has none.
func keysOf(segment string) int {
	if segment == "" {
		return 0
	}
	return int(u32(segment, 4))
}

// entry returns an entry of a segment of n keys. It aliases the segment.
func entry(segment string, n, i int) (key, value string) {
	base := headerSize + 6*n
	from, ends := base, headerSize+2*n
	if i > 0 {
		from = base + int(u32(segment, ends+4*(i-1)))
	}
	to := base + int(u32(segment, ends+4*i))
	middle := from + 2 + int(u16(segment, from))
	return segment[from+2 : middle], segment[middle:to]
}

// find returns the value of a key. It aliases the set.
func (s *set) find(key string) (value string, ok bool) {
	if s.count == 0 {
		return "", false
	}
	hash := hashKey(key)
	return s.slot(hash).find(hash, key)
}

// find returns the value of a key of that hash.
func (s *slot) find(hash uint64, key string) (value string, ok bool) {
	if s.may(hash) == 0 {
		return "", false
	}
	segment := s.segment
	n := keysOf(segment)
	print := uint16(hash << segment[0] >> 48)
	i := int(uint64(print) * uint64(n) >> 16)
	for i > 0 && u16(segment, headerSize+2*(i-1)) >= print {
		i--
	}
	for i < n && u16(segment, headerSize+2*i) < print {
		i++
	}
	for ; i < n && u16(segment, headerSize+2*i) == print; i++ {
		if k, value := entry(segment, n, i); k == key {
			return value, true
		}
	}
	return "", false
}

// together is how many keys are looked up at a time.
const together = 64

// hasAny reports whether any of the keys is in the set. What takes time is to wait for memory.
// So it reads the filters of several keys, of which none waits for another, and then looks for
// those that they leave.
func (s *set) hasAny(keys []string) bool {
	if s.count == 0 {
		return false
	}
	var hashes [together]uint64
	var left [together + 1]uint8
	for part := range slices.Chunk(keys, together) {
		for i, key := range part {
			hashes[i] = hashKey(key)
		}
		n := 0
		for i := range part { // without a branch that waits
			left[n] = uint8(i)
			n += s.slot(hashes[i]).may(hashes[i])
		}
		for _, i := range left[:n] {
			if _, ok := s.slot(hashes[i]).find(hashes[i], part[i]); ok {
				return true
			}
		}
	}
	return false
}

// all returns all items in their order.
func (s *set) all() iter.Seq[item] {
	return func(yield func(item) bool) {
		if s.count == 0 {
			return
		}
		for slot := 0; slot < 1<<s.depth; {
			segment := s.chunks[slot>>chunkBits][slot&(1<<chunkBits-1)].segment
			n := keysOf(segment)
			for i := range n {
				key, value := entry(segment, n, i)
				if !yield(item{hash: hashKey(key), key: key, value: value}) {
					return
				}
			}
			slot += 1 << (s.depth - int(segment[0]))
		}
	}
}

// with returns the set with changes, of different keys in any order, which it sorts.
func (s set) with(changes []item) set {
	if len(changes) == 0 {
		return s
	}
	slices.SortFunc(changes, item.compare)
	if s.chunks == nil {
		s.chunks = [][]slot{{slotOf(0, nil)}}
	} else {
		s.chunks = slices.Clone(s.chunks)
	}
	w := writing{set: s, owned: make([]bool, len(s.chunks))}
	for len(changes) > 0 {
		segment := w.slot(changes[0].hash).segment
		depth := int(segment[0])
		n := 1
		for n < len(changes) && changes[n].hash>>(64-depth) == changes[0].hash>>(64-depth) {
			n++
		}
		merged := merge(segment, changes[:n])
		w.count += len(merged) - keysOf(segment)
		w.put(changes[0].hash, depth, merged)
		changes = changes[n:]
	}
	return w.set
}

// merge returns the items of a segment with changes, in order.
func merge(segment string, changes []item) []item {
	n := keysOf(segment)
	list := make([]item, 0, n+len(changes))
	for i := range n {
		key, value := entry(segment, n, i)
		old := item{hash: hashKey(key), key: key, value: value}
		for len(changes) > 0 && changes[0].compare(old) < 0 {
			list = append(list, changes[0])
			changes = changes[1:]
		}
		if len(changes) > 0 && changes[0].compare(old) == 0 {
			old, changes = changes[0], changes[1:]
		}
		list = append(list, old)
	}
	list = append(list, changes...)
	return slices.DeleteFunc(list, func(i item) bool { return i.gone })
}

// writing is a set that is being made; which chunks are its own already it knows.
type writing struct {
	set
	owned []bool
}

// deepest returns how many bits the directory may have: keys whose hashes are alike do not
// make it larger than all keys are worth.
func (w *writing) deepest() int { return bits.Len(uint(w.count/segmentKeys)) + 4 }

// put puts what has the first depth bits of a hash into the directory, in one segment or,
// if there are too many, in several.
func (w *writing) put(hash uint64, depth int, list []item) {
	if len(list) > segmentKeys && depth < w.deepest() {
		bit := uint64(1) << (63 - depth)
		half, _ := slices.BinarySearchFunc(list, hash&^(bit-1)|bit, func(i item, h uint64) int { return cmp.Compare(i.hash, h) })
		w.put(hash&^bit, depth+1, list[:half])
		w.put(hash|bit, depth+1, list[half:])
		return
	}
	for w.depth < depth {
		w.double()
	}
	made := slotOf(depth, list)
	first := int(hash>>(64-depth)) << (w.depth - depth)
	for place := first; place < first+1<<(w.depth-depth); place++ {
		chunk := place >> chunkBits
		if !w.owned[chunk] {
			w.chunks[chunk], w.owned[chunk] = slices.Clone(w.chunks[chunk]), true
		}
		w.chunks[chunk][place&(1<<chunkBits-1)] = made
	}
}

// double has one bit more lead through the directory.
func (w *writing) double() {
	slots := make([]slot, 0, 2<<w.depth)
	for _, chunk := range w.chunks {
		for _, s := range chunk {
			slots = append(slots, s, s)
		}
	}
	w.depth++
	w.chunks = slices.Collect(slices.Chunk(slots, 1<<chunkBits))
	w.owned = slices.Repeat([]bool{true}, len(w.chunks))
}

// build returns the segment of a list of items in order, whose hashes have the same first
// depth bits.
func build(depth int, list []item) string {
	size := headerSize + 6*len(list)
	for _, i := range list {
		size += 2 + len(i.key) + len(i.value)
	}
	data := make([]byte, headerSize, size)
	data[0] = byte(depth)
	binary.LittleEndian.PutUint32(data[4:], uint32(len(list)))
	for _, i := range list {
		data = binary.LittleEndian.AppendUint16(data, uint16(i.hash<<depth>>48))
	}
	end := 0
	for _, i := range list {
		end += 2 + len(i.key) + len(i.value)
		data = binary.LittleEndian.AppendUint32(data, uint32(end))
	}
	for _, i := range list {
		data = binary.LittleEndian.AppendUint16(data, uint16(len(i.key)))
		data = append(data, i.key...)
		data = append(data, i.value...)
	}
	return unsafe.String(unsafe.SliceData(data), len(data)) // nobody changes it any more
}

// filling makes a set of items that come in their order.
type filling struct {
	set   set
	slots []slot
	list  []item // of the slot that is next
}

// fill begins a set of about so many items.
func fill(count int) *filling {
	f := &filling{}
	f.set.depth = bits.Len(uint(count / (segmentKeys * 3 / 4)))
	f.slots = make([]slot, 0, 1<<f.set.depth)
	return f
}

func (f *filling) add(i item) {
	for len(f.slots) < f.set.place(i.hash) {
		f.flush()
	}
	f.list = append(f.list, i)
	f.set.count++
}

func (f *filling) flush() {
	f.slots = append(f.slots, slotOf(f.set.depth, f.list))
	f.list = f.list[:0]
}

// end returns the set.
func (f *filling) end() set {
	if f.set.count == 0 {
		return set{}
	}
	for len(f.slots) < 1<<f.set.depth {
		f.flush()
	}
	f.set.chunks = slices.Collect(slices.Chunk(f.slots, 1<<chunkBits))
	return f.set
}
