package shard

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxLog is the longest id of a live log, in bytes.
const maxLog = 64

// Check returns an error that says why a position cannot be one, if it cannot.
func (p Position) Check() error {
	if len(p.Log) > maxLog || !utf8.ValidString(p.Log) {
		return fmt.Errorf("live log %.80q: want up to %d bytes of UTF-8", p.Log, maxLog)
	}
	return nil
}

// Compare orders positions: by their logs, of which later ones sort after earlier ones, and
// in one log by their sequences. It returns -1, 0 or +1.
func (p Position) Compare(other Position) int {
	return cmp.Or(cmp.Compare(p.Log, other.Log), cmp.Compare(p.Sequence, other.Sequence))
}

// String returns LOG:SEQUENCE, and of the first log, which has no id, the sequence alone.
// [ParsePosition] reads it.
func (p Position) String() string {
	number := strconv.FormatUint(p.Sequence, 10)
	if p.Log == "" {
		return number
	}
	return p.Log + ":" + number
}

// ParsePosition reads LOG:SEQUENCE or SEQUENCE.
func ParsePosition(text string) (Position, error) {
	log, number := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		log, number = text[:i], text[i+1:]
	}
	p := Position{Log: log}
	var err error
	if p.Sequence, err = strconv.ParseUint(number, 10, 64); err != nil {
		return Position{}, fmt.Errorf("live position %.100q; accepted: SEQUENCE, a number from 0 on, or LOG:SEQUENCE", text)
	}
	return p, p.Check()
}
