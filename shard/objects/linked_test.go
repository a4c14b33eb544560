package objects_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// told is an error of a client that tells by fields.
type told struct {
	Status int
	Code   string
}

func (t *told) Error() string { return "it failed" }

func init() {
	blob.DefaultURLMux().RegisterBucket("unlinked", &memblob.URLOpener{})
	blob.DefaultURLMux().RegisterBucket("linked", &memblob.URLOpener{})
	objects.Register("linked", objects.Driver{Answer: func(err error) (int, string) {
		if t := (*told)(nil); errors.As(err, &t) {
			return t.Status, t.Code
		}
		return 0, ""
	}})
}

// A store whose errors nobody can tell from one another is not opened.
func TestDriversAreLinkedHere(t *testing.T) {
	for _, location := range []string{"unlinked://bucket", "blob+unlinked://bucket"} {
		_, err := objects.Open(t.Context(), location)
		require.ErrorContains(t, err, location+`: the scheme "unlinked" is not linked by a package of shard/objects; accepted: a folder, and URLs of ["linked"`)
	}
	for _, location := range []string{"linked://bucket", "blob+linked://bucket", "mem://"} {
		bucket, err := objects.Open(t.Context(), location)
		require.NoError(t, err, location)
		require.NoError(t, bucket.Close())
	}
	require.Panics(t, func() { objects.Register("linked", objects.Driver{}) })
}

// What the driver of a client says of an error has the weight of what an error says by itself.
func TestAnswersOfDrivers(t *testing.T) {
	for _, c := range []struct {
		err      error
		class    error // of a read
		requests int
	}{
		{notFound{&told{404, ""}}, objects.ErrNotFound, 1},
		{notFound{&told{404, "ContainerNotFound"}}, objects.ErrGone, 1},
		{notFound{&told{403, ""}}, nil, 1},
		{&told{400, ""}, nil, 1},
		{&told{503, ""}, nil, 4},
		{&told{400, "IncompleteBody"}, nil, 4},
	} {
		inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
			f.Inject(objectstest.Rule{Err: c.err})
			_, err := b.Read(t.Context(), "a/1")
			require.Error(t, err, "%+v", c)
			for _, class := range []error{objects.ErrNotFound, objects.ErrGone} {
				require.Equal(t, errors.Is(class, c.class), errors.Is(err, class), "%+v: %v", c, err)
			}
			require.Equal(t, c.requests, f.Requests("", "", ""), "%+v", c)
		})
	}
}
