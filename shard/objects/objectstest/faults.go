package objectstest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/tandem-ann/tandem/shard/objects"
)

// Op is what a request asks of a store.
type Op string

// The requests of a store. A list is asked for a page at a time, and each page is a
// request.
const (
	Read   Op = "read"
	Stat   Op = "stat"
	List   Op = "list"
	Create Op = "create" // a write that fails if the object is there
	Write  Op = "write"  // a write in any case: of Write and of Upload
	Delete Op = "delete"
)

// Fault is what becomes of a request.
type Fault string

const (
	// Fail gives the error and does nothing.
	Fail Fault = "fail"
	// Lose does what was asked and gives the error: the answer was lost.
	Lose Fault = "lose"
	// Hang does nothing and never answers: it ends with the context.
	Hang Fault = "hang"
	// LoseHanging does what was asked and never answers.
	LoseHanging Fault = "lose hanging"
	// Late does not answer, and does what was asked Rule.Delay after the client has given
	// it up.
	Late Fault = "late"
	// Slow waits for Rule.Delay and then does what was asked, or gives up when the
	// context ends before.
	Slow Fault = "slow"
	// Cut lets Rule.Bytes of a body pass and then breaks the connection: a reader gets
	// io.ErrUnexpectedEOF, and nothing is seen of a write. Of a list it is Fail.
	Cut Fault = "cut"
	// Short ends the body of a read after Rule.Bytes, as if that were all.
	Short Fault = "short"
	// Stall lets Rule.Bytes of a body pass and then hangs. Of a list it is Hang.
	Stall Fault = "stall"
	// Tear leaves the first Rule.Bytes of a write under the object's name and gives the
	// error. No store that keeps the promises of package objects does that; one that
	// writes plain files does when it is killed.
	Tear Fault = "tear"
	// Lag lists what there was Rule.Delay ago, by the store's clock.
	Lag Fault = "lag"
	// Empty lists nothing.
	Empty Fault = "empty"
)

// fits reports whether a fault can happen to a request; else the request passes.
func (fault Fault) fits(op Op) bool {
	switch fault {
	case Short:
		return op == Read
	case Tear:
		return op == Create || op == Write
	case Late:
		return op == Create || op == Write || op == Delete
	case Lag, Empty:
		return op == List
	case Cut, Stall:
		return op != Stat && op != Delete
	}
	return true
}

// Request is one request to the store.
type Request struct {
	Client string // whose bucket it came through
	Op     Op
	Key    string // of the object; of a list its prefix
}

// Rule says which requests meet a fault. A field that is zero leaves nothing out.
type Rule struct {
	Op     Op
	Client string
	Key    string // what the keys begin with
	Skip   int    // how many requests of these pass first
	Times  int    // how many meet the fault then; 0 is all

	Fault Fault         // default: Fail
	Err   error         // default: [ErrInjected]; it may have a method Code, as [Coded]
	Delay time.Duration // of Slow, Late and Lag
	Bytes int64         // of Cut, Short, Stall and Tear

	// Do, if not nil, is called before the fault, and is all that happens if Fault is
	// empty. It may use the store: that is how two come in each other's way.
	Do func(Request)
	// Choose, if not nil, returns what Fault is, once it is decided: it may wait. Requests that
	// are made side by side call it side by side.
	Choose func(Request) Fault
}

var (
	// ErrInjected is the error of a connection that breaks.
	ErrInjected = errors.New("injected: connection reset by peer")
	// ErrBusy is the error of a store that is asked for too much.
	ErrBusy error = statusError(503)
	// ErrDenied is the error of a store that refuses a request.
	ErrDenied error = statusError(403)
)

// Coded is an error that a driver of gocloud.dev/blob gives a code.
type Coded interface {
	error
	Code() gcerrors.ErrorCode
}

// statusError is an answer with an HTTP status, as the S3 client returns it.
type statusError int

func (e statusError) Error() string       { return fmt.Sprintf("injected: status %d", int(e)) }
func (e statusError) HTTPStatusCode() int { return int(e) }
func (e statusError) ErrorCode() string   { return http.StatusText(int(e)) }

func (e statusError) Code() gcerrors.ErrorCode {
	if e == 403 {
		return gcerrors.PermissionDenied
	}
	return gcerrors.Unknown
}

// Faults is an object store in memory that fails as it is told to. It keeps the
// promises of package objects otherwise. It may be used by any number of goroutines,
// and in a synctest bubble.
//
//	f := objectstest.NewFaults()
//	bucket := f.Bucket("")
//	f.Inject(objectstest.Rule{Op: objectstest.Create, Key: "releases/", Times: 1, Fault: objectstest.Lose})
type Faults struct {
	mu       sync.Mutex
	objects  map[string][]version // oldest first
	clock    func() time.Time
	pageSize int

	rules  []*rule
	chance *chance
	counts map[Request]int
}

// rule is a Rule and how often it was asked.
type rule struct {
	Rule
	asked int
}

// chance draws faults at random.
type chance struct {
	seed   uint64
	share  float64
	faults []Fault
}

// NewFaults returns an empty store without faults.
func NewFaults() *Faults {
	return &Faults{objects: map[string][]version{}, clock: time.Now, pageSize: 1000, counts: map[Request]int{}}
}

