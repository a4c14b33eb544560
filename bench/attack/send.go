package attack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// SendOptions say how a server is attacked. The zero value of a field is its default,
// unless it says that it is required.
type SendOptions struct {
	// Address is the server's, HOST:PORT on loopback: what is sent here must not reach
	// others. Required.
	Address string
	// Target is what it serves. Required.
	Target *Target
	// Seed decides what is sent.
	Seed uint64
	// Attackers is how many send at a time. The default is 64.
	Attackers int
	// Time is how long they send. The default is an hour.
	Time time.Duration
	// Kinds are the names of the kinds to send. The default is all.
	Kinds []string
}

// DefaultAttackers is how many attackers there are by default.
const DefaultAttackers = 64

// DefaultTime is how long they send by default.
const DefaultTime = time.Hour

func (o SendOptions) withDefaults() SendOptions {
	if o.Attackers == 0 {
		o.Attackers = DefaultAttackers
	}
	if o.Time == 0 {
		o.Time = DefaultTime
	}
	return o
}

// MaxAttackers bounds the attackers of a [Send].
const MaxAttackers = 1000

// Validate returns an error that names the option out of bounds.
func (o SendOptions) Validate() error {
	o = o.withDefaults()
	address, err := netip.ParseAddrPort(o.Address)
	switch {
	case err != nil:
		return fmt.Errorf("address is %q, want IP:PORT", o.Address)
	case !address.Addr().IsLoopback():
		return fmt.Errorf("address is %s, want one of this machine's loopback: attacks are for servers of one's own", o.Address)
	case o.Target == nil:
		return errors.New("target is missing")
	case o.Attackers < 1 || o.Attackers > MaxAttackers:
		return fmt.Errorf("attackers is %d, want 1 to %d", o.Attackers, MaxAttackers)
	case o.Time < 0:
		return fmt.Errorf("time is %s, want more than 0", o.Time)
	}
	return CheckKinds(o.Kinds)
}

// CheckKinds returns an error if a name is that of no kind.
func CheckKinds(names []string) error {
	known := KindNames()
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no kind of attack %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// turnTime bounds a turn of an attacker.
const turnTime = 30 * time.Second

// Send attacks a server until the time is over or ctx ends, and reports what came back.
// It leaves no connection open.
func Send(ctx context.Context, o SendOptions) (*Sent, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, o.Time)
	defer cancel()
	start := time.Now()
	c := &campaign{options: o, target: o.Target, bank: newBank(), tally: newTally(), url: "http://" + o.Address}
	all := kinds()
	if len(o.Kinds) > 0 {
		all = slices.DeleteFunc(all, func(k kind) bool { return !slices.Contains(o.Kinds, k.name) })
	}
	var attackers sync.WaitGroup
	for i := range o.Attackers {
		attackers.Go(func() { c.attack(ctx, i, all) })
	}
	attackers.Wait()
	return c.tally.sent(o.Seed, time.Since(start)), nil
}

// kind is a kind of attack.
type kind struct {
	name   string
	weight int
	attack func(ctx context.Context, a *attacker)
}

// draw draws a kind by its weight.
func draw(r *rand.Rand, kinds []kind) kind {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	n := r.IntN(total)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	panic("unreachable: n is below the sum of the weights")
}

// campaign is what all attackers of a [Send] share.
type campaign struct {
	options SendOptions
	target  *Target
	bank    *bank
	tally   *tally
	url     string
}

// attack takes the turns of one attacker.
func (c *campaign) attack(ctx context.Context, number int, kinds []kind) {
	a := &attacker{campaign: c, dialer: c.dialer(number)}
	a.http1 = &http.Transport{DialContext: a.dialer.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 1, MaxResponseHeaderBytes: 1 << 20}
	a.http2 = &http.Transport{DialContext: a.dialer.DialContext, DisableCompression: true, Protocols: new(http.Protocols), MaxResponseHeaderBytes: 1 << 20}
	a.http2.Protocols.SetUnencryptedHTTP2(true)
	defer a.http1.CloseIdleConnections()
	defer a.http2.CloseIdleConnections()
	for turn := uint64(0); turn == 0 || !over(ctx); turn++ { // one at least, for a report to have it
		a.rand = rand.New(rand.NewPCG(c.options.Seed, uint64(number)<<40|turn))
		k := draw(a.rand, kinds)
		a.kind = k.name
		limited, cancel := context.WithTimeout(ctx, turnTime)
		c.tally.turn(k.name)
		k.attack(limited, a)
		cancel()
		// Connections that a turn has spoiled must not spoil the next.
		if a.rand.IntN(4) == 0 {
			a.http1.CloseIdleConnections()
			a.http2.CloseIdleConnections()
		}
	}
}

// over reports whether ctx has ended, or is just about to: on a machine that is busy it
// ends some time after its deadline, and what is done meanwhile fails at once.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// attacker is one that sends, one thing at a time unless its kind does otherwise.
type attacker struct {
	*campaign
	kind         string // of this turn
	rand         *rand.Rand
	dialer       *net.Dialer
	http1, http2 *http.Transport
}

// note counts what came of something that was sent. It is for any goroutine.
func (a *attacker) note(outcome string) { a.tally.note(a.kind, outcome) }

// chance reports true one time in n.
func (a *attacker) chance(n int) bool { return a.rand.IntN(n) == 0 }

// pick returns one of a list.
func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// dialer returns what opens an attacker's connections. On Linux all of 127.0.0.0/8 is
// loopback, and each attacker has an address of its own: one has 28,000 ports, and each is
// taken for a minute by a connection that has been closed.
func (c *campaign) dialer(number int) *net.Dialer {
	d := &net.Dialer{Timeout: callTime}
	if address, err := netip.ParseAddrPort(c.options.Address); err == nil && address.Addr().Is4() && runtime.GOOS == "linux" {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, byte(number/250), byte(1+number%250))}
	}
	return d
}

// dial opens a connection that ends with ctx.
func (a *attacker) dial(ctx context.Context) (net.Conn, error) {
	conn, err := a.dialer.DialContext(ctx, "tcp", a.options.Address)
	if err != nil {
		a.note(broken(ctx, err))
		return nil, err
	}
	c := &ending{Conn: conn}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return c, nil
}

// ending is a connection that ends with a context.
type ending struct {
	net.Conn
	stop func() bool
}

// Close implements [net.Conn].
func (e *ending) Close() error {
	e.stop()
	return e.Conn.Close()
}

// hold waits, at most as long as ctx.
func hold(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
