package members_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/tandem-ann/tandem/server/members"
)

// zone has an answer for each question; what it has not is not there.
type zone struct {
	mu      sync.Mutex
	answers map[string]answer // by type and name
}

type answer struct {
	code    dnsmessage.RCode
	silent  bool
	records []dnsmessage.ResourceBody
}

func (z *zone) set(question string, a answer) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.answers == nil {
		z.answers = map[string]answer{}
	}
	z.answers[question] = a
}

func a4(ips ...string) (out answer) {
	for _, ip := range ips {
		out.records = append(out.records, &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()})
	}
	return out
}

func a6(ips ...string) (out answer) {
	for _, ip := range ips {
		out.records = append(out.records, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(ip).As16()})
	}
	return out
}

var (
	servfail = answer{code: dnsmessage.RCodeServerFailure}
	nxdomain = answer{code: dnsmessage.RCodeNameError}
	silence  = answer{silent: true}
)

// resolver returns Go's own, whose questions a zone answers.
func (z *zone) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go z.serve(theirs)
		return ours, nil
	}}
}

// serve answers as over TCP, until the connection ends.
func (z *zone) serve(c net.Conn) {
	defer c.Close()
	for {
		head := make([]byte, 2)
		if _, err := readFull(c, head); err != nil {
			return
		}
		body := make([]byte, int(head[0])<<8|int(head[1]))
		if _, err := readFull(c, body); err != nil {
			return
		}
		if out := z.answer(body); out != nil {
			_, _ = c.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...))
		}
	}
}

func readFull(c net.Conn, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = c.Read(p[n:])
		n += more
	}
	return n, err
}

func (z *zone) answer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	z.mu.Lock()
	a, ok := z.answers[q.Type.String()[len("Type"):]+" "+q.Name.String()]
	z.mu.Unlock()
	if !ok {
		a = nxdomain
	}
	if a.silent {
		return nil
	}
	m.Response, m.RecursionAvailable, m.RCode, m.Additionals = true, true, a.code, nil
	for _, body := range a.records {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}, Body: body})
	}
	out, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return out
}

// inDNS runs a test of a source in a bubble, with a zone that answers it.
func inDNS(t *testing.T, text string, test func(t *testing.T, z *zone, w *watcher)) {
	// What the process has one of is made outside of the bubble.
	_, _ = new(zone).resolver().LookupNetIP(t.Context(), "ip4", "nowhere.test.")
	synctest.Test(t, func(t *testing.T) {
		z, s := &zone{}, parse(t, text)
		members.SetResolver(s, z.resolver())
		w := watch(t, s)
		defer w.stop()
		test(t, z, w)
	})
}

func TestDNSAddresses(t *testing.T) {
	inDNS(t, "dns:///shards.test.:7070", func(t *testing.T, z *zone, w *watcher) {
		m := w.after(2 * time.Second)
		require.ErrorContains(t, m.Err, "it has no members")
		require.Empty(t, m.List)

		z.set("A shards.test.", a4("10.0.0.2", "10.0.0.1", "10.0.0.2"))
		z.set("AAAA shards.test.", a6("fd00::1"))
		m = w.after(2 * time.Second)
		require.NoError(t, m.Err)
		require.Equal(t, []members.Member{
			{Name: "10.0.0.1:7070", Address: "10.0.0.1:7070", Condition: ready},
			{Name: "10.0.0.2:7070", Address: "10.0.0.2:7070", Condition: ready},
		}, m.List)

		for want, wrong := range map[string]answer{"server misbehaving": servfail, "i/o timeout": silence, "it has no members": nxdomain} {
			z.set("A shards.test.", wrong)
			z.set("AAAA shards.test.", answer{})
			m = w.after(time.Minute)
			require.ErrorContains(t, m.Err, want)
			require.Equal(t, "10.0.0.1:7070 10.0.0.2:7070", names(m), "the members are kept")
			require.Greater(t, time.Since(m.Heard), 40*time.Second)

			z.set("A shards.test.", a4("10.0.0.2", "10.0.0.1"))
			m = w.after(20 * time.Second)
			require.NoError(t, m.Err)
			require.Less(t, time.Since(m.Heard), 2*time.Second)
		}

		z.set("A shards.test.", silence)
		z.set("AAAA shards.test.", a6("fd00::1"))
		m = w.after(time.Minute)
		require.Equal(t, "10.0.0.1:7070 10.0.0.2:7070", names(m), "silence about a family is not its absence")
		z.set("A shards.test.", answer{})
		m = w.after(20 * time.Second)
		require.Equal(t, "[fd00::1]:7070", names(m))
	})
}

func TestDNSServices(t *testing.T) {
	srv := func(target string, port uint16) dnsmessage.ResourceBody {
		return &dnsmessage.SRVResource{Port: port, Target: dnsmessage.MustNewName(target)}
	}
	for text, question := range map[string]string{
		"dns+srv:///shards.test.":           "SRV _shard._tcp.shards.test.",
		"dns+srv:///_rpc._tcp.shards.test.": "SRV _rpc._tcp.shards.test.",
	} {
		inDNS(t, text, func(t *testing.T, z *zone, w *watcher) {
			z.set(question, answer{records: []dnsmessage.ResourceBody{srv("Node-1.test.", 7071), srv("node-0.test.", 7070), srv("node-0.test.", 7072), srv("node-1.test.", 7071)}})
			m := w.after(2 * time.Second)
			require.NoError(t, m.Err)
			require.Equal(t, "node-0.test:7070 node-0.test:7072 node-1.test:7071", names(m))
			require.Equal(t, "node-0.test:7070", m.List[0].Address)
			for want, wrong := range map[string]answer{
				"server misbehaving":             servfail,
				"i/o timeout":                    silence,
				"it has no members":              {records: []dnsmessage.ResourceBody{srv(".", 0)}},
				"the port is not":                {records: []dnsmessage.ResourceBody{srv("node-2.test.", 0)}},
				"DNS response contained records": {records: []dnsmessage.ResourceBody{srv("node-2.test.", 1), srv("no de.test.", 1)}},
			} {
				z.set(question, wrong)
				m = w.after(time.Minute)
				require.ErrorContains(t, m.Err, want)
				require.Equal(t, "node-0.test:7070 node-0.test:7072 node-1.test:7071", names(m))
			}
		})
	}
}

// odd is a resolver that gives what it has.
type odd struct {
	ips []netip.Addr
	err error
}

func (o *odd) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return o.ips, o.err }
func (o *odd) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	return "", nil, o.err
}

// stuck is a resolver that answers when it is told to give up.
type stuck struct{}

func (stuck) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (stuck) LookupSRV(ctx context.Context, _, _, _ string) (string, []*net.SRV, error) {
	<-ctx.Done()
	return "", nil, ctx.Err()
}

func TestDNSOddities(t *testing.T) {
	million := make([]netip.Addr, 1_000_000)
	for i := range million {
		million[i] = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	for want, r := range map[string]members.Resolver{
		"look up shards.test: there are 1000000 addresses, want up to 4096": &odd{ips: million},
		"the IP address is not that of one node":                            &odd{ips: []netip.Addr{netip.IPv4Unspecified()}},
		"look up shards.test: broken":                                       &odd{err: errors.New("broken")},
		fmt.Sprintf("look up shards.test: %v", context.DeadlineExceeded):    stuck{},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := parse(t, "dns:///shards.test:7070")
			members.SetResolver(s, r)
			w := watch(t, s)
			defer w.stop()
			m := w.after(20 * time.Second)
			require.ErrorContains(t, m.Err, want)
			require.Empty(t, m.List)
		})
	}
}
