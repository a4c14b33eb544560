package tower

import (
	"bytes"
	"fmt"
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
	lookBool     look = iota
	lookInteger       // an integer that both int64 and float64 hold exactly
	lookLong          // an integer that int64 holds, and float64 does not
	lookHuge          // an integer that int64 does not hold
	lookFloat         // a number with a fraction or an exponent
	lookInfinite      // an infinity, or a number that float64 does not hold; it is rejected
	lookTime          // a string that is a date and a time of day
	lookDate          // a string that is a date
	lookText          // any other string
	lookList          // an array of strings and nulls
	lookArray         // any other array
	lookObject
	looks // how many there are
)

// jsonLooks groups looks by the kind of value, in the order in which texts name them. What
// is rejected as a number of any type has no say.
var jsonLooks = [...]struct {
	kind  string
	looks []look
}{
	{"bools", []look{lookBool}},
	{"numbers", []look{lookInteger, lookLong, lookFloat}},
	{"strings", []look{lookTime, lookDate, lookText}},
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
	switch {
	case most > 0:
	case k.counts[lookHuge] > 0:
		k.typ, k.reason = attribute.Int, "as its values are integers"
		return "numbers", 0, nil
	case k.counts[lookInfinite] > 0:
		k.typ, k.reason = attribute.Float, "as its values are infinite"
		return "numbers", 0, nil
	default:
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
	exceeding, _ := k.sum(lookLong)
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

// areNearlyAll reports whether n of a total are all but one in nearlyAll.
func areNearlyAll(n, total int64) bool { return n > 0 && (total-n)*nearlyAll <= total }

// decideString makes a key a timestamp if more than half of its strings are. Dates alone
// may be what people typed, so of those it takes nearly all.
func (k *jsonKey) decideString(total int64) (notes []string) {
	times, _ := k.sum(lookTime)
	dates, _ := k.sum(lookDate)
	dated := fmt.Sprintf("%d of %d strings are dates and times", times, total)
	if dates > 0 {
		dated = fmt.Sprintf("%d of %d strings are dates or times", times+dates, total)
	}
	if 2*times > total || areNearlyAll(times+dates, total) {
		k.typ = attribute.Timestamp
		k.reason = "as " + dated
		return nil
	}
	k.typ = attribute.Keyword
	if times+dates > 0 {
		notes = append(notes, fmt.Sprintf("key %s: %s, so it is of type keyword; it can be told to be timestamp", k.name, dated))
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
	case jsonInfinity:
		return lookInfinite, false
	case jsonNumber:
		if _, err := strconv.ParseFloat(string(raw), 64); err != nil {
			return lookInfinite, false
		}
		return lookFloat, false
	case jsonString:
		r.scratch = appendJSONString(r.scratch[:0], raw)
		return lookOfText(r.scratch), false
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

// lookOfText returns what a string looks like.
func lookOfText(text []byte) look {
	if len(text) > maxTimeText {
		return lookText
	}
	s := string(text)
	switch _, _, ok := parseTime(s); {
	case !ok:
		return lookText
	case isDate(s):
		return lookDate
	}
	return lookTime
}

// lookOfInteger returns what an integer looks like.
func lookOfInteger(text string) look {
	const exact = 1 << 53 // the largest magnitude below which float64 holds every integer
	i, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return lookHuge
	case i > exact || i < -exact:
		if holdsExactly(text, 64) {
			return lookInteger
		}
		return lookLong
	}
	return lookInteger
}

// holdsExactly reports whether a float of a width has an integer as it is. What is no
// integer may be rounded.
func holdsExactly(text string, width int) bool {
	text = strings.TrimLeft(strings.TrimLeft(text, "+-"), "0")
	if len(text) < 8 || !digits(text) { // every integer of 7 digits is below 2^24
		return true
	}
	f, err := strconv.ParseFloat(text, width)
	return err == nil && strconv.FormatFloat(f, 'f', 0, width) == text
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
