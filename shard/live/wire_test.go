package live

import (
	"bytes"
	"encoding/hex"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// What was appended is read as it was, of every kind.
func TestEntryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &writer{at: Position{rapid.SampledFrom([]string{"", "2026-a"}).Draw(t, "log"), 7, appendlog.HashOf([]byte("6"))}}
		events := rapid.SliceOfN(rapid.Custom(drawEvent), 0, 8).Draw(t, "events")
		previous := w.at.Hash
		entry := w.entry(t, noon, slices.Clone(events)...)
		c, err := Decode(entry.Data)
		require.NoError(t, err)
		require.Equal(t, previous, c.Previous)
		require.Equal(t, w.at.Log, c.Log)
		require.Equal(t, noon, c.Time)
		require.Equal(t, "tester", c.Author)
		require.Len(t, c.Events, len(events))
		for i, e := range events {
			e.Time = noon
			if e.Author == "" {
				e.Author = "tester"
			}
			if e.Kind == Forget {
				require.NotContains(t, string(entry.Data), "user-"+e.Entity)
				e.Entity, e.User, e.Key = "", HashUser(testKey, e.Entity), newHashKeys(testKey).name()
			}
			for name, v := range e.Attributes {
				if e.Kind == Upsert && v.Absent() {
					delete(e.Attributes, name)
				}
			}
			if len(e.Attributes) == 0 {
				e.Attributes = nil
			}
			require.Equal(t, e, c.Events[i])
		}
		require.Equal(t, appendlog.Links{Previous: previous, Log: c.Log}, links(entry.Data))
	})
}

// The id of a user who is forgotten is not in the entry.
func TestForgetHasNoID(t *testing.T) {
	w := &writer{}
	entry := w.entry(t, noon, forget("somebody in particular"))
	assert.NotContains(t, string(entry.Data), "somebody")
}

// The bytes of an entry are those of format.md. One from before entries had a checksum says
// the same, and a reader of that time sees in the checksum what tells entries from one another.
func TestEntryBytes(t *testing.T) {
	const (
		header = "0101" + "041b0000019ad4a25600" + "05626d65" + "0601"
		nonce  = "0750" + "0000000000000000" + "01000000"
		event  = "83" + "636f6e65" + "60" + "a4" + "0101" + "0201" + "0363613137" + "05676d616c77617265"
	)
	w := &writer{}
	e := takedown("a17")
	e.ID = "one"
	entry := w.commit(t, Commit{Time: time.UnixMilli(1764504000000).UTC(), Author: "me", Events: []Event{e}})
	assert.Equal(t, "a5"+nonce+"86901ad2"+header+event, hex.EncodeToString(entry.Data))
	now, err := Decode(entry.Data)
	require.NoError(t, err)
	old, err := hex.DecodeString("a5" + header + nonce + "00000000" + event)
	require.NoError(t, err)
	before, err := Decode(old)
	require.NoError(t, err)
	assert.Equal(t, before, now)

	var h struct { // what a reader knew of a header, who knew no checksum
		Version  uint64        `cbor:"1,keyasint"`
		Previous []byte        `cbor:"2,keyasint,omitempty"`
		Log      string        `cbor:"3,keyasint,omitempty"`
		Time     int64         `cbor:"4,keyasint"`
		Author   string        `cbor:"5,keyasint,omitempty"`
		Events   uint64        `cbor:"6,keyasint"`
		Nonce    []byte        `cbor:"7,keyasint"`
		Accepted *wireAccepted `cbor:"8,keyasint,omitempty"`
	}
	_, err = decoder.UnmarshalFirst(entry.Data, &h)
	require.NoError(t, err)
	assert.Len(t, h.Nonce, nonceSize)
}

// An entry with any other byte, or that is cut, is not read, and nothing that it says it
// follows counts.
func TestDecodeFindsDamage(t *testing.T) {
	w := &writer{at: Position{"2026", 7, appendlog.HashOf([]byte("6"))}}
	good := w.entry(t, noon, takedown("victimA"), upsert(shard.Apps, "b", "1", 1, 2), forget("u")).Data
	require.NotZero(t, links(good))
	for i := range good {
		for change := 1; change < 256; change++ {
			bad := slices.Clone(good)
			bad[i] ^= byte(change)
			_, err := Decode(bad)
			require.Error(t, err, "byte %d is %x", i, bad[i])
			require.NotContains(t, err.Error(), "Go ")
			if i > 2 {
				require.ErrorIs(t, err, ErrDamaged)
				require.Zero(t, links(bad))
			}
		}
		_, err := Decode(good[:i])
		require.Error(t, err, i)
	}
}

