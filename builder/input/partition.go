package input

import (
	"path/filepath"
	"strings"
)

// withPartitions returns the name of a file from the first folder of its path that is a
// Hive partition, if that begins before the name that is recorded otherwise: then its keys
// are part of what a snapshot is built from.
func withPartitions(place, recorded string) string {
	parts := strings.Split(filepath.ToSlash(place), "/")
	for i, part := range parts[:len(parts)-1] {
		if strings.Contains(part, "=") {
			if whole := strings.Join(parts[i:], "/"); len(whole) > len(recorded) {
				return whole
			}
			break
		}
	}
	return recorded
}

// unescape undoes how Hive writes the characters that a name of a folder cannot have: % and
// two hexadecimal digits.
func unescape(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) && unhex(text[i+1]) >= 0 && unhex(text[i+2]) >= 0 {
			b.WriteByte(byte(unhex(text[i+1])<<4 | unhex(text[i+2])))
			i += 2
			continue
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
