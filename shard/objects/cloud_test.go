package objects_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/gcerrors"
	"google.golang.org/api/googleapi"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// inTrouble runs a test on a store that fails, where time costs none.
func inTrouble(t *testing.T, test func(t *testing.T, f *objectstest.Faults, b *objects.Bucket)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		test(t, f, f.Bucket("test"))
	})
}

// requests are all that are made of a bucket, on the object a/1, which is there, and
// a/2, which is not.
var requests = map[string]func(context.Context, *objects.Bucket) error{
	"read": func(ctx context.Context, b *objects.Bucket) error {
		data, err := b.Read(ctx, "a/1")
		if err == nil && string(data) != "one" {
			err = fmt.Errorf("read %q", data)
		}
		return err
	},
	"stream": func(ctx context.Context, b *objects.Bucket) error {
		r, err := b.Reader(ctx, "a/1", 0)
		if err != nil {
			return err
		}
		_, err = io.ReadAll(r)
		return errors.Join(err, r.Close())
	},
	"stat": func(ctx context.Context, b *objects.Bucket) error {
		_, err := b.Stat(ctx, "a/1")
		return err
	},
	"list": func(ctx context.Context, b *objects.Bucket) error {
		n := 0
		for _, err := range b.List(ctx, "a/") {
			if err != nil {
				return err
			}
			n++
		}
		if n == 0 {
			return errors.New("nothing is listed")
		}
		return nil
	},
	"create": func(ctx context.Context, b *objects.Bucket) error { return b.Create(ctx, "a/2", []byte("two")) },
	"write":  func(ctx context.Context, b *objects.Bucket) error { return b.Write(ctx, "a/2", []byte("two")) },
	"delete": func(ctx context.Context, b *objects.Bucket) error { return b.Delete(ctx, "a/1") },
}

func onEachRequest(t *testing.T, test func(t *testing.T, f *objectstest.Faults, request func(context.Context) error)) {
	t.Helper()
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
				f.Put("a/1", []byte("one"), time.Now())
				test(t, f, func(ctx context.Context) error { return request(ctx, b) })
			})
		})
	}
}

// A request that is not answered, that a store is too busy for, or whose connection
// breaks, is made again.
func TestRequestsAreMadeAgain(t *testing.T) {
	for _, rule := range []objectstest.Rule{
		{Fault: objectstest.Hang},
		{Fault: objectstest.LoseHanging},
		{Fault: objectstest.Late, Delay: time.Second},
		{Fault: objectstest.Fail},
		{Fault: objectstest.Fail, Err: objectstest.ErrBusy},
		{Fault: objectstest.Lose},
	} {
		t.Run(string(rule.Fault), func(t *testing.T) {
			onEachRequest(t, func(t *testing.T, f *objectstest.Faults, request func(context.Context) error) {
				rule.Times = 3
				f.Inject(rule)
				require.NoError(t, request(t.Context()))
			})
		})
	}
}

func TestNoRequestTakesForEver(t *testing.T) {
	onEachRequest(t, func(t *testing.T, f *objectstest.Faults, request func(context.Context) error) {
		f.Inject(objectstest.Rule{Fault: objectstest.Hang})
		start := time.Now()
		err := request(t.Context())
		assert.ErrorContains(t, err, "given up at try 4, after ")
		assert.ErrorContains(t, err, "the store gave no answer, or none to rely on, for 10s")
		assert.NotErrorIs(t, err, objects.ErrNotFound)
		timeout := interface{ Timeout() bool }(nil)
		assert.ErrorAs(t, err, &timeout)
		assert.NotErrorIs(t, err, context.DeadlineExceeded, "that is how a caller knows its own deadline")
		assert.Less(t, time.Since(start), 45*time.Second)
	})
}

// A caller's own end is not the store's.
func TestRequestsEndWithTheirContext(t *testing.T) {
	onEachRequest(t, func(t *testing.T, f *objectstest.Faults, request func(context.Context) error) {
		for _, fault := range []objectstest.Fault{objectstest.Hang, objectstest.Fail} {
			f.Heal()
			f.Inject(objectstest.Rule{Fault: fault})
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			start := time.Now()
			assert.ErrorIs(t, request(ctx), context.DeadlineExceeded)
			assert.Equal(t, 200*time.Millisecond, time.Since(start))
			cancel()
		}
	})
}

// What a store refuses for good is not asked for again.
func TestFinalErrors(t *testing.T) {
	onEachRequest(t, func(t *testing.T, f *objectstest.Faults, request func(context.Context) error) {
		f.Inject(objectstest.Rule{Err: objectstest.ErrDenied})
		start := time.Now()
		assert.ErrorIs(t, request(t.Context()), objectstest.ErrDenied)
		assert.Zero(t, time.Since(start))
		assert.Equal(t, 1, f.Requests("", "", ""))
	})
}

// notFound is what drivers say "not found" of.
type notFound struct{ error }

