package upkeep

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Forgetting says how far a live log has forgotten users: what is older than the event that
// forgets a user may have the user's vectors and attributes.
type Forgetting struct {
	Users   int `json:"users"`   // who are forgotten
	Pending int `json:"pending"` // those of whom an entry or a checkpoint may have something
	// Since is when the first of those was forgotten; zero if there is none.
	Since time.Time `json:"since,omitzero"`
	// Entries and Checkpoints are how many may have something of them.
	Entries     int `json:"entries"`
	Checkpoints int `json:"checkpoints"`
}

// logObjects are the numbers of the entries and checkpoints that are there.
type logObjects struct {
	first, last uint64 // entries; 0 if there is none
	checkpoints []uint64
	dates       map[uint64]time.Time // of the checkpoints, by the store's clock
}

// readObjects lists a log.
func readObjects(ctx context.Context, bucket *objects.Bucket) (*logObjects, error) {
	found := &logObjects{dates: map[uint64]time.Time{}}
	for o, err := range bucket.List(ctx, "live/") {
		if err != nil {
			return nil, fmt.Errorf("list the live log: %w", err)
		}
		name, is := strings.CutSuffix(strings.TrimPrefix(o.Key, "live/"), ".log")
		checkpoint := strings.HasPrefix(name, "checkpoints/")
		n, err := strconv.ParseUint(strings.TrimPrefix(name, "checkpoints/"), 10, 64)
		switch {
		case !is || err != nil || n == 0:
		case checkpoint:
			found.checkpoints = append(found.checkpoints, n)
			found.dates[n] = o.Time
		default:
			if found.first == 0 || n < found.first {
				found.first = n
			}
			found.last = max(found.last, n)
		}
	}
	slices.Sort(found.checkpoints)
	return found, nil
}

// forgetting returns what a log has of users who are forgotten in a state.
func (l *logObjects) forgetting(log *live.State) Forgetting {
	users := log.Forgotten()
	f := Forgetting{Users: users.Len()}
	var last uint64 // the last event that forgets a user of whom there may be something
	for h := range users.All() {
		gone, _ := users.Get(h)
		before := l.first > 0 && l.first < gone.Sequence
		if !before && (len(l.checkpoints) == 0 || l.checkpoints[0] >= gone.Sequence) {
			continue
		}
		f.Pending++
		last = max(last, gone.Sequence)
		if f.Since.IsZero() || gone.Time.Before(f.Since) {
			f.Since = gone.Time
		}
	}
	if l.first > 0 && l.first < last {
		f.Entries = int(min(l.last, last-1) - l.first + 1)
	}
	for _, c := range l.checkpoints {
		if c < last {
			f.Checkpoints++
		}
	}
	return f
}

// ReadForgetting returns what the live log in a bucket has of users who are forgotten in a
// state of it.
func ReadForgetting(ctx context.Context, bucket *objects.Bucket, log *live.State) (Forgetting, error) {
	found, err := readObjects(ctx, bucket)
	if err != nil {
		return Forgetting{}, err
	}
	return found.forgetting(log), nil
}
