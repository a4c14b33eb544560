package live

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"time"
)

// Down is one takedown that holds: the last of those that came since the app was restored. The
// digests of states have it, so another choice would be another meaning of logs that are there.
type Down struct {
	Sequence uint64 // of the entry that it is in
	Time     time.Time
	Reason   string
	Author   string
}

// TakenDown are the apps that are taken down at one position. It does not change, and any
// number of goroutines may use it. The zero TakenDown has none.
type TakenDown struct{ *downs }

type downs struct {
	set   set
	texts []text // that values refer to by number
}

// text is what is the same of many takedowns.
type text struct{ reason, author string }

// maxTexts is how many texts are kept once for all takedowns that have them. Others are
// kept with each.
const maxTexts = 4096

// texts gives texts their numbers.
type texts struct {
	list    []text
	numbers map[text]uint64
}

func newTexts() *texts { return &texts{numbers: map[text]uint64{}} }

// encode returns the value of a takedown in the set: its sequence, its time, the number of
// its text from 1 on, or 0 and the text.
func (t *texts) encode(d Down) string {
	of := text{d.Reason, d.Author}
	number, known := t.numbers[of]
	if !known && len(t.list) < maxTexts {
		of = text{strings.Clone(of.reason), strings.Clone(of.author)}
		t.list = append(t.list, of)
		number, known = uint64(len(t.list)), true
		t.numbers[of] = number
	}
	var buffer [64]byte
	data := binary.AppendUvarint(buffer[:0], d.Sequence)
	data = binary.AppendVarint(data, d.Time.UnixMilli())
	data = binary.AppendUvarint(data, number)
	if !known {
		data = binary.AppendUvarint(data, uint64(len(of.reason)))
		data = append(data, of.reason...)
		data = append(data, of.author...)
	}
	return string(data)
}

func (d *downs) decode(value string) Down {
	data := []byte(value)
	sequence, n := binary.Uvarint(data)
	data = data[n:]
	milliseconds, n := binary.Varint(data)
	data = data[n:]
	number, n := binary.Uvarint(data)
	data = data[n:]
	var of text
	if number > 0 {
		of = d.texts[number-1]
	} else {
		length, n := binary.Uvarint(data)
		data = data[n:]
		of = text{string(data[:length]), string(data[length:])}
	}
	return Down{sequence, time.UnixMilli(milliseconds).UTC(), of.reason, of.author}
}

// Has reports whether an app is taken down. It allocates nothing.
func (t TakenDown) Has(id string) bool {
	if t.downs == nil {
		return false
	}
	_, ok := t.set.find(id)
	return ok
}

// HasAny reports whether any of some apps is taken down. It allocates nothing, and takes far
// less than to ask for each.
func (t TakenDown) HasAny(ids []string) bool { return t.downs != nil && t.set.hasAny(ids) }

// Get returns the takedown of an app, if it is taken down.
func (t TakenDown) Get(id string) (Down, bool) {
	if t.downs == nil {
		return Down{}, false
	}
	value, ok := t.set.find(id)
	if !ok {
		return Down{}, false
	}
	return t.decode(value), true
}

// Len returns how many apps are taken down.
func (t TakenDown) Len() int {
	if t.downs == nil {
		return 0
	}
	return t.set.count
}

// All returns all takedowns, by ascending id. It sorts them first.
func (t TakenDown) All() iter.Seq2[string, Down] {
	return func(yield func(string, Down) bool) {
		if t.downs == nil {
			return
		}
		type one struct{ id, value string }
		list := make([]one, 0, t.set.count)
		for i := range t.set.all() {
			list = append(list, one{i.key, i.value})
		}
		slices.SortFunc(list, func(a, b one) int { return strings.Compare(a.id, b.id) })
		for _, i := range list {
			if !yield(i.id, t.decode(i.value)) {
				return
			}
		}
	}
}
