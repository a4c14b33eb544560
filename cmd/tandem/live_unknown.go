package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Bounds of the search for ids that nobody knows.
const (
	unknownTimeout = 5 * time.Second // of servers
	unknownBytes   = 256 << 20       // of the app shards that are read, where no server is asked
	unknownNamed   = 5
	nearDistance   = 2
	nearNamed      = 3
)

// appSearch is what was found of apps.
type appSearch struct {
	known map[string]bool
	near  map[string][]string // ids that differ little, of those that are not known
}

// warnUnknown tells people which of the apps that were taken down nothing has that serves: an
// id that is mistyped takes nothing down. It is no error, since such an app may come later, and
// nothing is said where that is not known.
func (f *liveWriteFlags) warnUnknown(e *environment, store *snapshots.Store, at shard.Position, apps []string) {
	var found *appSearch
	if len(f.Server) > 0 {
		found = f.askForApps(e.ctx, at, apps)
	} else if store.Objects().Dir() != "" {
		found = readForApps(e.ctx, store, apps)
	}
	if found == nil {
		return
	}
	var texts []string
	unknown := 0
	for _, app := range apps {
		if found.known[app] {
			continue
		}
		if unknown++; unknown > unknownNamed {
			continue
		}
		text := release.Escape(app)
		if near := found.near[app]; len(near) > 0 {
			text += " (there is " + release.Escape(strings.Join(near, ", ")) + ")"
		}
		texts = append(texts, text)
	}
	if unknown == 0 {
		return
	}
	if more := unknown - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %s more", wording.Count(more)))
	}
	fmt.Fprintf(e.stderr, "warning: no snapshot that serves has, and nobody has upserted: %s; the takedown counts all the same, once there is such an app\n", strings.Join(texts, ", "))
}

// askForApps asks the servers that are named; nil if none says what it has mapped, or one, a
// router of nodes that are older, cannot say which of the apps are there.
func (f *liveWriteFlags) askForApps(ctx context.Context, at shard.Position, apps []string) *appSearch {
	servers, err := f.fleet()
	if err != nil {
		return nil
	}
	found := &appSearch{known: map[string]bool{}}
	said := false
	for _, answer := range servers.Prove(ctx, &tandemv1.ProveRequest{Apps: apps, MinLive: wire.LivePosition(at)}, unknownTimeout) {
		if answer.Err != nil {
			continue
		}
		for i, app := range answer.Proof.Apps {
			for _, in := range app.Snapshots {
				if in.RowsUnknown {
					return nil
				}
				said = true
				if in.InSnapshot || in.Fresh {
					found.known[apps[i]] = true
				}
			}
		}
	}
	if !said {
		return nil
	}
	return found
}

// readForApps looks into the snapshots that are released; nil if there are none, if they are
// too large to be read for this, or cannot be.
func readForApps(ctx context.Context, store *snapshots.Store, apps []string) *appSearch {
	now, _, err := release.New(store).Newest(ctx)
	if err != nil {
		return nil
	}
	var list []*manifest.Manifest
	var bytes int64
	for _, a := range now.Arms {
		m, err := store.Manifest(ctx, a.Snapshot)
		if err != nil {
			return nil
		}
		for _, s := range m.Apps.Shards {
			bytes += s.Size
		}
		list = append(list, m)
	}
	if bytes > unknownBytes {
		return nil
	}
	found := &appSearch{known: map[string]bool{}, near: map[string][]string{}}
	for _, m := range list {
		if found.in(ctx, store, m, apps) != nil {
			return nil
		}
	}
	if len(found.known) == len(apps) {
		return found
	}
	log, err := live.Read(ctx, store.Objects())
	if err != nil {
		return nil
	}
	for _, app := range apps {
		if r := log.Record(shard.Apps, app); r != nil && len(r.Upserts) > 0 {
			found.known[app] = true
		}
	}
	return found
}

// in looks into one snapshot.
func (f *appSearch) in(ctx context.Context, store *snapshots.Store, m *manifest.Manifest, apps []string) (err error) {
	t, err := snapshots.OpenTower(ctx, store, m, shard.Apps)
	if err != nil {
		return err
	}
	defer closing(&err, t)
	has := probe.Has(t)
	unknown := map[string]bool{}
	for _, app := range apps {
		if has(app) {
			f.known[app] = true
		} else if len(unknown) < unknownNamed {
			unknown[app] = true
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	missing := slices.Sorted(maps.Keys(unknown))
	for _, s := range t.Local() {
		for ordinal := range uint32(s.Rows()) {
			if ordinal%batchEvents == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			id := s.ID(ordinal)
			for _, app := range missing {
				apart := len(id) - len(app)
				if max(apart, -apart) <= nearDistance && wording.Distance(app, id) <= nearDistance {
					f.nearer(app, id)
				}
			}
		}
	}
	return nil
}

// nearer notes an id that is near an app's, if it is one of the nearest.
func (f *appSearch) nearer(app, id string) {
	if slices.Contains(f.near[app], id) {
		return
	}
	list := append(slices.Clone(f.near[app]), id)
	slices.SortFunc(list, func(a, b string) int {
		return cmp.Or(cmp.Compare(wording.Distance(app, a), wording.Distance(app, b)), cmp.Compare(a, b))
	})
	f.near[app] = list[:min(len(list), nearNamed)]
}
