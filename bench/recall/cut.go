package recall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

const (
	metaSection  = "index.meta"
	linksSection = "index.links.0"
	// widthAt is where in the section of that name the places of a node's list are counted.
	widthAt = 5 * 4
	// noNode is an unused place of a list.
	noNode = math.MaxUint32
)

// Cut publishes a snapshot that is another but for links of the lowest layer of the app
// tower's graph, of which it lacks a share, drawn from a seed. All checksums are valid, and
// the manifest says what it said of the whole one.
func Cut(ctx context.Context, store *snapshots.Store, d manifest.Digest, share float64, seed uint64) (_ manifest.Digest, err error) {
	m, err := store.Manifest(ctx, d)
	if err != nil {
		return "", err
	}
	done, err := store.Fetch(ctx, m)
	if err != nil {
		return "", err
	}
	defer done()
	dir, err := os.MkdirTemp("", "tandem-cut-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for i := range m.Apps.Shards {
		sm := &m.Apps.Shards[i]
		path := filepath.Join(dir, "shard")
		if err := cutShard(store.ShardPath(sm.Digest), path, share, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
			return "", fmt.Errorf("cut shard %d: %w", i, err)
		}
		cut, err := store.AddShard(ctx, path)
		if err != nil {
			return "", err
		}
		cut.Rows, cut.Effort = sm.Rows, sm.Effort
		*sm = cut
	}
	return store.Publish(ctx, m)
}

// cutShard writes a shard file without some of its links.
func cutShard(from, to string, share float64, random *rand.Rand) (err error) {
	defer sections.Guard(&err)()
	f, err := sections.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	meta, err := f.Section(metaSection)
	if err != nil {
		return err
	}
	w, err := sections.Create(to)
	if err != nil {
		return err
	}
	w.Require(f.Features())
	for _, e := range f.Entries() {
		data, err := f.Section(e.Name)
		if err == nil {
			if e.Name == linksSection {
				data = cutLinks(data, int(binary.LittleEndian.Uint32(meta[widthAt:])), share, random)
			}
			err = w.Section(e.Name, data)
		}
		if err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	return w.Commit()
}

// cutLinks returns lists of so many places each without a share of what is in them. What is
// left moves to the front.
func cutLinks(links []byte, width int, share float64, random *rand.Rand) []byte {
	out := make([]byte, 0, len(links))
	for ; len(links) > 0; links = links[4*width:] {
		kept := 0
		for place := range width {
			if id := binary.LittleEndian.Uint32(links[4*place:]); id != noNode && random.Float64() >= share {
				out = binary.LittleEndian.AppendUint32(out, id)
				kept++
			}
		}
		for range width - kept {
			out = binary.LittleEndian.AppendUint32(out, noNode)
		}
	}
	return out
}
