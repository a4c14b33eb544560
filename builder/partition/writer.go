package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Layout is what the records of an object have in common.
type Layout struct {
	Shards int // at least 1
	Dim    int // of the vectors; 0 for records without one
	Fields int // attributes of each record
	// Of is the hash of the name that the object has in its build, by which one that lies in the
	// place of another is known; 0 if it has none.
	Of uint64
}

// Name returns the hash of the name of an object, for [Layout].
func Name(name string) uint64 { return xxhash.Sum64String(name) }

// The parts of an object: the magic, pieces of records, the summary, the index, the footer.
const (
	magic       = "TNDMPART"
	version     = 1
	entrySize   = 8 + 8 + 8 + 8 // of the index: offset, length, records, hash
	footerWords = 11
	footerSize  = footerWords*8 + len(magic)
)

const (
	// DefaultMemory is how much a [Writer] holds unless it is told.
	DefaultMemory = 128 << 20
	// MinMemory is the least that it takes.
	MinMemory = 1 << 20
	maxChunk  = 256 << 10
	minChunk  = 256
	// chunksEach is how many chunks there are for each shard, at least.
	chunksEach = 4
)

// piece is the records of one shard of which a run consists.
type piece struct {
	offset, length, records, hash uint64
}

// Writer deals records to shards in a file. It holds records until its memory is full, and
// writes them shard by shard then: what a shard has is in as many pieces as that has happened.
// It is for one goroutine.
type Writer struct {
	layout Layout
	path   string
	file   *os.File
	at     int64 // that is written next
	err    error // the first, which stays

	chunk   int
	free    [][]byte
	most    int // chunks that there are to be
	made    int
	held    []held
	runs    [][]piece
	scratch []byte
}

// held is what is held of one shard.
type held struct {
	chunks  [][]byte
	records uint64
}

// Create makes the file of an object. Memory bounds what the writer holds of it, in bytes;
// less than [MinMemory], or than what many shards need, is raised to that.
func Create(path string, l Layout, memory int64) (*Writer, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("partition: %w", err)
	}
	memory = max(memory, MinMemory)
	chunk := min(max(int(memory)/(chunksEach*l.Shards), minChunk), maxChunk)
	w := &Writer{layout: l, path: path, file: f, chunk: chunk, most: max(int(memory)/chunk, l.Shards+1), held: make([]held, l.Shards)}
	w.write([]byte(magic))
	return w, nil
}

// Add adds a record to a shard.
func (w *Writer) Add(shard int, r *Record) error {
	w.scratch = r.append(w.scratch[:0])
	return w.add(shard)
}

// addEncoded adds a record by its bytes, without the length.
func (w *Writer) addEncoded(shard int, record []byte) error {
	w.scratch = binary.LittleEndian.AppendUint32(w.scratch[:0], uint32(len(record)))
	w.scratch = append(w.scratch, record...)
	return w.add(shard)
}

// add adds the record in scratch.
func (w *Writer) add(shard int) error {
	for b := w.scratch; len(b) > 0; {
		h := &w.held[shard]
		if last := len(h.chunks) - 1; last >= 0 && len(h.chunks[last]) < w.chunk {
			n := min(w.chunk-len(h.chunks[last]), len(b))
			h.chunks[last] = append(h.chunks[last], b[:n]...)
			b = b[n:]
			continue
		}
		if c := w.empty(); c != nil {
			h.chunks = append(h.chunks, c)
			continue
		}
		if len(b) == len(w.scratch) {
			w.flush()
			continue
		}
		// A record is in one piece: it takes what it needs beyond the bound.
		w.made++
		h.chunks = append(h.chunks, make([]byte, 0, w.chunk))
	}
	w.held[shard].records++
	return w.err
}

// empty returns a chunk without bytes, nil if all are in use.
func (w *Writer) empty() []byte {
	if n := len(w.free); n > 0 {
		c := w.free[n-1]
		w.free = w.free[:n-1]
		return c
	}
	if w.made >= w.most {
		return nil
	}
	w.made++
	return make([]byte, 0, w.chunk)
}

// flush writes a run of all that is held.
func (w *Writer) flush() {
	run := make([]piece, len(w.held))
	for i := range w.held {
		h := &w.held[i]
		hash, offset := xxhash.New(), w.at
		for _, c := range h.chunks {
			_, _ = hash.Write(c) // it never fails
			w.write(c)
			w.free = append(w.free, c[:0])
		}
		run[i] = piece{uint64(offset), uint64(w.at - offset), h.records, hash.Sum64()}
		h.chunks, h.records = h.chunks[:0], 0
	}
	w.runs = append(w.runs, run)
	if beyond := w.made - w.most; beyond > 0 {
		w.free, w.made = slices.Delete(w.free, 0, beyond), w.most
	}
}

// write writes bytes, unless that has failed before.
func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.file.Write(b)
	w.at += int64(n)
	if err != nil {
		w.err = fmt.Errorf("partition: %w", err)
	}
}

// Finish writes what is held, and what was found, and closes the file, which is durable then.
func (w *Writer) Finish(s *Summary) error {
	summary, err := s.encode()
	if err != nil {
		return errors.Join(err, w.Close())
	}
	w.flush()
	w.free, w.held = nil, nil
	at := w.at
	w.write(summary)
	index := make([]byte, 0, len(w.runs)*w.layout.Shards*entrySize)
	for shard := range w.layout.Shards {
		for _, run := range w.runs {
			p := run[shard]
			for _, x := range []uint64{p.offset, p.length, p.records, p.hash} {
				index = binary.LittleEndian.AppendUint64(index, x)
			}
		}
	}
	w.write(index)
	var footer []byte
	for _, x := range [footerWords - 1]uint64{
		version, uint64(w.layout.Shards), uint64(w.layout.Dim), uint64(w.layout.Fields), uint64(len(w.runs)),
		uint64(at), uint64(len(summary)), xxhash.Sum64(summary), xxhash.Sum64(index), w.layout.Of,
	} {
		footer = binary.LittleEndian.AppendUint64(footer, x)
	}
	footer = binary.LittleEndian.AppendUint64(footer, xxhash.Sum64(footer))
	w.write(append(footer, magic...))
	if w.err == nil {
		if err := w.file.Sync(); err != nil {
			w.err = fmt.Errorf("partition: %w", err)
		}
	}
	return errors.Join(w.err, w.Close())
}

// Close closes the file, unless it is. What was not finished is no object.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	if err != nil {
		err = fmt.Errorf("partition: %w", err)
	}
	return err
}

// maxRuns is how many runs a reader accepts: that of the least memory and the largest file.
const maxRuns = math.MaxInt32
