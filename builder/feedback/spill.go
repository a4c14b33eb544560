package feedback

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cespare/xxhash/v2"
	"github.com/fxamacker/cbor/v2"
)

// How rows are dealt to files.
const (
	dealBits   = 5
	dealParts  = 1 << dealBits
	dealLevels = 64 / dealBits
	// A file begins with what does not fit in its buffer, which is a share of the memory of all.
	leastBuffer, mostBuffer = 512, 32 << 10
	bufferShare             = 1 << 10
	// spread is how many bytes of memory one of a file takes, at most.
	spread = 10
	// frameBytes precede each record: its hash and its length.
	frameBytes = 8 + 4
)

var (
	spillEncoder = mode(cbor.EncOptions{}.EncMode())
	// What is read is what this process has written: texts may be any bytes.
	spillDecoder = mode(cbor.DecOptions{UTF8: cbor.UTF8DecodeInvalid, MaxArrayElements: 1 << 24}.DecMode())
)

// mode returns a mode of constant options, which are right or wrong for good.
func mode[M any](m M, err error) M {
	if err != nil {
		panic(err)
	}
	return m
}

// A spill deals records to files by the hash of a key. It is for one goroutine.
type spill struct {
	dir    string
	buffer int // bytes of each part that are in memory
	level  int
	parts  [dealParts]spillPart
}

// newSpill returns a spill to files of a folder, of which several take some memory together.
func newSpill(dir string, memory int64) *spill {
	return &spill{dir: dir, buffer: int(min(max(memory/bufferShare, leastBuffer), mostBuffer))}
}

// spillPart is records of one part: those before in a file, if there are so many, and the last ones
// in a buffer.
type spillPart struct {
	f    *os.File // nil if all are in the buffer
	last []byte
	size int64 // of all
}

// add adds a record.
func (s *spill) add(key string, record any) error {
	data, err := spillEncoder.Marshal(record)
	if err != nil {
		return err
	}
	return s.put(xxhash.Sum64String(key), data)
}

func (s *spill) put(hash uint64, data []byte) error {
	p := &s.parts[hash>>(64-dealBits*(s.level+1))%dealParts]
	p.last = binary.LittleEndian.AppendUint64(p.last, hash)
	p.last = binary.LittleEndian.AppendUint32(p.last, uint32(len(data)))
	p.last = append(p.last, data...)
	p.size += int64(frameBytes + len(data))
	if len(p.last) < s.buffer {
		return nil
	}
	if p.f == nil {
		f, err := os.CreateTemp(s.dir, "tandem-join-")
		if err != nil {
			return fmt.Errorf("spill rows: %w", err)
		}
		p.f = f
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("spill rows: %w", err)
		}
	}
	if _, err := p.f.Write(p.last); err != nil {
		return fmt.Errorf("spill rows to %s: %w", s.dir, err)
	}
	p.last = p.last[:0]
	return nil
}

// close frees the files.
func (s *spill) close() {
	for i := range s.parts {
		s.parts[i].close()
	}
}

func (p *spillPart) close() {
	if p.f != nil {
		_ = p.f.Close() // it has no name, and what was written was read or is not wanted
	}
	*p = spillPart{}
}

// frames calls do with each record, in the order in which they were added.
func (p *spillPart) frames(do func(hash uint64, data []byte) error) error {
	var r io.Reader = bytes.NewReader(p.last)
	if p.f != nil {
		if _, err := p.f.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("spill rows: %w", err)
		}
		r = io.MultiReader(bufio.NewReaderSize(p.f, mostBuffer), r)
	}
	var data []byte
	for left := p.size; left > 0; {
		var frame [frameBytes]byte
		if _, err := io.ReadFull(r, frame[:]); err != nil {
			return fmt.Errorf("read spilled rows: %w", err)
		}
		n := int(binary.LittleEndian.Uint32(frame[8:]))
		if int64(n) > left {
			return errors.New("read spilled rows: the file is damaged")
		}
		if cap(data) < n {
			data = make([]byte, n)
		}
		data = data[:n]
		if _, err := io.ReadFull(r, data); err != nil {
			return fmt.Errorf("read spilled rows: %w", err)
		}
		if err := do(binary.LittleEndian.Uint64(frame[:]), data); err != nil {
			return err
		}
		left -= int64(frameBytes + n)
	}
	return nil
}

// records returns the records of a file.
func records[T any](p *spillPart) (list []T, err error) {
	err = p.frames(func(_ uint64, data []byte) error {
		var record T
		if err := spillDecoder.Unmarshal(data, &record); err != nil {
			return fmt.Errorf("read spilled rows: %w", err)
		}
		list = append(list, record)
		return nil
	})
	return list, err
}

// together calls do with the files of each part of some spills, which are of the same keys, and
// frees them. Where those of one part would take more memory than is allowed, they are dealt
// again. What names what is dealt, for the error where it does not help: all is of one key.
func together(what string, memory int64, spills []*spill, do func(files []*spillPart) error) (err error) {
	defer func() {
		for _, s := range spills {
			s.close()
		}
	}()
	for i := range dealParts {
		size, files := int64(0), make([]*spillPart, len(spills))
		for j, s := range spills {
			files[j] = &s.parts[i]
			size += s.parts[i].size
		}
		switch {
		case size == 0:
			continue
		case size <= memory/spread:
			err = do(files)
		default:
			err = again(what, memory, size, spills, files, do)
		}
		if err != nil {
			return err
		}
		for _, f := range files {
			f.close()
		}
	}
	return nil
}

// again deals files that are too large.
func again(what string, memory, size int64, spills []*spill, files []*spillPart, do func(files []*spillPart) error) error {
	var first uint64
	some, several := false, false
	finer := make([]*spill, len(spills))
	for j, s := range spills {
		finer[j] = &spill{dir: s.dir, buffer: s.buffer, level: s.level + 1}
	}
	defer func() {
		for _, s := range finer {
			s.close()
		}
	}()
	for j := range spills {
		if finer[j].level == dealLevels {
			return tooLarge(what, memory, size)
		}
		if err := files[j].frames(func(hash uint64, data []byte) error {
			if some && hash != first {
				several = true
			}
			first, some = hash, true
			return finer[j].put(hash, data)
		}); err != nil {
			return err
		}
		files[j].close()
	}
	if !several {
		return tooLarge(what, memory, size)
	}
	return together(what, memory, finer, do)
}

func tooLarge(what string, memory, size int64) error {
	return fmt.Errorf("%w: what is of one %s takes %d bytes; accepted: up to %d in %d", ErrMemory, what, size*spread, memory, memory)
}

// ErrMemory is the class of errors that say that what belongs together takes more memory than is
// allowed.
var ErrMemory = errors.New("too little memory")
