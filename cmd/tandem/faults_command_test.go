package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
)

// trialCommand is a command that fault trials run.
type trialCommand struct {
	name string
	args func(f *faultTrial) []string
	// next returns the arguments of the next command of the same kind, which must work.
	// Nil means the same again.
	next func(f *faultTrial, now *storeContent) []string
	// then returns commands after that one, which must work too.
	then func(f *faultTrial, now *storeContent) [][]string
	// said returns what is wrong with what the command said when it exited with 0, and
	// the files that must be durable by then.
	said func(f *faultTrial, stdout string, now *storeContent) (problems []string, files []string)
	// rivals are commands that may run beside it while it is delayed.
	rivals []string
	// adds is how many releases it makes.
	adds uint64
	// mayWait is whether it may wait for a gc, if it says so.
	mayWait bool
}

var trialCommands = []trialCommand{
	{
		name: "build",
		args: func(f *faultTrial) []string { return f.template.build(f.store, "built", "5") },
		said: func(f *faultTrial, stdout string, now *storeContent) (problems, files []string) {
			var said struct{ Snapshot string }
			if err := json.Unmarshal([]byte(stdout), &said); err != nil {
				return []string{fmt.Sprintf("said %q: %v", stdout, err)}, nil
			}
			if f.built != "" && said.Snapshot != f.built {
				problems = append(problems, fmt.Sprintf("built %s, without a fault %s", said.Snapshot, f.built))
			}
			return append(problems, f.has(now, said.Snapshot)...), f.snapshotFiles(f.store, now, said.Snapshot)
		},
		rivals:  []string{"gc"},
		mayWait: true,
	},
	{
		name: "start",
		args: func(f *faultTrial) []string {
			return f.change("start", f.template.newest, "--arm", "fresh", "--override", "a trial")
		},
		next: func(f *faultTrial, now *storeContent) []string {
			if _, there := now.manifests[f.template.newest]; !there {
				return f.change("start", f.template.control, "--arm", "again", "--override", "a trial") // a gc was first
			}
			return f.change("start", f.template.newest, "--arm", "again", "--override", "a trial")
		},
		said: (*faultTrial).released, rivals: []string{"greedy gc", "rollback"}, adds: 1, mayWait: true,
	},
	{
		name: "split",
		args: func(f *faultTrial) []string {
			return f.change("split", fmt.Sprintf("candidate=%d", 1+f.random.IntN(500)))
		},
		next: func(f *faultTrial, now *storeContent) []string {
			if e := now.entries[now.head]; e.hasArm("candidate") {
				return f.change("split", "candidate=501")
			}
			return f.change("rollback", "--to", fmt.Sprint(bothArms))
		},
		said: (*faultTrial).released, rivals: []string{"gc", "rollback"}, adds: 1,
	},
	{
		name: "promote",
		args: func(f *faultTrial) []string { return f.change("promote", "candidate") },
		next: func(f *faultTrial, now *storeContent) []string {
			if e := now.entries[now.head]; e.hasArm("candidate") {
				return f.change("promote", "candidate")
			}
			return f.change("rollback", "--to", fmt.Sprint(bothArms))
		},
		said: (*faultTrial).released, rivals: []string{"gc", "rollback"}, adds: 1,
	},
	{
		name: "rollback",
		args: func(f *faultTrial) []string {
			return f.change("rollback", "--to", fmt.Sprint(controlOnly+f.random.IntN(bothArms-controlOnly)))
		},
		next: func(f *faultTrial, _ *storeContent) []string {
			return f.change("rollback", "--to", fmt.Sprint(controlOnly))
		},
		said: (*faultTrial).released, rivals: []string{"gc", "rollback"}, adds: 1,
	},
	{
		name: "gc",
		args: func(f *faultTrial) []string { return f.gc(f.store, 1) },
		next: func(f *faultTrial, _ *storeContent) []string {
			return f.change("rollback", "--to", fmt.Sprint(controlOnly))
		},
		then: func(f *faultTrial, now *storeContent) [][]string {
			var list [][]string
			if _, there := now.manifests[f.template.first]; there { // gc was about to delete it
				list = append(list, f.change("rollback", "--to", "1"))
			}
			start := f.template.newest
			if _, there := now.manifests[f.template.unneeded]; there {
				start = f.template.unneeded
			}
			return append(list, f.change("start", start, "--arm", "again", "--override", "a trial"), f.gc(f.store, 1))
		},
		said: (*faultTrial).collected, rivals: []string{"rollback", "start", "gc"}, mayWait: true,
	},
	{
		name: "copy",
		args: func(f *faultTrial) []string {
			return []string{"snapshot", "copy", "--store", f.store, "--to", f.target, f.template.control}
		},
		said: func(f *faultTrial, stdout string, _ *storeContent) (problems, files []string) {
			if want := fmt.Sprintf("snapshot %s is in %s\n", f.template.control, f.target); stdout != want {
				problems = append(problems, fmt.Sprintf("said %q, want %q", stdout, want))
			}
			there := readStoreContent(f.target)
			return append(problems, f.has(there, f.template.control)...), f.snapshotFiles(f.target, there, f.template.control)
		},
		rivals: []string{"gc of the target"}, mayWait: true,
	},
	{
		name: "verify",
		args: func(f *faultTrial) []string {
			return []string{"snapshot", "verify", "--store", f.store, f.template.control}
		},
		said: func(f *faultTrial, stdout string, _ *storeContent) (problems, files []string) {
			if want := fmt.Sprintf("snapshot %s is whole: 2 shards\n", f.template.control); !strings.HasSuffix(stdout, want) {
				problems = append(problems, fmt.Sprintf("said %q, want %q", stdout, want))
			}
			return problems, nil
		},
	},
}

