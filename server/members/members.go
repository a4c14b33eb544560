package members

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// MaxMembers is how many members a cluster may have.
const MaxMembers = 4096

// poll is how often sources are asked that do not say by themselves that something has changed.
const poll = time.Second

// Member is one node, as a source knows it.
type Member struct {
	// Name is the node for as long as it is a member, wherever it runs: the name of a pod, the
	// name in a file, or else the address. No two members have one name.
	Name string
	// Address is where it answers the shard RPC, as host:port. Hosts are names in lower case,
	// or IP addresses in their canonical form.
	Address string
	// Zone is what fails together, empty if unknown.
	Zone string
	// Weight is how many bytes of memory it may map, 0 if unknown.
	Weight int64
	Condition
}

// Condition is the state of a member as far as a source knows it. What knows nothing of that
// says that members are ready.
type Condition struct {
	// Ready is whether it may be asked. A node that loads what it is to hold is not ready, and
	// is a member all the same.
	Ready bool
	// Serving is whether it answers, be it terminating or not.
	Serving bool
	// Terminating is whether it is about to end: it is to hold nothing new.
	Terminating bool
}

// ready is the condition of members of which nothing is known.
var ready = Condition{Ready: true, Serving: true}

// Members are who there is. They are immutable.
type Members struct {
	// List is in the order of names. It is what was heard last; that a source is silent, or
	// wrong, does not change it.
	List []Member
	// Heard is when the source last said that these are the members, zero if it never has.
	Heard time.Time
	// Err is what is wrong with the source, or with some of what it says, now; nil if nothing
	// is.
	Err error
}

// Source is where one hears who there is.
type Source interface {
	// Watch calls told until ctx ends: when the source was heard, whether or not its members
	// are others than before, and when it could not be. It calls it for the first time as soon
	// as one of the two is known, and from the goroutine that has called Watch, which goes on
	// when told returns. Watch may be called by several goroutines; each hears for itself.
	Watch(ctx context.Context, told func(Members))
	// String is what the source was parsed from.
	String() string
}

// keeper keeps what was heard.
type keeper struct {
	source string // for errors
	told   func(Members)
	now    Members
}

// heard tells of what a source has said, as a list that the keeper may change, unless that
// cannot be. The error is what is wrong with a part of it.
func (k *keeper) heard(list []Member, partly error) {
	if err := arrange(list); err != nil {
		if partly != nil {
			err = fmt.Errorf("%w; %w", err, partly)
		}
		k.failed(fmt.Errorf("members of %.300s: %w", k.source, err))
		return
	}
	if !slices.Equal(list, k.now.List) {
		k.now.List = list
	}
	k.now.Heard, k.now.Err = time.Now(), partly
	k.told(k.now)
}

// failed tells that a source has said nothing that counts.
func (k *keeper) failed(err error) {
	k.now.Err = err
	k.told(k.now)
}

// arrange sorts members, or says why they cannot be all members of a cluster.
func arrange(list []Member) error {
	if len(list) == 0 {
		return errors.New("it has no members; those that were known are kept")
	}
	if len(list) > MaxMembers {
		return fmt.Errorf("it has %d members, want up to %d", len(list), MaxMembers)
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	for i := range list[1:] {
		if list[i].Name == list[i+1].Name {
			return fmt.Errorf("it has two members of the name %.100q", list[i].Name)
		}
	}
	return nil
}

// sleep waits for a time, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// spread returns from a half of a time to all of it, by chance, so that the processes of a
// cluster do not ask all at once.
func spread(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
