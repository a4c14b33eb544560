package objects

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"gocloud.dev/blob"
	"google.golang.org/api/googleapi"
)

// Driver is what a package that links the client of a kind of store knows of it, so that only who opens
// such stores compiles their clients, which are larger than all else that stores take.
type Driver struct {
	// Answer returns the HTTP status and the code of an error of the client that tells them otherwise
	// than by methods HTTPStatusCode and ErrorCode; 0 and "" of what is none. It may be nil, and is
	// safe for concurrent use.
	Answer func(err error) (status int, code string)
	// BeforeRead is that of [blob.ReaderOptions] of all reads. It may be nil.
	BeforeRead func(as func(any) bool) error
}

// linked are the drivers by their schemes. They are linked once, as those of gocloud.dev/blob are.
var linked = struct {
	sync.RWMutex
	drivers map[string]Driver
}{drivers: map[string]Driver{}}

// Register makes a driver known under the scheme of its URLs. It is for init functions of the packages
// below this one, each beside the one of gocloud.dev/blob that it imports; it panics if there is one by
// that scheme.
func Register(scheme string, d Driver) {
	linked.Lock()
	defer linked.Unlock()
	if _, is := linked.drivers[scheme]; is {
		panic("objects: two drivers are registered for " + scheme)
	}
	linked.drivers[scheme] = d
}

// driverOf returns the driver of a location; none for what has no scheme, or is in memory.
func driverOf(location string) (d Driver, scheme string, ok bool) {
	scheme, _, isURL := strings.Cut(location, "://")
	if !isURL {
		return Driver{}, "", false
	}
	scheme = strings.TrimPrefix(strings.TrimPrefix(scheme, "blob+"), "bucket+") // which gocloud.dev/blob takes too
	linked.RLock()
	defer linked.RUnlock()
	d, ok = linked.drivers[scheme]
	return d, scheme, ok
}

// checkLinked returns an error for a URL of which gocloud.dev/blob has a driver and this package none: its
// errors would not be told from one another.
func checkLinked(location string) error {
	_, scheme, ok := driverOf(location)
	if ok || scheme == "mem" || !blob.DefaultURLMux().ValidBucketScheme(scheme) {
		return nil // gocloud.dev/blob says what schemes there are
	}
	linked.RLock()
	defer linked.RUnlock()
	return fmt.Errorf("%s: the scheme %.40q is not linked by a package of shard/objects; accepted: a folder, and URLs of %q", location, scheme, slices.Sorted(maps.Keys(linked.drivers)))
}

// answers calls do with what each linked driver says of an error, until it returns true.
func answers(err error, do func(status int, code string) bool) {
	linked.RLock()
	defer linked.RUnlock()
	for _, d := range linked.drivers {
		if d.Answer == nil {
			continue
		}
		if status, code := d.Answer(err); do(status, code) {
			return
		}
	}
}

// statusOf returns the HTTP status that an error came with, 0 if it is not known.
func statusOf(err error) (status int) {
	var told interface{ HTTPStatusCode() int }
	if errors.As(err, &told) {
		return told.HTTPStatusCode()
	}
	if google := (*googleapi.Error)(nil); errors.As(err, &google) { // gocloud.dev/blob has it in any case
		return google.Code
	}
	answers(err, func(s int, _ string) bool { status = s; return s != 0 })
	return status
}

// codeOf returns the code by which S3 or Azure names an error.
func codeOf(err error) (code string) {
	var told interface{ ErrorCode() string }
	if errors.As(err, &told) {
		return told.ErrorCode()
	}
	answers(err, func(_ int, c string) bool { code = c; return c != "" })
	return code
}