func (notFound) Code() gcerrors.ErrorCode { return gcerrors.NotFound }
func (e notFound) Unwrap() error          { return e.error }

// answer is an error of S3.
type answer struct {
	status int
	code   string
}

func (a answer) Error() string       { return a.code }
func (a answer) HTTPStatusCode() int { return a.status }
func (a answer) ErrorCode() string   { return a.code }

// cutAnswer is an error of S3 of which only the status came.
type cutAnswer int

func (a cutAnswer) Error() string       { return "deserialization failed" }
func (a cutAnswer) HTTPStatusCode() int { return int(a) }

// What an answer says that was cut is asked for again, or taken from its status.
func TestCutAnswers(t *testing.T) {
	inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
		f.Put("a/1", []byte("one"), time.Now())
		for _, err := range []error{cutAnswer(403), cutAnswer(400), cutAnswer(503), notFound{cutAnswer(404)}} {
			for name, request := range requests {
				if name != "delete" {
					f.Inject(objectstest.Rule{Times: 3, Err: err})
					assert.NoError(t, request(t.Context(), b), "%s: %w", name, err)
				}
			}
		}
		f.Put("b", []byte("mine"), time.Now())
		f.Inject(objectstest.Rule{Op: objectstest.Create, Key: "b", Err: cutAnswer(412)})
		assert.NoError(t, b.Create(t.Context(), "b", []byte("mine")))
		assert.ErrorIs(t, b.Create(t.Context(), "b", []byte("yours")), objects.ErrExists)
	})
}

// Drivers say "not found" of much that may well be there.
func TestWhatCannotBeSeenIsNotMissing(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"an object":            {notFound{answer{404, "NoSuchKey"}}, objects.ErrNotFound},
		"an object on GCS":     {notFound{&googleapi.Error{Code: 404}}, objects.ErrNotFound},
		"the bucket":           {notFound{answer{404, "NoSuchBucket"}}, objects.ErrGone},
		"another region":       {notFound{answer{301, "MovedPermanently"}}, nil},
		"archived":             {notFound{answer{403, "ObjectNotInActiveTierError"}}, nil},
		"forbidden on GCS":     {notFound{&googleapi.Error{Code: 403}}, nil},
		"a host, says the DNS": {notFound{&net.DNSError{Err: "no such host", Name: "account.example"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
				f.Inject(objectstest.Rule{Err: c.err})
				_, readErr := b.Read(t.Context(), "a/1")
				_, statErr := b.Stat(t.Context(), "a/1")
				for _, err := range []error{readErr, statErr, b.Delete(t.Context(), "a/1")} {
					require.Error(t, err)
					assert.Equal(t, errors.Is(c.want, objects.ErrNotFound), errors.Is(err, objects.ErrNotFound), err)
					assert.Equal(t, errors.Is(c.want, objects.ErrGone), errors.Is(err, objects.ErrGone), err)
				}
				listErr := requests["list"](t.Context(), b)
				assert.NotErrorIs(t, listErr, objects.ErrNotFound)
				assert.Equal(t, c.want != nil, errors.Is(listErr, objects.ErrGone), "a bucket without objects has a list")
			})
		})
	}
}

func TestCutBodies(t *testing.T) {
	for _, fault := range []objectstest.Fault{objectstest.Cut, objectstest.Short, objectstest.Stall} {
		inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
			f.Put("a/1", []byte("one"), time.Now())
			f.Inject(objectstest.Rule{Op: objectstest.Read, Fault: fault, Bytes: 2, Times: 2})
			require.NoError(t, requests["read"](t.Context(), b))
			f.Inject(objectstest.Rule{Op: objectstest.Read, Fault: fault, Bytes: 2})
			assert.ErrorContains(t, requests["read"](t.Context(), b), "given up at try 4")
		})
	}
}

// A list that breaks after its first page is neither short nor begun again.
func TestCutLists(t *testing.T) {
	inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
		var want []string
		for i := range 2500 {
			want = append(want, fmt.Sprintf("a/%04d", i))
			f.Put(want[i], nil, time.Now())
		}
		list := func() (keys []string, err error) {
			for o, err := range b.List(t.Context(), "a/") {
				if err != nil {
					return keys, err
				}
				keys = append(keys, o.Key)
			}
			return keys, nil
		}
		f.Inject(objectstest.Rule{Op: objectstest.List, Skip: 1, Times: 3, Fault: objectstest.Cut})
		keys, err := list()
		require.NoError(t, err)
		assert.Equal(t, want, keys)
		f.Inject(objectstest.Rule{Op: objectstest.List, Skip: 1, Fault: objectstest.Stall})
		keys, err = list()
		assert.ErrorContains(t, err, "given up at try 4")
		assert.Len(t, keys, 1000)
	})
}