// rival returns the arguments of a command that runs beside another, and how many
// releases it makes.
func (f *faultTrial) rival(name string) (args []string, adds uint64) {
	switch name {
	case "gc":
		return f.gc(f.store, 2), 0
	case "greedy gc":
		return f.gc(f.store, 0), 0
	case "gc of the target":
		return f.gc(f.target, 1), 0
	case "start":
		return f.change("start", f.template.newest, "--arm", "rival", "--override", "a trial"), 1
	}
	return f.change("rollback", "--to", fmt.Sprint(controlOnly)), 1
}

// change returns the arguments of a change of what serves.
func (f *faultTrial) change(kind string, args ...string) []string {
	return append([]string{"release", kind, "--store", f.store, "--json", "--author", "trial"}, args...)
}

// gc returns the arguments of a gc that keeps no more than it must, and some of the
// newest snapshots.
func (f *faultTrial) gc(store string, keep int) []string {
	return []string{"snapshot", "gc", "--store", store, "--json", "--keep", fmt.Sprint(keep), "--keep-for", "1ns", "--grace", "1ns"}
}

// mayGo returns what a gc may delete, of those that a trial runs.
func (f *faultTrial) mayGo(now *storeContent) map[string]bool {
	t := f.template
	gone := map[string]bool{t.first: true, t.unneeded: true, t.orphan: true}
	for _, digest := range t.of[t.first] {
		gone[digest] = true
	}
	if f.fault.rivalName == "greedy gc" {
		gone[t.newest] = true
		for _, digest := range t.of[t.newest] {
			gone[digest] = true
		}
	}
	for digest := range now.live() {
		delete(gone, digest)
		for _, sh := range t.of[digest] {
			delete(gone, sh)
		}
	}
	return gone
}

// commandOf returns the command that some arguments are of.
func commandOf(args []string) *trialCommand {
	name := args[0]
	if name == "release" || name == "snapshot" {
		name = args[1]
	}
	for i := range trialCommands {
		if trialCommands[i].name == name {
			return &trialCommands[i]
		}
	}
	panic("no trials of " + name)
}

// released judges what a change of what serves said.
func (f *faultTrial) released(stdout string, now *storeContent) (problems, files []string) {
	var said storedEntry
	if err := json.Unmarshal([]byte(stdout), &said); err != nil {
		return []string{fmt.Sprintf("said %q: %v", stdout, err)}, nil
	}
	if there := now.entries[said.Generation]; there.ID != said.ID || said.ID == "" {
		problems = append(problems, fmt.Sprintf("said that generation %d is %q, the log has %q", said.Generation, said.ID, there.data))
	}
	return problems, []string{filepath.Join(f.store, "releases", fmt.Sprintf("%012d.json", said.Generation))}
}

// collected judges what a gc said.
func (f *faultTrial) collected(stdout string, now *storeContent) (problems, files []string) {
	var said struct{ Snapshots, Shards []string }
	if err := json.Unmarshal([]byte(stdout), &said); err != nil {
		return []string{fmt.Sprintf("said %q: %v", stdout, err)}, nil
	}
	for _, digest := range said.Snapshots {
		if _, there := now.manifests[digest]; there {
			problems = append(problems, fmt.Sprintf("said that snapshot %s is deleted, which is there", digest))
		}
	}
	for _, digest := range said.Shards {
		if now.shards[digest] {
			problems = append(problems, fmt.Sprintf("said that shard %s is deleted, which is there", digest))
		}
	}
	return problems, nil
}

// has returns what is missing of a snapshot that is said to be in a store. Whether its
// shards are whole the content itself says.
func (f *faultTrial) has(there *storeContent, digest string) []string {
	if len(there.manifests[digest]) == 0 {
		return append(there.problems, fmt.Sprintf("said that snapshot %s is there, which is not", digest))
	}
	return there.problems
}

// snapshotFiles returns the files of a snapshot.
func (f *faultTrial) snapshotFiles(store string, there *storeContent, digest string) []string {
	files := []string{filepath.Join(store, "snapshots", digest+".json")}
	for _, sh := range there.manifests[digest] {
		files = append(files, filepath.Join(store, "shards", sh+".shard"))
	}
	return files
}
