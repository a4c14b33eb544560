package shard

import (
	"cmp"
	"context"
	"iter"
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
// of a text have the same NFKD, by whose hash they are found. Shards that are in memory keep
// their own.
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

// formedID is an id that is in neither NFKC nor NFKD, of a part that is elsewhere.
type formedID struct {
	hash uint64 // of its NFKD
	id   string
}

// UnformedIDs returns copies of ids of [Tower.Local] that are in neither of the Unicode forms NFKC
// and NFKD, as far as the tower knows them and their texts have so many bytes at most. It is for
// [Tower.KnowForms] of towers whose parts are elsewhere. The error says what could not be read.
func (t *Tower) UnformedIDs(bytes int) ([]string, error) {
	var ids []string
	for _, f := range t.formed {
		id, err := t.local[f.shard].idOf(f.row)
		if err != nil {
			return nil, t.local[f.shard].named(err)
		}
		if bytes -= len(id); bytes < 0 {
			break
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// KnowForms has the tower know ids of parts that are elsewhere, so that [Tower.OtherForm] finds
// those that are in neither NFKC nor NFKD. Of more than 65,536 it takes as many. It is called before
// the tower is used, and for towers that [Tower.With] makes of it too.
func (t *Tower) KnowForms(ids []string) {
	for _, id := range ids[:min(len(ids), maxForms)] {
		if inNoForm(id) {
			t.formedElsewhere = append(t.formedElsewhere, formedID{xxhash.Sum64String(norm.NFKD.String(id)), id})
		}
	}
	slices.SortFunc(t.formedElsewhere, func(a, b formedID) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.id, b.id)) })
}

// elsewhereBy returns what is known of parts that are elsewhere by a hash.
func (t *Tower) elsewhereBy(hash uint64) []formedID {
	list := t.formedElsewhere
	from, _ := slices.BinarySearchFunc(list, hash, func(f formedID, hash uint64) int { return cmp.Compare(f.hash, hash) })
	to := from
	for to < len(list) && list[to].hash == hash {
		to++
	}
	return list[from:to]
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
	if !isASCII(id) {
		return true
	}
	if len(t.formedElsewhere) > 0 && len(t.elsewhereBy(xxhash.Sum64String(id))) > 0 {
		return true
	}
	hash := uint64(0)
	for _, list := range t.allFormed() {
		if len(list) == 0 {
			continue
		}
		if hash == 0 {
			hash = xxhash.Sum64String(id)
		}
		if len(formedBy(list, hash)) > 0 {
			return true
		}
	}
	return false
}

// allFormed yields lists of ids that were kept aside, with the shards that they are of.
func (t *Tower) allFormed() iter.Seq2[[]*Shard, []formed] {
	return func(yield func([]*Shard, []formed) bool) {
		if !yield(t.local, t.formed) {
			return
		}
		for i, s := range t.beside {
			if !yield(t.beside[i:i+1], s.ids.formed) {
				return
			}
		}
	}
}

// OtherForm returns an id that the tower has and that is another Unicode form of id, and the
// name of the form that it is in, "" if it is in none; ok is false if there is no such id. Of
// ids that are in neither NFKC nor NFKD a tower knows those of [Tower.Local], and of more
// than 65,536 only as many, those that it was told of ([Tower.KnowForms]), and those of parts that
// are [Tower.InMemory]. An error is as of
// [Tower.Vector].
func (t *Tower) OtherForm(ctx context.Context, at Moment, id string) (other, form string, ok bool, err error) {
	if !isASCII(id) {
		for _, f := range forms {
			if other = f.String(id); other == id {
				continue
			}
			if ok, err = t.Has(ctx, at, other); ok || err != nil {
				return other, f.name, ok, err
			}
		}
	}
	if other, ok, err = t.keptForm(ctx, at, id); !ok {
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
func formedBy(list []formed, hash uint64) []formed {
	from, _ := slices.BinarySearchFunc(list, hash, func(f formed, hash uint64) int { return cmp.Compare(f.hash, hash) })
	to := from
	for to < len(list) && list[to].hash == hash {
		to++
	}
	return list[from:to]
}

// keptForm returns an id that was kept aside, and is another form of id.
func (t *Tower) keptForm(ctx context.Context, at Moment, id string) (other string, ok bool, err error) {
	plain := ""
	for shards, list := range t.allFormed() {
		if len(list) == 0 {
			continue
		}
		if plain == "" {
			plain = norm.NFKD.String(id)
		}
		for _, f := range formedBy(list, xxhash.Sum64String(plain)) {
			s := shards[f.shard]
			if other, err = s.idOf(f.row); err != nil {
				return "", false, s.named(err)
			}
			if other == id || norm.NFKD.String(other) != plain {
				continue
			}
			// What lies over the shard may have taken it away.
			if ok, err = t.Has(ctx, at, other); ok || err != nil {
				return other, ok, err
			}
		}
	}
	if len(t.formedElsewhere) == 0 {
		return "", false, nil
	}
	plain = norm.NFKD.String(id)
	for _, f := range t.elsewhereBy(xxhash.Sum64String(plain)) {
		if f.id == id || norm.NFKD.String(f.id) != plain {
			continue
		}
		if ok, err = t.Has(ctx, at, f.id); ok || err != nil {
			return f.id, ok, err
		}
	}
	return "", false, nil
}

// idOf returns a copy of the id of a row.
func (s *Shard) idOf(row uint32) (id string, err error) {
	defer sections.Guard(&err)()
	return strings.Clone(s.ids.at(row)), nil
}
