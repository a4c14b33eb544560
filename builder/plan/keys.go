package plan

import (
	"fmt"
	"strings"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Keys name the objects of one build.
type Keys struct{ ID manifest.Digest }

func (k Keys) dir() string { return snapshots.BuildPrefix(k.ID) }

// Plan is that of the plan.
func (k Keys) Plan() string { return k.dir() + snapshots.BuildPlan }

// Forgotten is that of the hashes of who is forgotten, one after the other.
func (k Keys) Forgotten() string { return k.dir() + "forgotten" }

// Task is that of what a task has dealt to shards.
func (k Keys) Task(number int) string { return fmt.Sprintf("%spartition/%06d", k.dir(), number) }

// Received is that of the records of a shard of users that another engine has brought there, of
// rows and of lines of attributes.
func (k Keys) Received(number int) (rows, lines string) {
	dir := fmt.Sprintf("%sreceived/%06d", k.dir(), number)
	return dir, dir + "-lines"
}

// Merged is that of what all tasks found.
func (k Keys) Merged() string { return k.dir() + "merged.json" }

// Record is that of what a shard step did.
func (k Keys) Record(index int) string {
	return fmt.Sprintf("%s%s%06d.json", k.dir(), snapshots.BuildRecords, index)
}

// Finished is that of the snapshot before it is published.
func (k Keys) Finished() string { return k.dir() + "finished.json" }

// Committed is that of the digest of the snapshot, once it is published.
func (k Keys) Committed() string { return k.dir() + snapshots.BuildCommitted }

// Under is what the names of all objects of the build begin with.
func (k Keys) Under() string { return k.dir() }

// Relative returns the name of an object within the build.
func (k Keys) Relative(key string) string { return strings.TrimPrefix(key, k.dir()) }
