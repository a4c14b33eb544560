package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/members"
	"github.com/tandem-ann/tandem/server/placement"
)

// A node has the name that the member with its address has by now, whenever it was listed, and
// keeps it once it is listed no more.
func TestOwnName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "nodes.yaml")
		f := &clusterFlags{Role: "shard", Nodes: "file:" + file}
		h, err := f.hold(t.Context(), "127.0.0.1:7071", "") // there is no list yet
		require.NoError(t, err)
		host, err := os.Hostname()
		require.NoError(t, err)
		assert.Equal(t, host, h.Name)

		ctx, stop := context.WithCancel(t.Context())
		names, done := make(chan string), make(chan struct{})
		go func() {
			defer close(done)
			last := ""
			h.Watch(ctx, func(name string, _ []placement.Member) {
				if name != last {
					last = name
					names <- name
				}
			}, func(error) {})
		}()
		list := func(text string) {
			next := filepath.Join(t.TempDir(), "next")
			require.NoError(t, os.WriteFile(next, []byte(text), 0o600))
			require.NoError(t, os.Rename(next, file))
		}
		list("- {address: '127.0.0.1:7072', name: b}\n")
		assert.Equal(t, host, <-names, "it is none of them")
		list("- {address: '127.0.0.1:7072', name: b}\n- {address: '127.0.0.1:7071', name: a}\n")
		assert.Equal(t, "a", <-names)
		list("- {address: '127.0.0.1:7071', name: aa}\n")
		assert.Equal(t, "aa", <-names)
		stop()
		<-done
	})
}

// What a node is called once it is listed no more, and where several members have its address.
func TestOwnNameStays(t *testing.T) {
	own := &ownName{is: func(address string) bool { return address == "here" }, name: "host"}
	here, there := members.Member{Name: "b", Address: "here"}, members.Member{Name: "a", Address: "there"}
	assert.Equal(t, "host", own.among([]members.Member{there}))
	assert.Equal(t, "b", own.among([]members.Member{there, here}))
	assert.Equal(t, "b", own.among([]members.Member{there}))
	assert.Equal(t, "b", own.among([]members.Member{{Name: "aa", Address: "here"}, here}))
}
