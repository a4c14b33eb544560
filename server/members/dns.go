package members

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// lookupTimeout is for how long a name is asked for: long enough for a second server of names
// when the first is silent.
const lookupTimeout = 15 * time.Second

// resolver is what is asked for names, as [net.Resolver].
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// dns has the addresses of a name, or its SRV records.
type dns struct {
	text     string
	host     string
	port     string // of all addresses; empty for SRV records, which have one each
	resolver resolver
}

// String implements [Source].
func (d *dns) String() string { return d.text }

// Watch implements [Source].
func (d *dns) Watch(ctx context.Context, told func(Members)) {
	k := keeper{source: d.text, told: told}
	for ctx.Err() == nil {
		list, err := d.ask(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			k.failed(err)
		default:
			k.heard(list, nil)
		}
		sleep(ctx, spread(poll))
	}
}

// ask returns the members that a name has now. There are none if the name has no records, or
// is not there.
func (d *dns) ask(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := d.addresses(ctx)
	if notFound, ok := errors.AsType[*net.DNSError](err); ok && notFound.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", d.host, err)
	}
	seen := map[string]bool{}
	var list []Member
	for _, text := range addresses {
		address, err := canonicalAddress(text)
		if err != nil {
			return nil, fmt.Errorf("an address of %s: %w", d.host, err)
		}
		if !seen[address] {
			list = append(list, Member{Name: address, Address: address, Condition: ready})
		}
		seen[address] = true
	}
	return list, nil
}

// addresses returns what the records say, as host:port.
func (d *dns) addresses(ctx context.Context) ([]string, error) {
	if d.port == "" {
		return d.services(ctx)
	}
	// One family after the other, so that silence about one is not taken for its absence.
	ips, err := d.resolver.LookupNetIP(ctx, "ip4", d.host)
	if notFound, ok := errors.AsType[*net.DNSError](err); ok && notFound.IsNotFound {
		ips, err = d.resolver.LookupNetIP(ctx, "ip6", d.host)
	}
	if err != nil {
		return nil, err
	}
	if len(ips) > MaxMembers { // before anything is made of them
		return nil, fmt.Errorf("there are %d addresses, want up to %d", len(ips), MaxMembers)
	}
	out := make([]string, len(ips))
	for i, ip := range ips {
		out[i] = net.JoinHostPort(ip.String(), d.port)
	}
	return out, nil
}

func (d *dns) services(ctx context.Context) ([]string, error) {
	service, proto := defaultPort, "tcp"
	if strings.HasPrefix(d.host, "_") {
		service, proto = "", ""
	}
	_, records, err := d.resolver.LookupSRV(ctx, service, proto, d.host)
	if err != nil { // there may be records all the same, but not all
		return nil, err
	}
	if len(records) > MaxMembers {
		return nil, fmt.Errorf("there are %d records, want up to %d", len(records), MaxMembers)
	}
	var out []string
	for _, r := range records {
		if r.Target != "." { // by RFC 2782 there is no such service then
			out = append(out, net.JoinHostPort(r.Target, strconv.Itoa(int(r.Port))))
		}
	}
	return out, nil
}
