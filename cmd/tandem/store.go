package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// storeFlags say which store a command reads, and where this machine keeps what it
// downloads of it.
type storeFlags struct {
	Store string `variable:"TANDEM_STORE" placeholder:"STORE" help:"Store of the snapshot: a folder, or a URL such as s3://bucket?region=eu-west-1&prefix=tandem/."`
	cacheFlags
}

// requiredStoreFlags are those of a command that always reads a store.
type requiredStoreFlags struct {
	Store string `required:"" variable:"TANDEM_STORE" placeholder:"STORE" help:"Store: a folder, or a URL such as s3://bucket?region=eu-west-1&prefix=tandem/, gs://bucket or azblob://container."`
	cacheFlags
}

type cacheFlags struct {
	Cache     string   `placeholder:"DIR" help:"Folder for shards of a store that is no folder (default tandem in the user's cache folder)."`
	CacheSize byteFlag `placeholder:"SIZE" help:"How much --cache may hold of shards, such as 200GiB, for all processes that share it; what was not used for longest goes first (default no bound)."`

	StoreTimeout time.Duration `default:"10s" placeholder:"TIME" help:"How long a store that is no folder may be silent before a request to it is made again, up to four times (default ${default})."`
}

// byteFlag is a number of bytes with a unit.
type byteFlag int64

// UnmarshalText reads a number such as 200GiB or 1500.
func (b *byteFlag) UnmarshalText(text []byte) error {
	s, unit := string(text), 1.0
	for i, name := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if number, ok := strings.CutSuffix(s, name); ok {
			s, unit = strings.TrimSpace(number), math.Pow(1024, float64(i+1))
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if n *= unit; err != nil || !(n >= 1 && n < 1<<62) {
		return usagef("%q is no size; accepted: a number of bytes, or one with KiB, MiB, GiB or TiB", text)
	}
	*b = byteFlag(n)
	return nil
}

func (c *cacheFlags) options() snapshots.Options {
	return snapshots.Options{Cache: c.Cache, CacheBytes: int64(c.CacheSize), Timeout: c.StoreTimeout}
}

// openStore opens a store and resolves which of its snapshots is meant: without a ref the
// one that is released. The caller closes the store.
func openStore(e *environment, location, ref string, o snapshots.Options) (*snapshots.Store, manifest.Digest, error) {
	store, err := snapshots.OpenStore(e.ctx, location, o)
	if err != nil {
		return nil, "", err
	}
	digest, err := resolve(e, store, ref)
	if err != nil {
		return nil, "", errors.Join(err, store.Close())
	}
	return store, digest, nil
}

// resolve returns the snapshot of a store that a ref means: a digest, the beginning of
// one, or, where it is empty, the one that is released.
func resolve(e *environment, store *snapshots.Store, ref string) (manifest.Digest, error) {
	if ref == "" {
		return released(e, store)
	}
	return store.Resolve(e.ctx, ref)
}