// eventsOf returns the events of an entry as they are encoded.
func eventsOf(t *testing.T, entry []byte) []byte {
	t.Helper()
	_, _, rest, err := decodeHeader(entry)
	require.NoError(t, err)
	return rest
}

func TestDecodeRefuses(t *testing.T) {
	w := &writer{}
	good := w.entry(t, noon, takedown("a"), upsert(shard.Apps, "b", "1", 1, 2)).Data
	_, err := Decode(good)
	require.NoError(t, err)
	header := func(h wireHeader) []byte {
		data, err := encoder.Marshal(h)
		require.NoError(t, err)
		return data
	}
	nonce := make([]byte, nonceSize)
	plainOld := append(header(wireHeader{Version: 1, Events: 2, Nonce: nonce}), eventsOf(t, good)...)
	event := func(id string, c wireChange) []byte {
		change, err := encoder.Marshal(c)
		require.NoError(t, err)
		data, err := encoder.Marshal(wireEvent{ID: id, Change: change})
		require.NoError(t, err)
		return append(header(wireHeader{Version: 1, Events: 1, Nonce: nonce}), data...)
	}
	of := func(kind Kind, c wireChange) wireChange {
		c.Kind, c.Tower, c.Entity = uint8(kind), 1, "a"
		return c
	}
	future, err := encoder.Marshal(map[int]any{1: 2, 99: "something new"})
	require.NoError(t, err)
	unknown, err := encoder.Marshal(map[int]any{1: 1, 4: 0, 6: 0, 7: nonce, 99: 1})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		data []byte
		text string
	}{
		"nothing":           {nil, "header: "},
		"text":              {[]byte("{}"), "header: "},
		"damaged":           {append(slices.Clone(good), 0), "it is damaged: its bytes have the CRC-32C "},
		"a later version":   {future, "its version is 2, this build reads 1: it was written by a newer version"},
		"an unknown field":  {unknown, "header: "},
		"no version":        {header(wireHeader{Nonce: nonce}), "its version is 0, this build reads 1"},
		"no nonce":          {header(wireHeader{Version: 1}), "the nonce has 0 bytes, want 16"},
		"a short hash":      {header(wireHeader{Version: 1, Nonce: nonce, Previous: []byte("x")}), "the hash of the entry before has 1 bytes, want 32"},
		"a long log":        {header(wireHeader{Version: 1, Nonce: nonce, Log: strings.Repeat("x", 65)}), "log and author have 65 and 0 bytes"},
		"a time before":     {header(wireHeader{Version: 1, Nonce: nonce, Time: -1}), "time -1; accepted: 0 to "},
		"a time after":      {header(wireHeader{Version: 1, Nonce: nonce, Time: math.MaxInt64}), "accepted: 0 to 253402300799999"},
		"too many events":   {append(header(wireHeader{Version: 1, Nonce: nonce, Events: 1 << 60}), 0), "it has 1152921504606846976 events in 1 bytes"},
		"an event too few":  {header(wireHeader{Version: 1, Nonce: nonce, Events: 1}), "it has 1 events in 0 bytes"},
		"cut":               {plainOld[:len(plainOld)-1], "event 1: "},
		"a byte more":       {append(slices.Clone(plainOld), 0), "1 bytes follow the events"},
		"no id":             {event("", of(Takedown, wireChange{Reason: "r"})), "event 0 has no id"},
		"a hostile id":      {event("a\x00", of(Takedown, wireChange{Reason: "r"})), `event_id: "a\x00" has the character U+0000`},
		"no reason":         {event("1", of(Takedown, wireChange{})), "reason: it is empty"},
		"no kind":           {event("1", of(0, wireChange{})), "kind 0 of tower 1 is unknown"},
		"a later kind":      {event("1", of(Moot+1, wireChange{})), "kind 9 of tower 1 is unknown"},
		"another tower":     {event("1", wireChange{Kind: 1, Tower: 3, Entity: "a", Reason: "r"}), "kind 1 of tower 3 is unknown"},
		"half a number":     {event("1", of(Upsert, wireChange{Model: "m", ModelVersion: "v", Vector: []byte("12345")})), "vector: 5 bytes are no numbers of 4"},
		"not a number":      {event("1", of(Upsert, wireChange{Model: "m", ModelVersion: "v", Vector: []byte{0, 0, 0xc0, 0x7f}})), "vector: component 0 is NaN"},
		"half a hash":       {event("1", wireChange{Kind: uint8(Forget), Tower: 2, User: []byte("1234")}), "the hash of a user has 4 bytes, want 16"},
		"an id to forget":   {event("1", wireChange{Kind: uint8(Forget), Tower: 2, User: nonce, Entity: "u"}), "and no id"},
		"names that repeat": {event("1", of(SetAttributes, wireChange{Attributes: []wireAttribute{{Name: "x", Type: 3, Value: cbor.RawMessage{0xf5}}, {Name: "x", Type: 3, Value: cbor.RawMessage{0xf5}}}})), `attribute "x" follows "x"`},
		"another type":      {event("1", of(SetAttributes, wireChange{Attributes: []wireAttribute{{Name: "x", Type: 3, Value: cbor.RawMessage{0x01}}}})), `attribute "x": `},
		"a list unsorted":   {event("1", of(SetAttributes, wireChange{Attributes: []wireAttribute{{Name: "x", Type: 2, Value: cbor.RawMessage{0x82, 0x61, 'b', 0x61, 'a'}}}})), "not encoded as one of its type"},
		"an int for float":  {event("1", of(SetAttributes, wireChange{Attributes: []wireAttribute{{Name: "x", Type: 5, Value: cbor.RawMessage{0x01}}}})), "not encoded as one of its type"},
		"an unknown type":   {event("1", of(SetAttributes, wireChange{Attributes: []wireAttribute{{Name: "x", Type: 8, Value: cbor.RawMessage{0x01}}}})), "type 8 is unknown"},
		"too long":          {make([]byte, maxEntryRead+1), "bytes; accepted: up to"},
	} {
		_, err := Decode(c.data)
		assert.ErrorContains(t, err, c.text, name)
		if name == "a later version" {
			assert.ErrorIs(t, err, ErrVersion)
		} else {
			assert.NotErrorIs(t, err, ErrVersion, name)
		}
	}
}