// Bucket returns the store as a client sees it; several, with names of their own, can
// be told apart by rules. The caller may close it, or not.
func (f *Faults) Bucket(client string, list ...objects.Option) *objects.Bucket {
	return objects.New(blob.NewBucket(&connection{faults: f, client: client}), "faults://"+client, list...)
}

// located are the stores that have a location, by its host.
var located sync.Map

var registerScheme = sync.OnceFunc(func() {
	blob.DefaultURLMux().RegisterBucket("faults", opener{})
	objects.Register("faults", objects.Driver{})
})

type opener struct{}

func (opener) OpenBucketURL(_ context.Context, u *url.URL) (*blob.Bucket, error) {
	f, ok := located.Load(u.Host)
	if !ok {
		return nil, fmt.Errorf("%s: its test has ended", u)
	}
	return blob.NewBucket(&connection{faults: f.(*Faults), client: u.Host}), nil
}

// Location returns a URL by which this process opens the store, until the test ends.
func (f *Faults) Location(t testing.TB) string {
	registerScheme()
	host := fmt.Sprintf("%x", rand.Uint64())
	located.Store(host, f)
	t.Cleanup(func() { located.Delete(host) })
	return "faults://" + host
}

// Inject adds a rule. Of several that a request matches, the first that is not used up
// holds.
func (f *Faults) Inject(r Rule) {
	if r.Fault == "" && r.Do == nil && r.Choose == nil {
		r.Fault = Fail
	}
	if r.Err == nil {
		r.Err = ErrInjected
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &rule{Rule: r})
}

// Random makes a share of the requests, from 0 to 1, meet a fault of the list. What a
// client's request meets depends on the seed, the request and how often the client has
// made it, not on what others do.
func (f *Faults) Random(seed uint64, share float64, list ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chance = &chance{seed, share, slices.Clone(list)}
}

// Heal ends all faults, but not those that requests have met.
func (f *Faults) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.chance = nil, nil
}

// SetClock sets the store's clock, by which it dates objects. Default: time.Now.
func (f *Faults) SetClock(clock func() time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock = clock
}

// Advance moves the store's clock ahead, or back.
func (f *Faults) Advance(by time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	clock := f.clock
	f.clock = func() time.Time { return clock().Add(by) }
}

// SetPageSize sets how many objects a page of a list has. Default: 1000.
func (f *Faults) SetPageSize(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pageSize = n
}

// Requests returns how many requests there were so far that a rule with these fields
// would match; empty ones leave nothing out.
func (f *Faults) Requests(client string, op Op, key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	r := Rule{Client: client, Op: op, Key: key}
	for request, count := range f.counts {
		if r.matches(request) {
			n += count
		}
	}
	return n
}

func (r *Rule) matches(q Request) bool {
	return (r.Op == "" || r.Op == q.Op) && (r.Client == "" || r.Client == q.Client) && strings.HasPrefix(q.Key, r.Key)
}

// meet returns what a request meets, and waits if it is slow.
func (f *Faults) meet(ctx context.Context, q Request) (Rule, error) {
	if err := ctx.Err(); err != nil {
		return Rule{}, err
	}
	r := f.draw(q)
	if r.Do != nil {
		r.Do(q)
	}
	if r.Choose != nil {
		r.Fault = r.Choose(q)
	}
	switch fault := r.Fault; {
	case fault != "" && !fault.fits(q.Op):
		r.Fault = ""
	case fault == Fail, fault == Cut && q.Op == List:
		return r, r.Err
	case fault == Hang, fault == Stall && q.Op == List:
		<-ctx.Done()
		return r, ctx.Err()
	case fault == Slow:
		timer := time.NewTimer(r.Delay)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-timer.C:
		}
	}
	return r, nil
}

// draw counts a request and returns the rule that holds for it.
func (f *Faults) draw(q Request) Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[q]++
	for _, r := range f.rules {
		if !r.matches(q) {
			continue
		}
		r.asked++
		if r.asked > r.Skip && (r.Times == 0 || r.asked <= r.Skip+r.Times) {
			return r.Rule
		}
	}
	if f.chance == nil || len(f.chance.faults) == 0 {
		return Rule{}
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %s %d", q.Client, q.Op, q.Key, f.counts[q])
	random := rand.New(rand.NewPCG(f.chance.seed, h.Sum64()))
	if random.Float64() >= f.chance.share {
		return Rule{}
	}
	return Rule{
		Fault: f.chance.faults[random.IntN(len(f.chance.faults))],
		Err:   ErrInjected,
		Delay: time.Duration(random.Int64N(int64(time.Second))),
		Bytes: random.Int64N(64),
	}
}

// late waits until the client gives up, and has the effect come later.
func (r *Rule) late(ctx context.Context, effect func()) error {
	<-ctx.Done()
	time.AfterFunc(r.Delay, effect)
	return ctx.Err()
}

// after ends a request that has had its effect.
func (r *Rule) after(ctx context.Context) error {
	switch r.Fault {
	case Lose, Tear:
		return r.Err
	case LoseHanging:
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// errorCode gives the errors of the store their codes.
func errorCode(err error) gcerrors.ErrorCode {
	var coded Coded
	switch {
	case errors.Is(err, errNotFound):
		return gcerrors.NotFound
	case errors.Is(err, errExists):
		return gcerrors.FailedPrecondition
	case errors.As(err, &coded):
		return coded.Code()
	case errors.Is(err, context.Canceled):
		return gcerrors.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return gcerrors.DeadlineExceeded
	}
	return gcerrors.Unknown
}
