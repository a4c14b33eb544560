package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

type versionCommand struct {
	JSON bool `help:"Print JSON."`
}

func (versionCommand) Help() string {
	return `Says which release of Tandem the command is, of which commit, and which versions of each format it writes and reads. Of those that it may write it takes the lowest that says it all; an older reader refuses what it could not honour (docs/formats.md). Servers are upgraded before the command is.

Example:

    tandem version --json`
}

// versionInfo is what the binary is, as JSON.
type versionInfo struct {
	Tool     string          `json:"tool"`
	Commit   string          `json:"commit,omitempty"`   // that it was built of; empty if the build did not say
	Modified bool            `json:"modified,omitempty"` // files were not as in that commit
	Module   string          `json:"module,omitempty"`   // the version of the module, if it was installed by one
	Go       string          `json:"go"`
	Platform string          `json:"platform"`
	Formats  []formatVersion `json:"formats"`
}

// formatVersion says which versions of a format are written and read, all between two.
type formatVersion struct {
	Format string   `json:"format"`
	Writes versions `json:"writes"`
	Reads  versions `json:"reads"`
}

type versions struct {
	Oldest string `json:"oldest"`
	Newest string `json:"newest"`
}

func (v versions) String() string {
	if v.Oldest == v.Newest {
		return v.Oldest
	}
	return v.Oldest + " to " + v.Newest
}

// formats are those of a store, and of what nodes of a cluster say to one another.
func formats() []formatVersion {
	one := func(name string, oldest, newest any) formatVersion {
		v := versions{fmt.Sprint(oldest), fmt.Sprint(newest)}
		return formatVersion{name, v, v}
	}
	rpc := one("shard RPC", remote.OldestProtocol, remote.Protocol)
	rpc.Writes.Oldest = rpc.Writes.Newest
	return []formatVersion{
		one("shard file", sections.FormatVersion, sections.FormatVersion),
		one("manifest", manifest.FirstVersion, manifest.LiveVersion),
		one("release", release.FirstVersion, release.Version),
		one("live events", live.EntryVersion, live.EntryVersion),
		one("checkpoint of live events", live.CheckpointVersion, live.CheckpointVersion),
		one("recorded queries", querylog.Version, querylog.Version),
		one("outcomes", outcomes.Version, outcomes.Version),
		rpc,
	}
}

func newVersionInfo() versionInfo {
	info := versionInfo{Tool: toolRelease, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Formats: formats()}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	if v := build.Main.Version; v != "(devel)" {
		info.Module = v
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Commit = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		}
	}
	return info
}

func (c *versionCommand) Run(e *environment) error {
	info := newVersionInfo()
	if c.JSON {
		return wording.WriteJSON(e.stdout, info)
	}
	return info.write(e.stdout)
}

// write writes it for people.
func (i *versionInfo) write(w io.Writer) error {
	commit := "not known: it was built outside of a clone"
	switch {
	case i.Commit != "" && i.Modified:
		commit = i.Commit + ", with changes that are not committed"
	case i.Commit != "":
		commit = i.Commit
	}
	if i.Module != "" {
		fmt.Fprintf(w, "%s, module %s\n", i.Tool, i.Module)
	} else {
		fmt.Fprintln(w, i.Tool)
	}
	fmt.Fprintf(w, "commit %s\n%s on %s\n\n", commit, i.Go, i.Platform)
	t := newTable(w)
	fmt.Fprintln(t, "format\twrites\treads")
	for _, f := range i.Formats {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Format, f.Writes, f.Reads)
	}
	return t.Flush()
}
