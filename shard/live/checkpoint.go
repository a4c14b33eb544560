package live

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

// CheckpointVersion is the version of checkpoints that is written and read.
const CheckpointVersion = 1

// A checkpoint is a sequence of items of CBOR in one frame of zstd (RFC 8878), which a
// skippable frame with the SHA-256 of that frame follows. First comes a wireTop; then, as
// many as it says, forks, blocks of takedowns, blocks of users who are forgotten, records of
// apps, records of users, and entries that are remembered. All that a state holds is in one
// order, so that two which write a checkpoint of one state write the same.

type wireTop struct {
	Version   uint64 `cbor:"1,keyasint"`
	Log       string `cbor:"2,keyasint,omitempty"`
	Sequence  uint64 `cbor:"3,keyasint"`
	Hash      []byte `cbor:"4,keyasint"`
	Time      int64  `cbor:"5,keyasint"` // milliseconds since 1970
	Digest    []byte `cbor:"6,keyasint"`
	Forks     uint64 `cbor:"7,keyasint"`
	Takedowns uint64 `cbor:"8,keyasint"`
	Forgotten uint64 `cbor:"9,keyasint"`
	Apps      uint64 `cbor:"10,keyasint"`
	Users     uint64 `cbor:"11,keyasint"`
	Entries   uint64 `cbor:"12,keyasint"`
	Key       []byte `cbor:"13,keyasint,omitempty"` // what tells the key of users who were forgotten from others
}

type wireFork struct {
	_      struct{} `cbor:",toarray"`
	Log    string
	Common uint64
}

// blockSize is how many takedowns, or users who are forgotten, are in one item, but for the
// last.
const blockSize = 1024

// wireDowns are takedowns, in the order of the hashes of their ids.
type wireDowns struct {
	IDs       []string   `cbor:"1,keyasint"`
	Sequences []uint64   `cbor:"2,keyasint"`
	Times     []int64    `cbor:"3,keyasint"` // milliseconds since 1970
	Texts     []wireText `cbor:"4,keyasint"` // that they have, in the order in which they come first
	Text      []uint64   `cbor:"5,keyasint"` // of each the number of its text
}

type wireText struct {
	_              struct{} `cbor:",toarray"`
	Reason, Author string
}

// wireGone are users who are forgotten, in the order of the hashes of their hashes.
type wireGone struct {
	Users     []byte   `cbor:"1,keyasint"` // 16 bytes each
	Sequences []uint64 `cbor:"2,keyasint"`
	Times     []int64  `cbor:"3,keyasint"` // milliseconds since 1970
}

// wireEntry is an entry that is remembered, with its events that counted.
type wireEntry struct {
	Sequence uint64 `cbor:"1,keyasint"`
	Time     int64  `cbor:"2,keyasint"`           // milliseconds since 1970
	Hash     []byte `cbor:"3,keyasint"`           // the first 16 bytes
	Events   []byte `cbor:"4,keyasint,omitempty"` // 24 bytes each: the hash of the id, that of the content
}

const (
	eventSize   = 24
	trailerSize = 8 + sha256.Size
)

// trailerMark begins a skippable frame of 32 bytes.
var trailerMark = [8]byte{0x50, 0x2a, 0x4d, 0x18, sha256.Size} // little-endian: the magic number, the size

// frozen is what a checkpoint holds of a state. It does not change when the state does.
type frozen struct {
	position    Position
	time        int64
	digest      Digest
	forks       []Fork
	down        TakenDown
	gone        Forgotten
	keyName     UserHash
	apps, users records
	entries     []pastEntry
	events      []pastEvent
	dropped     uint64
}

func (s *State) freeze() *frozen {
	return &frozen{
		position: s.position, time: s.time.UnixMilli(), digest: s.Digest(), forks: s.lineage.forks, down: s.down, gone: s.gone, keyName: s.keyName,
		apps: maps.Clone(s.apps), users: maps.Clone(s.users),
		// What is appended to these later is behind their ends.
		entries: s.past.entries, events: s.past.events, dropped: s.past.dropped,
	}
}

// Checkpoint returns a checkpoint of the state, at its position.
func (s *State) Checkpoint() ([]byte, error) { return s.freeze().encode() }

func (f *frozen) encode() ([]byte, error) { return seal(f.write) }

// seal returns what write writes, packed and hashed.
func seal(write func(io.Writer) error) ([]byte, error) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if err := errors.Join(write(z), z.Close()); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	hash := sha256.Sum256(b.Bytes())
	b.Write(trailerMark[:])
	b.Write(hash[:])
	return b.Bytes(), nil
}

