package tower

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// A jsonKind is the kind of a JSON value.
type jsonKind uint8

const (
	jsonNull jsonKind = iota
	jsonBool
	jsonInteger // a number without fraction and exponent
	jsonNumber
	jsonString
	jsonArray
	jsonObject
	jsonNaN      // NaN, which Python writes
	jsonInfinity // Infinity and -Infinity, likewise
)

var jsonKindNames = [...]string{"null", "bool", "integer", "number", "string", "array", "object", "NaN", "infinity"}

func (k jsonKind) String() string { return jsonKindNames[k] }

// validObject reports whether line is one JSON object in UTF-8, in which NaN, Infinity and
// -Infinity may be numbers. Only on such lines may the functions below be used: they find
// values in JSON that is known to be valid, which is several times faster than decoding it.
func validObject(line []byte) bool {
	line = bytes.TrimLeft(line, " \t\r")
	if len(line) == 0 || line[0] != '{' || !utf8.Valid(line) {
		return false
	}
	return json.Valid(line) || json.Valid(withoutTokens(line))
}

// withoutTokens returns a copy of a line with numbers of the same length for the numbers
// that are no JSON.
func withoutTokens(line []byte) []byte {
	if !bytes.Contains(line, []byte("NaN")) && !bytes.Contains(line, []byte("Infinity")) {
		return line
	}
	line = bytes.Clone(line)
	before := byte(0) // the last byte that is not space
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			for i++; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' {
					i++
				}
			}
			before = '"'
		case c == ' ' || c == '\t' || c == '\r':
		default:
			if n := tokenLength(line[i:]); n > 0 && (before == ':' || before == '[' || before == ',') {
				copy(line[i:], "111111111"[:n])
				i += n - 1
			}
			before = c
		}
	}
	return line
}

// tokenLength returns the length of NaN, Infinity or -Infinity, 0 if text does not begin
// with one.
func tokenLength(text []byte) int {
	for _, token := range []string{"NaN", "Infinity", "-Infinity"} {
		if bytes.HasPrefix(text, []byte(token)) {
			return len(token)
		}
	}
	return 0
}

// eachMember calls do with each key of an object and the raw text of its value.
// It stops when do returns false.
func eachMember(object []byte, do func(key []byte, kind jsonKind, raw []byte) bool) {
	i := skipSpace(object, 0) + 1 // {
	for {
		i = skipSpace(object, i)
		if object[i] == '}' {
			return
		}
		end := skipString(object, i)
		key := object[i:end]
		i = skipSpace(object, end) + 1 // :
		i = skipSpace(object, i)
		end, kind := skipValue(object, i)
		if !do(key, kind, object[i:end]) {
			return
		}
		if i = skipSpace(object, end); object[i] == ',' {
			i++
		}
	}
}

// eachElement calls do with the raw text of each element of an array. It stops
// when do returns false.
func eachElement(array []byte, do func(kind jsonKind, raw []byte) bool) {
	i := 1 // [
	for {
		i = skipSpace(array, i)
		if array[i] == ']' {
			return
		}
		end, kind := skipValue(array, i)
		if !do(kind, array[i:end]) {
			return
		}
		if i = skipSpace(array, end); array[i] == ',' {
			i++
		}
	}
}

func skipSpace(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n' {
		i++
	}
	return i
}

// skipString returns the end of the string that starts at i.
func skipString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// skipValue returns the end and the kind of the value that starts at i.
func skipValue(b []byte, i int) (end int, kind jsonKind) {
	switch b[i] {
	case '"':
		return skipString(b, i), jsonString
	case 'n':
		return i + len("null"), jsonNull
	case 't':
		return i + len("true"), jsonBool
	case 'f':
		return i + len("false"), jsonBool
	case '[', '{':
		kind = jsonArray
		if b[i] == '{' {
			kind = jsonObject
		}
		for depth := 0; ; {
			switch b[i] {
			case '"':
				i = skipString(b, i)
				continue
			case '[', '{':
				depth++
			case ']', '}':
				if depth--; depth == 0 {
					return i + 1, kind
				}
			}
			i++
		}
	}
	switch n := tokenLength(b[i:]); {
	case n == len("NaN"):
		return i + n, jsonNaN
	case n > 0:
		return i + n, jsonInfinity
	}
	kind = jsonInteger
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c >= '0' && c <= '9' || c == '-':
		case c == '.' || c == 'e' || c == 'E' || c == '+':
			kind = jsonNumber
		default:
			return i, kind
		}
	}
	return i, kind
}

// appendJSONString appends the text of a JSON string to dst.
func appendJSONString(dst, raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return append(dst, raw[1:len(raw)-1]...)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		panic("a valid JSON string does not decode: " + err.Error())
	}
	return append(dst, s...)
}