// A checkpoint of which one byte is another, or that is cut, is not read.
func TestReadCheckpointRefuses(t *testing.T) {
	w, s := &writer{}, keyed(t)
	for range 3 {
		apply(t, s, w.entry(t, noon, takedown("a"), upsert(shard.Apps, "b", "1", 1, 2), forget("u"), setTo(shard.Users, "v", "x", attribute.OfInt(1))))
	}
	good, err := s.Checkpoint()
	require.NoError(t, err)
	_, err = ReadCheckpoint(good, nil)
	assert.ErrorIs(t, err, ErrKey)
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		_, err := ReadCheckpoint(bad, testKey)
		assert.Error(t, err, i)
		_, err = ReadCheckpoint(good[:i], testKey)
		assert.Error(t, err, i)
	}
	_, err = ReadCheckpoint(append(slices.Clone(good), 0), testKey)
	assert.ErrorContains(t, err, "checkpoint of the live log: it is damaged: it does not end as one does")
}

// Whatever the bytes within, with a right hash: an error, or a state that writes itself.
func checkpointOf(t require.TestingT, items ...any) []byte {
	var b bytes.Buffer
	for _, i := range items {
		data, err := encoder.Marshal(i)
		require.NoError(t, err)
		b.Write(data)
	}
	return pack(t, b.Bytes())
}

func pack(t require.TestingT, content []byte) []byte {
	data, err := seal(func(w io.Writer) error { _, err := w.Write(content); return err })
	require.NoError(t, err)
	return data
}