func TestCreateWhoseAnswerWasLost(t *testing.T) {
	inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
		for i, fault := range []objectstest.Fault{objectstest.Lose, objectstest.LoseHanging, objectstest.Late} {
			key := fmt.Sprint(i)
			f.Inject(objectstest.Rule{Op: objectstest.Create, Key: key, Times: 1, Fault: fault})
			require.NoError(t, b.Create(t.Context(), key, []byte("mine")), "it is no other writer's")
			assert.ErrorIs(t, b.Create(t.Context(), key, []byte("yours")), objects.ErrExists)
		}

		// Another writer comes between the first attempt, which did nothing, and the next.
		f.Inject(objectstest.Rule{Op: objectstest.Create, Key: "c", Times: 1, Fault: objectstest.Fail, Do: func(objectstest.Request) {
			f.Put("c", []byte("theirs"), time.Now())
		}})
		assert.ErrorIs(t, b.Create(t.Context(), "c", []byte("mine")), objects.ErrExists)

		// What is there cannot be read, or is gone again: it is not known whose it was.
		f.Put("d", []byte("whose"), time.Now())
		f.Inject(objectstest.Rule{Op: objectstest.Read, Key: "d", Err: objectstest.ErrDenied, Times: 1})
		err := b.Create(t.Context(), "d", []byte("mine"))
		assert.ErrorIs(t, err, objectstest.ErrDenied)
		assert.NotErrorIs(t, err, objects.ErrExists)
		f.Inject(objectstest.Rule{Op: objectstest.Read, Key: "d", Do: func(objectstest.Request) { f.Remove("d") }})
		err = b.Create(t.Context(), "d", []byte("mine"))
		assert.ErrorContains(t, err, "whether it was this one is unknown")
		assert.NotErrorIs(t, err, objects.ErrExists)
		assert.NotErrorIs(t, err, objects.ErrNotFound)
	})
}

func TestStreamsThatStall(t *testing.T) {
	inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
		f.Put("a", []byte(strings.Repeat("x", 100)), time.Now())
		f.Inject(objectstest.Rule{Op: objectstest.Read, Times: 1, Fault: objectstest.Stall, Bytes: 60})
		r, err := b.Reader(t.Context(), "a", 30)
		require.NoError(t, err)
		time.Sleep(time.Hour) // the reader's own time does not count
		start := time.Now()
		data, err := io.ReadAll(r)
		assert.ErrorContains(t, err, "read faults://test/a: the store gave no answer, or none to rely on, for 10s")
		assert.Len(t, data, 60)
		assert.Equal(t, 10*time.Second, time.Since(start))
		require.NoError(t, r.Close())
		r, err = b.Reader(t.Context(), "a", 30)
		require.NoError(t, err)
		data, err = io.ReadAll(r)
		require.NoError(t, err)
		assert.Len(t, data, 70)
		require.NoError(t, r.Close())
	})
}

// slow is a source that takes its time.
type slow struct{ left int }

func (s *slow) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(time.Hour)
	s.left--
	return copy(p, "slow"), nil
}

func TestUploadsThatStall(t *testing.T) {
	inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
		require.NoError(t, b.Upload(t.Context(), "a", &slow{3}), "the source's time does not count")
		for _, rule := range []objectstest.Rule{
			{Fault: objectstest.Stall, Bytes: 2}, // of 8
			{Fault: objectstest.Stall, Bytes: 8},
			{Fault: objectstest.LoseHanging},
		} {
			f.Inject(rule)
			start := time.Now()
			err := b.Upload(t.Context(), "b", &slow{2})
			assert.ErrorContains(t, err, "upload faults://test/b: the store gave no answer, or none to rely on, for 10s")
			assert.LessOrEqual(t, time.Since(start), 2*time.Hour+20*time.Second)
			f.Heal()
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := objectstest.NewFaults()
		b := f.Bucket("", objects.WithTimeout(time.Minute))
		f.Inject(objectstest.Rule{Fault: objectstest.Slow, Delay: 50 * time.Second})
		_, err := b.Read(t.Context(), "a")
		assert.ErrorIs(t, err, objects.ErrNotFound)
		assert.Equal(t, 1, f.Requests("", "", ""))
	})
}

func TestCheckWritable(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, b *objects.Bucket) {
		require.NoError(t, b.CheckWritable(t.Context(), "intents/try.json"))
		assert.Empty(t, keys(t, b, ""))
	})
	inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
		f.Inject(objectstest.Rule{Op: objectstest.Create, Err: objectstest.ErrDenied})
		assert.ErrorIs(t, b.CheckWritable(t.Context(), "try"), objectstest.ErrDenied)
	})
	inTrouble(t, func(t *testing.T, f *objectstest.Faults, b *objects.Bucket) {
		// A server that does not know the condition.
		f.Inject(objectstest.Rule{Op: objectstest.Create, Skip: 1, Do: func(q objectstest.Request) { f.Remove(q.Key) }})
		assert.ErrorContains(t, b.CheckWritable(t.Context(), "try"), "creates an object over one that is there")
		assert.Empty(t, f.Keys(""))
	})
}
