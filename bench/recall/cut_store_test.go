package recall

import (
	"flag"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var (
	cutStore    = flag.String("cut-store", "", "a store in which TestCutOf publishes a snapshot that lacks links")
	cutSnapshot = flag.String("cut-snapshot", "", "of which it lacks links")
)

// Publishes what the test of the console in a browser has as an arm whose recall is low.
func TestCutOf(t *testing.T) {
	if *cutStore == "" {
		t.Skip("it works on a store of -cut-store")
	}
	store, err := snapshots.OpenStore(t.Context(), *cutStore, snapshots.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	digest, err := Cut(t.Context(), store, manifest.Digest(*cutSnapshot), 0.8, 1)
	require.NoError(t, err)
	fmt.Printf("cut=%s\n", digest)
}
