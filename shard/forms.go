package shard

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/text/unicode/norm"

	"github.com/tandem-ann/tandem/index/sections"
)

// forms are the Unicode normalisation forms, in which one text has different bytes: an é
// is one character or two. Ids are compared as bytes, so one that comes in another form
// than the tower's is unknown, and looks the same.
//
// A tower's id that is in NFKC or NFKD is found by bringing what is asked for to that form.
// Others, such as ＡＢＣ or the ligature of ﬁsh, are kept aside when a tower opens: all forms
// of a text have the same NFKD, by whose hash they are found.
var forms = [...]struct {
	name string
	norm.Form
}{{"NFC", norm.NFC}, {"NFD", norm.NFD}, {"NFKC", norm.NFKC}, {"NFKD", norm.NFKD}}

// maxForms is how many ids a tower keeps aside: 1 MiB of them.
const maxForms = 1 << 16

// formed is an id that is in neither NFKC nor NFKD.
type formed struct {
	hash  uint64 // of its NFKD
	shard uint32
	row   uint32
}

// inNoForm reports whether an id is in neither NFKC nor NFKD.
func inNoForm(id string) bool {
	return !isASCII(id) && !norm.NFKC.IsNormalString(id) && !norm.NFKD.IsNormalString(id)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// takeFormed returns what the ids of shards have kept aside, maxForms at most, in the order
// of their hashes. The shards keep it no longer.
func takeFormed(shards []*Shard) []formed {
	var list []formed
	for i, s := range shards {
		for _, f := range s.ids.formed[:min(len(s.ids.formed), maxForms-len(list))] {
			f.shard = uint32(i)
			list = append(list, f)
		}
		s.ids.formed = nil
	}
	slices.SortFunc(list, func(a, b formed) int { return cmp.Compare(a.hash, b.hash) })
	return slices.Clip(list)
}

// MayHaveOtherForm reports whether it takes [Tower.OtherForm] to know: false is certain, and
// costs little.
func (t *Tower) MayHaveOtherForm(id string) bool {
	return !isASCII(id) || len(t.formed) > 0 && len(t.formedBy(xxhash.Sum64String(id))) > 0
}

// OtherForm returns an id that the tower has and that is another Unicode form of id, and the
// name of the form that it is in, "" if it is in none; ok is false if there is no such id. A
// tower of which more than 65,536 ids are in neither NFKC nor NFKD knows only as many of
// those. An error is an [*UnreadableError].
func (t *Tower) OtherForm(id string) (other, form string, ok bool, err error) {
	if !isASCII(id) {
		for _, f := range forms {
			if other = f.String(id); other == id {
				continue
			}
			if ok, err = t.Has(other); ok || err != nil {
				return other, f.name, ok, err
			}
		}
	}
	if other, ok, err = t.keptForm(id); !ok {
		return "", "", false, err
	}
	for _, f := range forms {
		if f.IsNormalString(other) {
			return other, f.name, true, nil
		}
	}
	return other, "", true, nil
}

// formedBy returns what was kept aside by a hash.
func (t *Tower) formedBy(hash uint64) []formed {
	from, _ := slices.BinarySearchFunc(t.formed, hash, func(f formed, hash uint64) int { return cmp.Compare(f.hash, hash) })
	to := from
	for to < len(t.formed) && t.formed[to].hash == hash {
		to++
	}
	return t.formed[from:to]
}

// keptForm returns an id that was kept aside, and is another form of id.
func (t *Tower) keptForm(id string) (other string, ok bool, err error) {
	if len(t.formed) == 0 {
		return "", false, nil
	}
	plain := norm.NFKD.String(id)
	for _, at := range t.formedBy(xxhash.Sum64String(plain)) {
		s := t.shards[at.shard]
		if other, err = s.idOf(at.row); err != nil {
			return "", false, s.named(err)
		}
		if other != id && norm.NFKD.String(other) == plain {
			return other, true, nil
		}
	}
	return "", false, nil
}

// idOf returns a copy of the id of a row.
func (s *Shard) idOf(row uint32) (id string, err error) {
	defer sections.Guard(&err)()
	return strings.Clone(s.ids.at(row)), nil
}