func TestReadCheckpointOfHostileItems(t *testing.T) {
	hash, digest := make([]byte, 32), make([]byte, 32)
	entry := wireEntry{Sequence: 5, Hash: make([]byte, 16)}
	top := func(change func(*wireTop)) wireTop {
		top := wireTop{Version: 1, Sequence: 5, Hash: hash, Digest: digest, Entries: 1}
		change(&top)
		return top
	}
	_, err := ReadCheckpoint(checkpointOf(t, top(func(*wireTop) {}), entry), nil)
	require.NoError(t, err)
	record := wireRecord{Entity: "a", Removed: 3}
	for name, c := range map[string]struct {
		items []any
		text  string
	}{
		"nothing":          {nil, "header: unexpected EOF"},
		"a later version":  {[]any{map[int]any{1: 2}}, "its version is 2"},
		"much":             {[]any{top(func(w *wireTop) { w.Takedowns = 1 << 62 })}, "more than it has bytes for"},
		"many forks":       {[]any{top(func(w *wireTop) { w.Forks = 1000 })}, "more than it has bytes for"},
		"more entries":     {[]any{top(func(w *wireTop) { w.Entries = 6 })}, "it remembers 6 entries of 5"},
		"no entry":         {[]any{top(func(w *wireTop) { w.Entries = 0 })}, "it remembers 0 entries of 5"},
		"another entry":    {[]any{top(func(*wireTop) {}), wireEntry{Sequence: 4, Hash: make([]byte, 16)}}, "entry 4 is not where it belongs"},
		"another hash":     {[]any{top(func(*wireTop) {}), wireEntry{Sequence: 5, Hash: []byte("0123456789abcdef")}}, "not the one that the checkpoint is of"},
		"too few items":    {[]any{top(func(*wireTop) {})}, "remembered entries: entry: unexpected EOF"},
		"too many items":   {[]any{top(func(*wireTop) {}), entry, 1}, "something follows"},
		"another digest":   {[]any{top(func(w *wireTop) { w.Apps = 1 }), record, entry}, "and it says 0000"},
		"records twice":    {[]any{top(func(w *wireTop) { w.Apps = 2 }), record, record, entry}, `"a" follows "a"`},
		"an empty record":  {[]any{top(func(w *wireTop) { w.Apps = 1 }), wireRecord{Entity: "a"}, entry}, "it says nothing"},
		"a record to come": {[]any{top(func(w *wireTop) { w.Apps = 1 }), wireRecord{Entity: "a", Removed: 6}, entry}, "it is of entry 6"},
		"a user's window":  {[]any{top(func(w *wireTop) { w.Users = 1 }), wireRecord{Entity: "a", Window: wireWindowOf(Window{From: noon})}, entry}, "a user has none"},
		"a bad id":         {[]any{top(func(w *wireTop) { w.Apps = 1 }), wireRecord{Entity: strings.Repeat("a", 257), Removed: 1}, entry}, "want 1 to 256"},
		"columns unlike":   {[]any{top(func(w *wireTop) { w.Takedowns = 1 }), wireDowns{IDs: []string{"a"}}, entry}, "a block has 1 ids, 0 sequences"},
		"no such text":     {[]any{top(func(w *wireTop) { w.Takedowns = 1 }), wireDowns{IDs: []string{"a"}, Sequences: []uint64{1}, Times: []int64{0}, Text: []uint64{1}, Texts: []wireText{{}}}, entry}, "text 1 of 1"},
		"forks descend":    {[]any{top(func(w *wireTop) { w.Forks, w.Log = 2, "c" }), wireFork{Log: "b"}, wireFork{Log: "a"}, entry}, "do not ascend"},
		"users unlike":     {[]any{top(func(w *wireTop) { w.Forgotten = 1 }), wireGone{Users: make([]byte, 15)}, entry}, "15 bytes of hashes"},
	} {
		_, err := ReadCheckpoint(checkpointOf(t, c.items...), testKey)
		assert.ErrorContains(t, err, c.text, name)
	}
	// Little that unpacks to much is not unpacked to its end.
	_, err = ReadCheckpoint(pack(t, make([]byte, 1<<30)), nil)
	assert.Error(t, err)
}

func FuzzDecode(f *testing.F) {
	w := &writer{}
	f.Add(w.entry(f, noon, takedown("a"), upsert(shard.Users, "b", "1", 1, 2), forget("u")).Data)
	window := setTo(shard.Apps, "b", "x", attribute.OfTimestamp(noon))
	window.Window = &Window{From: noon}
	f.Add(w.entry(f, noon, setTo(shard.Apps, "b", "x", attribute.OfKeywords([]string{"a", "b"})), window, remove(shard.Apps, "c")).Data)
	f.Add(w.commit(f, Commit{Log: "2026", Time: noon, Accepted: &Accepted{"restored", 3}}).Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode(data)
		if err != nil {
			return
		}
		for _, e := range c.Events {
			require.NoError(t, e.Check())
		}
		again, err := c.encode()
		require.NoError(t, err)
		d, err := Decode(again)
		require.NoError(t, err)
		require.Equal(t, c, d)
		s := keyed(t)
		s.position = Position{c.Log, 4, c.Previous}
		apply(t, s, appendlog.Entry{Sequence: 5, Data: data})
	})
}

func FuzzReadCheckpoint(f *testing.F) {
	add := func(s *State) {
		var b bytes.Buffer
		require.NoError(f, s.freeze().write(&b))
		f.Add(b.Bytes())
	}
	w, s := &writer{}, keyed(f)
	apply(f, s, w.entry(f, noon, takedown("a"), upsert(shard.Apps, "b", "1", 1, 2), forget("u"), setTo(shard.Users, "v", "x", attribute.OfInt(1)), remove(shard.Apps, "c")))
	add(s)
	apply(f, s, w.commit(f, Commit{Log: "2026", Time: noon, Accepted: &Accepted{"restored", 3}}))
	add(s)
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := ReadCheckpoint(pack(t, content), testKey)
		if err != nil {
			return
		}
		data, err := s.Checkpoint()
		require.NoError(t, err)
		again, err := ReadCheckpoint(data, testKey)
		require.NoError(t, err)
		require.Equal(t, s.Digest(), again.Digest())
		require.Equal(t, textOf(s), textOf(again))
	})
}
