package shard

import (
	"fmt"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
)

// MaxShards is the largest number of shards in one tower.
const MaxShards = 4096

// MaxIDLen is the longest id, in bytes.
const MaxIDLen = 256

// Key is the hash of an id: it decides the shard of a row and its level in the
// graph.
func Key(id string) uint64 { return xxhash.Sum64String(id) }

// Partition returns the number of the shard, out of shards, that id belongs to.
func Partition(id string, shards int) int { return int(Key(id) % uint64(shards)) }

// CheckID returns an error that says why id cannot be an app's or a user's id.
func CheckID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("id is empty, want 1 to %d bytes", MaxIDLen)
	case len(id) > MaxIDLen:
		return fmt.Errorf("id has %d bytes, want 1 to %d", len(id), MaxIDLen)
	case !utf8.ValidString(id):
		return fmt.Errorf("id %q is not UTF-8", id)
	}
	return nil
}

// SampleKey orders ids for sampling, independently of [Partition]. The builder
// calibrates and measures with the rows of the lowest keys, so who wants queries
// that the build has not seen takes those of the highest.
func SampleKey(id string) uint64 { return xxhash.Sum64String("sample\x00" + id) }