func (f *frozen) write(w io.Writer) error {
	e := encoder.NewEncoder(w)
	top := wireTop{
		Version: CheckpointVersion, Log: f.position.Log, Sequence: f.position.Sequence, Hash: f.position.Hash[:],
		Time: f.time, Digest: f.digest[:],
		Forks: uint64(len(f.forks)), Takedowns: uint64(f.down.Len()), Forgotten: uint64(f.gone.Len()),
		Apps: uint64(len(f.apps)), Users: uint64(len(f.users)), Entries: uint64(len(f.entries)),
	}
	if f.keyName != (UserHash{}) {
		top.Key = f.keyName[:]
	}
	err := e.Encode(top)
	for _, fork := range f.forks {
		err = errors.Join(err, e.Encode(wireFork{Log: fork.Log, Common: fork.Common}))
	}
	return errors.Join(err, f.writeDowns(e), f.writeGone(e), writeRecords(e, f.apps), writeRecords(e, f.users), f.writeEntries(e))
}

func (f *frozen) writeDowns(e *cbor.Encoder) error {
	if f.down.Len() == 0 {
		return nil
	}
	var block wireDowns
	numbers := map[text]uint64{}
	flush := func() error {
		defer func() {
			block = wireDowns{block.IDs[:0], block.Sequences[:0], block.Times[:0], block.Texts[:0], block.Text[:0]}
			clear(numbers)
		}()
		return e.Encode(block)
	}
	for i := range f.down.set.all() {
		d := f.down.decode(i.value)
		of := text{d.Reason, d.Author}
		number, ok := numbers[of]
		if !ok {
			number = uint64(len(block.Texts))
			numbers[of] = number
			block.Texts = append(block.Texts, wireText{Reason: d.Reason, Author: d.Author})
		}
		block.IDs = append(block.IDs, i.key)
		block.Sequences = append(block.Sequences, d.Sequence)
		block.Times = append(block.Times, d.Time.UnixMilli())
		block.Text = append(block.Text, number)
		if len(block.IDs) == blockSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(block.IDs) == 0 {
		return nil
	}
	return flush()
}

func (f *frozen) writeGone(e *cbor.Encoder) error {
	if f.gone.Len() == 0 {
		return nil
	}
	var block wireGone
	for i := range f.gone.set.all() {
		g, _ := f.gone.Get(UserHash([]byte(i.key)))
		block.Users = append(block.Users, i.key...)
		block.Sequences = append(block.Sequences, g.Sequence)
		block.Times = append(block.Times, g.Time.UnixMilli())
		if len(block.Sequences) == blockSize {
			if err := e.Encode(block); err != nil {
				return err
			}
			block = wireGone{}
		}
	}
	if len(block.Sequences) == 0 {
		return nil
	}
	return e.Encode(block)
}

func writeRecords(e *cbor.Encoder, list records) error {
	for _, id := range slices.Sorted(maps.Keys(list)) {
		data, err := list[id].encode(id)
		if err == nil {
			err = e.Encode(cbor.RawMessage(data))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *frozen) writeEntries(e *cbor.Encoder) error {
	from := f.dropped
	for _, entry := range f.entries {
		w := wireEntry{Sequence: entry.sequence, Time: entry.time.UnixMilli(), Hash: entry.hash[:]}
		for _, event := range f.events[from-f.dropped : entry.end-f.dropped] {
			w.Events = append(w.Events, event.id[:]...)
			w.Events = binary.BigEndian.AppendUint64(w.Events, event.content)
		}
		if err := e.Encode(w); err != nil {
			return err
		}
		from = entry.end
	}
	return nil
}

// ReadCheckpoint returns the state that a checkpoint holds. The key is that of the store; it
// may be nil where nobody is forgotten. An error is of class [ErrVersion] if a newer build
// has written it, [ErrKey] if it takes a key, [ErrNoKey] if it takes another one, and else
// [ErrDamaged].
func ReadCheckpoint(data, key []byte) (*State, error) {
	s := NewState()
	if key != nil {
		if err := s.SetKey(key); err != nil {
			return nil, err
		}
	}
	return readCheckpointOf(data, s, false)
}

// readCheckpointOf reads a checkpoint into a new state.
func readCheckpointOf(data []byte, s *State, keyless bool) (*State, error) {
	s.keyless = keyless
	if err := readCheckpoint(data, s); err != nil {
		return nil, fmt.Errorf("checkpoint of the live log: %w", damaged(err))
	}
	return s, nil
}

// mostUnpacked returns how many bytes a checkpoint of so many may unpack to. Ids, times and
// reasons do not repeat more than that.
func mostUnpacked(packed int) int64 { return 64<<20 + 256*int64(packed) }

func readCheckpoint(data []byte, s *State) error {
	at := len(data) - trailerSize
	if at < 0 || !bytes.Equal(data[at:at+8], trailerMark[:]) {
		return errors.New("it does not end as one does: it is cut, or none")
	}
	if hash := sha256.Sum256(data[:at]); !bytes.Equal(hash[:], data[at+8:]) {
		return errors.New("its bytes do not have the SHA-256 that it says")
	}
	z, err := zstd.NewReader(bytes.NewReader(data[:at]), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(16<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	most := mostUnpacked(at)
	r := &reading{
		State: s, decoder: decoder.NewDecoder(io.LimitReader(z, most)), most: most,
	}
	return r.all()
}

// reading is a checkpoint that is being read.
type reading struct {
	*State
	decoder *cbor.Decoder
	top     wireTop
	most    int64 // bytes
}

// next reads the next item.
func (r *reading) next(what string, item any) error {
	err := r.decoder.Decode(item)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, plain(err))
	}
	return nil
}

func (r *reading) all() error {
	if err := r.readTop(); err != nil {
		return err
	}
	r.lineage.log = r.top.Log
	for range r.top.Forks {
		var f wireFork
		if err := r.next("forks", &f); err != nil {
			return err
		}
		if len(f.Log) > maxLogID || f.Log >= r.top.Log || len(r.lineage.forks) > 0 && f.Log <= r.lineage.forks[len(r.lineage.forks)-1].Log {
			return errors.New("forks: the ids of logs do not ascend")
		}
		r.lineage.forks = append(r.lineage.forks, Fork{f.Log, f.Common})
	}
	if err := r.readDowns(); err != nil {
		return fmt.Errorf("takedowns: %w", err)
	}
	if err := r.readGone(); err != nil {
		return fmt.Errorf("forgotten users: %w", err)
	}
	for _, of := range []struct {
		tower shard.Kind
		count uint64
	}{{shard.Apps, r.top.Apps}, {shard.Users, r.top.Users}} {
		if err := r.readRecords(of.tower, of.count); err != nil {
			return fmt.Errorf("records of %s: %w", of.tower, err)
		}
	}
	if err := r.readEntries(); err != nil {
		return fmt.Errorf("remembered entries: %w", err)
	}
	var more cbor.RawMessage
	if err := r.decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("something follows what it says it holds")
	}
	if d := r.Digest(); !bytes.Equal(d[:], r.top.Digest) {
		return fmt.Errorf("what it holds has the digest %s, and it says %x", d, r.top.Digest)
	}
	return nil
}

func (r *reading) readTop() error {
	var first cbor.RawMessage
	if err := r.next("header", &first); err != nil {
		return err
	}
	if err := checkVersion(first, CheckpointVersion); err != nil {
		return err
	}
	if err := unmarshal(first, &r.top); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	at, err := timeOf(r.top.Time)
	switch t := &r.top; {
	case err != nil:
		return fmt.Errorf("header: %w", err)
	case t.Sequence == 0 || len(t.Hash) != len(appendlog.Hash{}) || len(t.Digest) != len(Digest{}) || len(t.Log) > maxLogID:
		return fmt.Errorf("header: entry %d has a hash of %d bytes, a digest of %d, in a log of an id of %d", t.Sequence, len(t.Hash), len(t.Digest), len(t.Log))
	case t.Entries < 1 || t.Entries > t.Sequence:
		return fmt.Errorf("header: it remembers %d entries of %d", t.Entries, t.Sequence)
	case max(t.Takedowns, t.Forgotten, t.Apps, t.Users, t.Entries) > uint64(r.most)/4 || t.Forks > maxForks:
		return errors.New("header: it says that it holds more than it has bytes for")
	case len(t.Key) != 0 && len(t.Key) != len(r.keyName):
		return fmt.Errorf("header: the name of the key has %d bytes, want %d", len(t.Key), len(r.keyName))
	case t.Forgotten > 0 && r.key == nil && !r.keyless:
		return ErrKey
	}
	copy(r.keyName[:], r.top.Key)
	if r.key != nil {
		if err := r.key.checkName(r.keyName); err != nil {
			return err
		}
	}
	r.time = at
	r.position = Position{r.top.Log, r.top.Sequence, appendlog.Hash(r.top.Hash)}
	return nil
}

// order checks that items come in their order, each once, and of entries up to the last.
type order struct {
	last  item
	begun bool
}

func (r *reading) check(o *order, i item, sequence uint64) error {
	if o.begun && o.last.compare(i) >= 0 {
		return errors.New("they are not in order")
	}
	o.last, o.begun = i, true
	if sequence < 1 || sequence > r.position.Sequence {
		return fmt.Errorf("one is of entry %d; accepted: 1 to %d", sequence, r.position.Sequence)
	}
	return nil
}

func (r *reading) readDowns() error {
	if r.top.Takedowns == 0 {
		return nil
	}
	f := fill(int(r.top.Takedowns))
	var o order
	var block wireDowns
	for left := r.top.Takedowns; left > 0; {
		block = wireDowns{block.IDs[:0], block.Sequences[:0], block.Times[:0], block.Texts[:0], block.Text[:0]}
		if err := r.next("block", &block); err != nil {
			return err
		}
		n := int(min(left, blockSize))
		if len(block.IDs) != n || len(block.Sequences) != n || len(block.Times) != n || len(block.Text) != n || len(block.Texts) > n {
			return fmt.Errorf("a block has %d ids, %d sequences, %d times, %d texts; want %d", len(block.IDs), len(block.Sequences), len(block.Times), len(block.Text), n)
		}
		for _, t := range block.Texts {
			if err := errors.Join(checkText("reason", t.Reason, MaxReason), checkText("author", t.Author, MaxAuthor)); err != nil {
				return err
			}
		}
		for i, id := range block.IDs {
			at, err := timeOf(block.Times[i])
			if err == nil {
				err = shard.CheckID(id)
			}
			if err == nil && block.Text[i] >= uint64(len(block.Texts)) {
				err = fmt.Errorf("text %d of %d", block.Text[i], len(block.Texts))
			}
			it := item{hash: hashKey(id), key: id}
			if err == nil {
				err = r.check(&o, it, block.Sequences[i])
			}
			if err != nil {
				return err
			}
			t := block.Texts[block.Text[i]]
			d := Down{block.Sequences[i], at, t.Reason, t.Author}
			it.value = r.texts.encode(d)
			r.digest.add(d.sum(id))
			f.add(it)
		}
		left -= uint64(n)
	}
	r.down = TakenDown{&downs{f.end(), r.texts.list}}
	return nil
}

func (r *reading) readGone() error {
	if r.top.Forgotten == 0 {
		return nil
	}
	f := fill(int(r.top.Forgotten))
	var o order
	for left := r.top.Forgotten; left > 0; {
		var block wireGone
		if err := r.next("block", &block); err != nil {
			return err
		}
		n := int(min(left, blockSize))
		if len(block.Users) != n*len(UserHash{}) || len(block.Sequences) != n || len(block.Times) != n {
			return fmt.Errorf("a block has %d bytes of hashes, %d sequences, %d times; want %d", len(block.Users), len(block.Sequences), len(block.Times), n)
		}
		for i := range n {
			h := UserHash(block.Users[i*len(UserHash{}):])
			at, err := timeOf(block.Times[i])
			it := item{hash: hashKey(string(h[:])), key: string(h[:])}
			if err == nil {
				err = r.check(&o, it, block.Sequences[i])
			}
			if err != nil {
				return err
			}
			g := Gone{block.Sequences[i], at}
			it.value = g.encode()
			r.digest.add(g.sum(h))
			f.add(it)
		}
		left -= uint64(n)
	}
	r.gone = Forgotten{&forgotten{f.end(), r.key}}
	return nil
}

func (r *reading) readRecords(tower shard.Kind, count uint64) error {
	last := ""
	for range count {
		var w wireRecord
		if err := r.next("record", &w); err != nil {
			return err
		}
		if w.Entity <= last {
			return fmt.Errorf("%.80q follows %.80q; want ascending ids", w.Entity, last)
		}
		last = w.Entity
		record, err := w.record(tower, r.position.Sequence)
		if err != nil {
			return fmt.Errorf("%.80q: %w", w.Entity, err)
		}
		r.put(tower, w.Entity, record)
	}
	return nil
}

func (r *reading) readEntries() error {
	for n := range r.top.Entries {
		var w wireEntry
		if err := r.next("entry", &w); err != nil {
			return err
		}
		at, err := timeOf(w.Time)
		switch {
		case err != nil:
			return err
		case w.Sequence != r.position.Sequence-(r.top.Entries-1-n):
			return fmt.Errorf("entry %d is not where it belongs", w.Sequence)
		case len(w.Hash) != len(pastEntry{}.hash) || len(w.Events)%eventSize != 0 || len(w.Events) > MaxEvents*eventSize:
			return fmt.Errorf("entry %d has %d bytes of a hash, %d bytes of events", w.Sequence, len(w.Hash), len(w.Events))
		}
		for events := w.Events; len(events) > 0; events = events[eventSize:] {
			id := eventHash(events[:16])
			if _, _, twice := r.past.find(id); twice {
				return fmt.Errorf("entry %d has an event that is remembered already", w.Sequence)
			}
			r.past.note(pastEvent{id, binary.BigEndian.Uint64(events[16:])})
		}
		var hash appendlog.Hash
		copy(hash[:], w.Hash)
		r.past.add(w.Sequence, at, hash)
	}
	last := r.past.entries
	if len(last) == 0 || last[len(last)-1].hash != [16]byte(r.position.Hash[:16]) {
		return errors.New("the last is not the one that the checkpoint is of")
	}
	return nil
}
