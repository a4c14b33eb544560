package members

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Forms are the texts that [Parse] takes, for help and errors.
const Forms = "file:PATH, dns:///HOST:PORT, dns+srv:///NAME, k8s:///NAMESPACE/SERVICE[:PORTNAME], or HOST:PORT,HOST:PORT"

// defaultPort is the name of the port of the shard RPC, in SRV records and EndpointSlices.
const defaultPort = "shard"

// maxText bounds what a source is parsed from.
const maxText = 1 << 16

// Parse returns the source that a text names:
//
//   - file:PATH is a list in a file, by [ParseFile], which is read again every second.
//   - dns:///HOST:PORT has the addresses of a name, which is asked for every second: the IPv4
//     ones, or the IPv6 ones if there are none, since nothing says which two are of one node.
//     A headless service of Kubernetes leaves out pods that are not ready, unless
//     publishNotReadyAddresses is set, which nodes want: they load only as members.
//   - dns+srv:///NAME has the hosts and ports of the SRV records _shard._tcp.NAME, or of NAME if
//     it begins with _; priorities and weights of records are not looked at. Addresses of the
//     hosts are left to whoever connects to them.
//   - k8s:///NAMESPACE/SERVICE:PORTNAME has the endpoints of a service, from the API of the
//     cluster that the process is in; the port is named shard if that is left out.
//   - HOST:PORT,HOST:PORT is a list that never changes.
//
// Nothing is opened or asked yet. An error says what is accepted.
func Parse(text string, c Cluster) (Source, error) {
	s, err := parse(text, c)
	if err != nil {
		return nil, fmt.Errorf("members are %.200q: %w; accepted: %s", text, err, Forms)
	}
	return s, nil
}

func parse(text string, c Cluster) (Source, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("the text has %d bytes, want up to %d; a file may have more", len(text), maxText)
	}
	scheme, rest, _ := strings.Cut(text, ":")
	if scheme == "file" {
		return parsePath(text, rest)
	}
	if scheme != "dns" && scheme != "dns+srv" && scheme != "k8s" {
		return parseFixed(text)
	}
	name, ok := strings.CutPrefix(rest, "///")
	switch {
	case !ok:
		return nil, fmt.Errorf("there is no /// behind %q", scheme+":")
	case scheme == "dns":
		return parseDNS(text, name)
	case scheme == "dns+srv":
		return parseSRV(text, name)
	}
	return parseKube(text, name, c)
}

func parsePath(text, path string) (Source, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return nil, errors.New(`there is no path behind "file:"`)
	}
	return &file{text: text, path: path}, nil
}

func parseDNS(text, name string) (Source, error) {
	if _, err := canonicalAddress(name); err != nil {
		return nil, fmt.Errorf("the address: %w", err)
	}
	host, port, _ := net.SplitHostPort(name)
	if _, err := netip.ParseAddr(host); err == nil {
		return nil, errors.New("the host is an IP address, which needs no DNS")
	}
	return &dns{text: text, host: host, port: port, resolver: &net.Resolver{PreferGo: true}}, nil
}

func parseSRV(text, name string) (Source, error) {
	if _, err := canonicalHost(name); err != nil {
		return nil, fmt.Errorf("the name: %w", err)
	}
	return &dns{text: text, host: name, resolver: &net.Resolver{PreferGo: true}}, nil
}

func parseKube(text, name string, c Cluster) (Source, error) {
	namespace, service, _ := strings.Cut(name, "/")
	service, port, named := strings.Cut(service, ":")
	if !named {
		port = defaultPort
	}
	for _, part := range []struct{ what, label string }{{"namespace", namespace}, {"service", service}, {"name of the port", port}} {
		if !isLabel(part.label) {
			return nil, fmt.Errorf("the %s is not 1 to %d lower-case letters, digits and -", part.what, maxLabel)
		}
	}
	server, err := c.server()
	if err != nil {
		return nil, err
	}
	return &kube{text: text, namespace: namespace, service: service, port: port, server: server, folder: c.folder()}, nil
}

// fixed is a list that never changes.
type fixed struct {
	text string
	list []Member
}

func parseFixed(text string) (Source, error) {
	f := &fixed{text: text}
	for i, part := range strings.Split(text, ",") {
		address, err := canonicalAddress(part)
		if err != nil {
			return nil, fmt.Errorf("address %d: %w", i+1, err)
		}
		f.list = append(f.list, Member{Name: address, Address: address, Condition: ready})
	}
	return f, arrange(f.list)
}

// String implements [Source].
func (f *fixed) String() string { return f.text }

// Watch implements [Source]. It hears every second.
func (f *fixed) Watch(ctx context.Context, told func(Members)) {
	k := keeper{source: f.text, told: told}
	for ctx.Err() == nil {
		k.heard(append([]Member(nil), f.list...), nil)
		sleep(ctx, poll)
	}
}
