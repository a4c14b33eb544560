package tower

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// A jsonKey is what is known of one key. The first pass counts its values by what they
// look like, and decide makes a type of that.
type jsonKey struct {
	name    string
	typ     attribute.Type // 0 until it is decided
	told    bool           // its type was given
	reason  string         // why it is the type
	ignored bool
	field   int   // position in the schema
	seen    int64 // line where it was last seen

	counts [looks]int64
	first  [looks]int64 // lines
}

// A look is what a value looks like.
type look uint8

const (
	lookBool    look = iota
	lookInteger      // an integer that both int64 and float64 hold exactly
	lookLong         // an integer that int64 holds, and float64 does not
	lookHuge         // an integer that int64 does not hold
	lookFloat        // a number with a fraction or an exponent, or an infinity
	lookTime         // a string that is a date and a time of day
	lookText         // any other string
	lookList         // an array of strings and nulls
	lookArray        // any other array
	lookObject
	looks // how many there are
)

// jsonLooks groups looks by the kind of value, in the order in which texts name them.
var jsonLooks = [...]struct {
	kind  string
	looks []look
}{
	{"bools", []look{lookBool}},
	{"numbers", []look{lookInteger, lookLong, lookHuge, lookFloat}},
	{"strings", []look{lookTime, lookText}},
	{"arrays of strings", []look{lookList}},
	{"arrays of other than strings", []look{lookArray}},
	{"objects", []look{lookObject}},
}

// observe counts a value that is not null.
func (k *jsonKey) observe(line int64, l look) {
	if k.counts[l]++; k.counts[l] == 1 {
		k.first[l] = line
	}
}

// sum returns how many values have one of some looks, and the line of the first.
func (k *jsonKey) sum(list ...look) (n, line int64) {
	for _, l := range list {
		if k.counts[l] > 0 && (line == 0 || k.first[l] < line) {
			line = k.first[l]
		}
		n += k.counts[l]
	}
	return n, line
}

// decide gives the key the type that most of its values have; of kinds that are equally
// many, the one that came first. What cannot be of that type the second pass rejects. It
// returns the line of a value of a kind that cannot be stored, if those are the most, and
// notes.
func (k *jsonKey) decide() (kind string, unusable int64, notes []string) {
	var total, most, first int64
	var winner int
	for i, g := range jsonLooks {
		n, line := k.sum(g.looks...)
		total += n
		if n > most || n == most && n > 0 && line < first {
			winner, most, first = i, n, line
		}
	}
	if most == 0 {
		return "", 0, nil
	}
	kind = jsonLooks[winner].kind
	k.reason = fmt.Sprintf("as %d of %d values are %s", most, total, kind)
	switch kind {
	case "bools":
		k.typ = attribute.Bool
	case "numbers":
		notes = k.decideNumber(most)
	case "strings":
		notes = k.decideString(most)
	case "arrays of strings":
		k.typ = attribute.KeywordList
	default:
		return kind, first, nil
	}
	return kind, 0, notes
}

// decideNumber makes integers and others floats if that changes none of them, and else
// what most of them are.
func (k *jsonKey) decideNumber(total int64) (notes []string) {
	floats, _ := k.sum(lookFloat)
	exceeding, _ := k.sum(lookLong, lookHuge)
	switch {
	case floats == 0:
		k.typ = attribute.Int
		return nil
	case exceeding > 0 && floats <= total-floats:
		k.typ = attribute.Int
		k.reason = fmt.Sprintf("as %d of %d numbers are integers, and some of them have more digits than a float holds", total-floats, total)
		return nil
	}
	k.typ = attribute.Float
	if floats*nearlyAll < total {
		notes = append(notes, fmt.Sprintf("key %s: %d of %d numbers have a fraction or an exponent, so it is of type float; it can be told to be int", k.name, floats, total))
	}
	return notes
}

// nearlyAll is one in how many values may be of another sort than the rest without being
// what the key is about.
const nearlyAll = 20

// decideString makes a key a timestamp if more than half of its strings are.
func (k *jsonKey) decideString(total int64) (notes []string) {
	times, _ := k.sum(lookTime)
	if 2*times > total {
		k.typ = attribute.Timestamp
		k.reason = fmt.Sprintf("as %d of %d strings are dates and times", times, total)
		return nil
	}
	k.typ = attribute.Keyword
	if times > 0 {
		notes = append(notes, fmt.Sprintf("key %s: %d of %d strings are dates and times, so it is of type keyword; it can be told to be timestamp", k.name, times, total))
	}
	return notes
}

// lookOf returns what a value looks like; null is none of these.
func (r *AttributeReader) lookOf(kind jsonKind, raw []byte) (l look, null bool) {
	switch kind {
	case jsonBool:
		return lookBool, false
	case jsonInteger:
		return lookOfInteger(string(raw)), false
	case jsonNumber, jsonInfinity:
		return lookFloat, false
	case jsonString:
		r.scratch = appendJSONString(r.scratch[:0], raw)
		if len(r.scratch) <= maxTimeText {
			if _, _, ok := parseTime(string(r.scratch)); ok && !isDate(string(r.scratch)) {
				return lookTime, false
			}
		}
		return lookText, false
	case jsonArray:
		if isList(raw) {
			return lookList, false
		}
		return lookArray, false
	case jsonObject:
		return lookObject, false
	}
	return 0, true // null, and NaN, which stands for it
}

// lookOfInteger returns what an integer looks like.
func lookOfInteger(text string) look {
	const exact = 1 << 53 // the largest magnitude below which float64 holds every integer
	i, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return lookHuge
	case i > exact || i < -exact:
		if holdsExactly(text) {
			return lookInteger
		}
		return lookLong
	}
	return lookInteger
}

// holdsExactly reports whether float64 has an integer as it is.
func holdsExactly(text string) bool {
	f, err := strconv.ParseFloat(text, 64)
	digits := strings.TrimLeft(strings.TrimPrefix(text, "-"), "0")
	return err == nil && strconv.FormatFloat(math.Abs(f), 'f', 0, 64) == digits || digits == ""
}

// isList reports whether an array has strings and nulls only.
func isList(raw []byte) bool {
	list := true
	eachElement(raw, func(kind jsonKind, _ []byte) bool {
		list = kind == jsonString || kind == jsonNull || kind == jsonNaN
		return list
	})
	return list
}

// loneSurrogate reports whether a JSON string has half a surrogate pair, which is no
// character: decoders would put another in its place.
func loneSurrogate(raw []byte) bool {
	if !bytes.Contains(raw, []byte(`\u`)) {
		return false
	}
	unit := func(i int) (u uint64) {
		if i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
			u, _ = strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		}
		return u
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		switch u := unit(i); {
		case u >= 0xd800 && u < 0xdc00 && unit(i+6)&0xfc00 == 0xdc00:
			i += 11
		case u >= 0xd800 && u < 0xe000:
			return true
		default:
			i++
		}
	}
	return false
}
