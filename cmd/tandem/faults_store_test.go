package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// storeContent is what a store in a folder has, read and judged without the code that is
// on trial.
type storeContent struct {
	entries   map[uint64]storedEntry
	head      uint64
	manifests map[string][]string // shards by the snapshot's digest
	shards    map[string]bool
	leftovers []string // temporary files, and folders of builds
	problems  []string // what is half, missing or not what its name says
}

// storedEntry is what the trials know of an entry of the log of releases.
type storedEntry struct {
	Generation uint64 `json:"generation"`
	ID         string `json:"id"`
	Previous   string `json:"previous"` // the SHA-256 of the entry before; empty before 0.6
	Arms       []struct {
		Name     string `json:"name"`
		Snapshot string `json:"snapshot"`
	} `json:"arms"`

	data string // the whole file
}

func (e *storedEntry) hasArm(name string) bool {
	for _, a := range e.Arms {
		if a.Name == name {
			return true
		}
	}
	return false
}

// storedShards are the shards of one tower in a manifest.
type storedShards struct {
	Shards []struct {
		Digest string `json:"digest"`
		Size   int64  `json:"size"`
	} `json:"shards"`
}

// liveReleases is how many of the last releases keep their snapshots.
const liveReleases = 10

// readStoreContent reads every byte of a store.
func readStoreContent(dir string) *storeContent {
	s := &storeContent{entries: map[uint64]storedEntry{}, manifests: map[string][]string{}, shards: map[string]bool{}}
	s.readShards(filepath.Join(dir, "shards"))
	s.readManifests(filepath.Join(dir, "snapshots"))
	s.readEntries(filepath.Join(dir, "releases"))
	for _, sub := range []string{".", "shards", "snapshots", "releases", "gates", "intents", "doomed", "queries", "staging"} {
		s.readLeftovers(filepath.Join(dir, sub))
	}
	return s
}

func (s *storeContent) problemf(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

// files returns the content of the files of a folder whose names end with a suffix, by
// what comes before it.
func (s *storeContent) files(dir, suffix string) map[string][]byte {
	list, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.problemf("%v", err)
		}
		return nil
	}
	files := map[string][]byte{}
	for _, e := range list {
		name, is := strings.CutSuffix(e.Name(), suffix)
		if !is || name == "" || name[0] == '.' {
			continue
		}
		if files[name], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			s.problemf("%v", err)
		}
	}
	return files
}

func sumText(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (s *storeContent) readShards(dir string) {
	for name, data := range s.files(dir, ".shard") {
		s.shards[name] = true
		if sum := sumText(data); sum != name {
			s.problemf("shard %s has %d bytes with the SHA-256 %s", name, len(data), sum)
		}
	}
}

func (s *storeContent) readManifests(dir string) {
	for name, data := range s.files(dir, ".json") {
		s.manifests[name] = nil
		var m struct{ Apps, Users storedShards }
		if sum := sumText(data); sum != name {
			s.problemf("manifest %s has the SHA-256 %s", name, sum)
		} else if err := json.Unmarshal(data, &m); err != nil {
			s.problemf("manifest %s: %v", name, err)
		}
		for _, sh := range append(m.Apps.Shards, m.Users.Shards...) {
			s.manifests[name] = append(s.manifests[name], sh.Digest)
			if !s.shards[sh.Digest] {
				s.problemf("snapshot %s lacks shard %s", name, sh.Digest)
			}
		}
	}
}

func (s *storeContent) readEntries(dir string) {
	ids := map[string]uint64{}
	for name, data := range s.files(dir, ".json") {
		number, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			s.problemf("release %s is no number", name)
			continue
		}
		e := storedEntry{data: string(data)}
		if err := json.Unmarshal(data, &e); err != nil || e.Generation != number || len(e.Arms) == 0 {
			s.problemf("release %d is half or another: %v: %q", number, err, data)
		}
		if other, twice := ids[e.ID]; twice {
			s.problemf("releases %d and %d are the same", other, number)
		}
		ids[e.ID] = number
		s.entries[number] = e
		s.head = max(s.head, number)
	}
	for number := uint64(1); number <= s.head; number++ {
		e, there := s.entries[number]
		if !there {
			s.problemf("the log ends at %d and lacks %d", s.head, number)
		} else if before := s.entries[number-1].data; e.Previous != "" && e.Previous != sumText([]byte(before)) {
			s.problemf("release %d was appended to another entry than %q", number, before)
		}
	}
	for digest := range s.live() {
		if _, there := s.manifests[digest]; !there {
			s.problemf("snapshot %s is gone, one of the last %d releases needs it", digest, liveReleases)
		}
	}
}

// live returns the snapshots that the last releases need.
func (s *storeContent) live() map[string]bool {
	live := map[string]bool{}
	for number, e := range s.entries {
		if number+liveReleases > s.head {
			for _, a := range e.Arms {
				live[a.Snapshot] = true
			}
		}
	}
	return live
}

func (s *storeContent) readLeftovers(dir string) {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.problemf("%v", err)
	}
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".tmp") || strings.HasPrefix(e.Name(), "build-") {
			s.leftovers = append(s.leftovers, filepath.Join(dir, e.Name()))
		}
	}
}

// lost returns what was in the store before, must be there still and is not: releases,
// and all else but what may be gone.
func (s *storeContent) lost(before *storeContent, mayGo map[string]bool) []string {
	var lost []string
	for _, number := range slices.Sorted(maps.Keys(before.entries)) {
		if e := before.entries[number]; s.entries[number].data != e.data {
			lost = append(lost, fmt.Sprintf("release %d was %q and is %q", number, e.data, s.entries[number].data))
		}
	}
	for digest := range before.manifests {
		if _, there := s.manifests[digest]; !there && !mayGo[digest] {
			lost = append(lost, "snapshot "+digest+" is gone")
		}
	}
	for digest := range before.shards {
		if !s.shards[digest] && !mayGo[digest] {
			lost = append(lost, "shard "+digest+" is gone")
		}
	}
	return lost
}
