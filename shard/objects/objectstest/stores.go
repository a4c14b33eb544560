// Package objectstest runs tests on every kind of object store that there is where
// they run.
package objectstest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/tandem-ann/tandem/shard/objects"
)

// S3Variable names the environment variable with the URL of an empty S3 bucket that
// tests may write to, which .ci/run sets to that of a server that it starts. Tests must be
// built with what opens it: by -tags s3, or -tags gcs for a URL of gs://.
const S3Variable = "TANDEM_TEST_S3"

// prefixes counts the parts of the S3 bucket that were handed out.
var prefixes atomic.Int64

// Run runs test on an empty bucket in a folder, in memory and on S3. The last is
// skipped where there is none.
func Run(t *testing.T, test func(t *testing.T, bucket *objects.Bucket)) {
	t.Run("folder", func(t *testing.T) {
		bucket, err := objects.Open(t.Context(), t.TempDir())
		require.NoError(t, err)
		defer func() { require.NoError(t, bucket.Close()) }()
		test(t, bucket)
	})
	t.Run("memory", func(t *testing.T) {
		bucket := objects.New(memblob.OpenBucket(nil), "mem://")
		defer func() { require.NoError(t, bucket.Close()) }()
		test(t, bucket)
	})
	t.Run("s3", func(t *testing.T) {
		bucket, err := objects.Open(t.Context(), S3Location(t))
		require.NoError(t, err)
		defer func() { require.NoError(t, bucket.Close()) }()
		test(t, bucket)
	})
}

// S3Location returns the URL of an empty part of an S3 bucket, and skips the test where
// there is none. The part is emptied when the test ends.
func S3Location(t *testing.T) string {
	t.Helper()
	location := os.Getenv(S3Variable)
	if location == "" {
		t.Skipf("no S3 server: set %s to the URL of a bucket for tests; .ci/run s3 starts one", S3Variable)
	}
	if scheme, _, _ := strings.Cut(location, "://"); !blob.DefaultURLMux().ValidBucketScheme(scheme) {
		t.Fatalf("%s is %.200q, and these tests are built without a client of it; run go test with -tags s3 for s3://, -tags gcs for gs://", S3Variable, location)
	}
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	location += fmt.Sprintf("%sprefix=%d-%d/", separator, os.Getpid(), prefixes.Add(1))
	t.Cleanup(func() { empty(t, location) })
	return location
}

func empty(t *testing.T, location string) {
	ctx := context.Background() // that of the test has ended
	bucket, err := objects.Open(ctx, location)
	require.NoError(t, err)
	defer func() { require.NoError(t, bucket.Close()) }()
	for o, err := range bucket.List(ctx, "") {
		require.NoError(t, err)
		require.NoError(t, bucket.Delete(ctx, o.Key))
	}
}

// Main runs a package's tests and fails if they leave goroutines behind, other than
// those of idle connections to a store.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}
