package members_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/server/members"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ready is the condition of members of which nothing is known.
var ready = members.Condition{Ready: true, Serving: true}

// watcher is told of what a source hears.
type watcher struct {
	mu      sync.Mutex
	all     []members.Members
	end     context.CancelFunc
	running sync.WaitGroup
}

// watch watches a source, in a bubble, until the test ends it.
func watch(t *testing.T, s members.Source) *watcher {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{end: cancel}
	w.running.Go(func() {
		s.Watch(ctx, func(m members.Members) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.all = append(w.all, m)
		})
	})
	return w
}

// stop ends the watch and waits for that.
func (w *watcher) stop() {
	w.end()
	w.running.Wait()
}

// after lets a time pass, and returns what was told last.
func (w *watcher) after(d time.Duration) members.Members {
	time.Sleep(d)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) == 0 {
		return members.Members{}
	}
	return w.all[len(w.all)-1]
}

// told returns all that was told.
func (w *watcher) told() []members.Members {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}

// names are the names of members.
func names(m members.Members) string {
	var out []string
	for _, one := range m.List {
		out = append(out, one.Name)
	}
	return strings.Join(out, " ")
}

func parse(t *testing.T, text string) members.Source {
	s, err := members.Parse(text, members.Cluster{})
	require.NoError(t, err)
	require.Equal(t, text, s.String())
	return s
}

func TestParse(t *testing.T) {
	inside := members.Cluster{Host: "fd00::1", Port: "443"}
	for _, text := range []string{
		"file:members.yaml", "file:/etc/a b:c", "dns:///shards.ns.svc.cluster.local:7070", "dns:///shards.:7070", "dns:///localhost:1",
		"dns+srv:///shards.ns", "dns+srv:///_rpc._tcp.shards.ns.", "k8s:///ns/shards", "k8s:///ns/shards:rpc",
		"10.0.0.1:7070", "node-0:7070,[fd00::2]:7070,NODE-1.:65535",
	} {
		s, err := members.Parse(text, inside)
		require.NoError(t, err, text)
		require.Equal(t, text, s.String())
	}
	for text, want := range map[string]string{
		"":                              `address 1: it is "", want HOST:PORT`,
		"file:":                         "no path",
		"file:a\x00b":                   "no path",
		"dns:shards:7070":               `there is no /// behind "dns:"`,
		"dns://server/shards:7070":      `there is no /// behind "dns:"`,
		"dns:///shards":                 `the address: it is "shards", want HOST:PORT`,
		"dns:///shards:rpc":             "the port is not a number from 1 to 65535",
		"dns:///10.0.0.1:7070":          "the host is an IP address, which needs no DNS",
		"dns+srv:///":                   "the name: the host has 0 bytes, want 1 to 253",
		"dns+srv:///a b":                "the name: the host is neither",
		"k8s:///ns":                     "the service is not 1 to 63 lower-case letters",
		"k8s:///NS/shards":              "the namespace is not",
		"k8s:///ns/shards/x":            "the service is not",
		"k8s:///ns/../secrets":          "the service is not",
		"k8s:///ns/shards:":             "the name of the port is not",
		"consul:///shards":              `address 1: it is "consul:///shards": the port is not`,
		"a:1,,b:1":                      `address 2: it is "", want HOST:PORT`,
		"a:1,A.:1":                      `it has two members of the name "a:1"`,
		"a:1, b:1":                      `address 2: it is " b:1": the host is neither`,
		strings.Repeat("a:1,", 20_000):  "the text has 80000 bytes, want up to 65536",
		strings.Repeat("x", 1000) + ":": "the host has 1000 bytes",
	} {
		_, err := members.Parse(text, inside)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "; accepted: "+members.Forms)
		require.Less(t, len(err.Error()), 1000)
	}
	_, err := members.Parse("k8s:///ns/shards", members.Cluster{})
	require.ErrorContains(t, err, "KUBERNETES_SERVICE_HOST is not set")
	_, err = members.Parse("k8s:///ns/shards", members.Cluster{Host: "10.0.0.1", Port: "https"})
	require.ErrorContains(t, err, `KUBERNETES_SERVICE_HOST and _PORT: it is "10.0.0.1:https"`)
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1:7070":         "10.0.0.1:7070",
		"[::ffff:10.0.0.1]:70":  "10.0.0.1:70",
		"[FD00:0::1]:1":         "[fd00::1]:1",
		"Node-0.Example.COM.:1": "node-0.example.com:1",
		"a_b:65535":             "a_b:65535",
		"1a:1":                  "1a:1",
		strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ":1": strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ":1",
	} {
		got, err := members.CanonicalAddress(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{
		"", ":", ":1", "a", "a:", "a:0", "a:65536", "a:+1", "a:01", "a:1:1", "fd00::1:1", "[fd00::1]", "[fe80::1%eth0]:1",
		"0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1", "010.0.0.1:1", "10.0.0:1", "1:1", "a..b:1", ".:1", "-a:1", "a-:1",
		"ä:1", "a\x00:1", "a\n:1", "a/b:1", "user@a:1", strings.Repeat("a", 64) + ":1", strings.Repeat("a.", 127) + "a:1",
	} {
		got, err := members.CanonicalAddress(text)
		require.Error(t, err, "%q gave %q", text, got)
	}
}

func TestFixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t, parse(t, "node-1:7070,10.0.0.1:7070"))
		m := w.after(0)
		require.Equal(t, []members.Member{
			{Name: "10.0.0.1:7070", Address: "10.0.0.1:7070", Condition: ready},
			{Name: "node-1:7070", Address: "node-1:7070", Condition: ready},
		}, m.List)
		require.NoError(t, m.Err)
		m = w.after(time.Minute)
		require.Less(t, time.Since(m.Heard), 2*time.Second)
		w.stop()
	})
}

func TestParseFile(t *testing.T) {
	list, err := members.ParseFile([]byte(`
# the cluster
- {name: node-1, address: "10.0.0.2:7070", zone: b, weight: 64GiB}
- address: Node-0.example:7070
  weight: 1500
`))
	require.NoError(t, err)
	require.Equal(t, []members.Member{
		{Name: "node-0.example:7070", Address: "node-0.example:7070", Weight: 1500, Condition: ready},
		{Name: "node-1", Address: "10.0.0.2:7070", Zone: "b", Weight: 64 << 30, Condition: ready},
	}, list)

	for text, want := range map[string]string{
		"":                                       "it is empty, want a list of members",
		"# only this\n":                          "it is empty, want a list of members",
		"[]":                                     "it has no members; those that were known are kept",
		"~":                                      "line 1: it is no list of members",
		"address: a:1":                           "line 1: it is no list of members",
		"[{address: a:1}]\n---\n1":               "it has more than one document",
		"- {":                                    "it is no YAML: ",
		"- a:1":                                  "line 1: a member is not a mapping with some of the fields name, address, zone, weight",
		"- {}":                                   "line 1: address is missing",
		"- address: a:1\n- name: b\n  host: b:1": `line 2: field is "host", want one of name, address, zone, weight`,
		"- address: a:1\n- address: b":           `line 2: address: it is "b", want HOST:PORT`,
		"- address: a:1\n- address: b:0":         `line 2: address: it is "b:0": the port is not a number from 1 to 65535`,
		"- address: a:1\n\n- address: A:1":       `line 3: address is "a:1", as that of the member on line 1`,
		"- {name: x, address: a:1}\n- {name: y, address: a:1}":     `line 2: address is "a:1", as that of the member on line 1`,
		"- {name: x, address: a:1}\n- {name: x, address: b:1}":     `line 2: name is "x", as that of the member on line 1`,
		"- {address: a:1, address: b:1}":                           "line 1: address is there twice",
		"- {address: a:1, zone: }":                                 "line 1: zone is no text; leave it out if there is none",
		"- {address: a:1, zone: [b]}":                              "line 1: zone is no text",
		"- {address: a:1, zone: &x b}":                             "line 1: zone is no text",
		"- {address: a:1, zone: !!str b}":                          "line 1: zone is no text",
		"- {address: a:1, zone: a b}":                              `line 1: zone is "a b", want up to 259 visible characters`,
		`- {address: a:1, name: "a\u200bb"}`:                       "line 1: name is ",
		"- &x {address: a:1}\n- *x":                                "line 1: a member is not a mapping",
		"- {address: a:1, weight: 0}":                              `line 1: weight is "0", want bytes, from 1 to`,
		"- {address: a:1, weight: 1.5GiB}":                         `line 1: weight is "1.5GiB"`,
		"- {address: a:1, weight: -1}":                             `line 1: weight is "-1"`,
		"- {address: a:1, weight: 2000000TiB}":                     `line 1: weight is "2000000TiB"`,
		"- {address: a:1, name: " + strings.Repeat("x", 260) + "}": "line 1: name is ",
		strings.Repeat("- a\n", 5000):                              "it has 5000 members, want up to 4096",
		strings.Repeat("#", 1<<20+1):                               "it has 1048577 bytes, want up to 1048576",
	} {
		_, err := members.ParseFile([]byte(text))
		require.ErrorContains(t, err, want, "%.100s", text)
		require.Less(t, len(err.Error()), 500)
	}
}

// TestFile changes a file as one does, and as one should not.
func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "members.yaml")
		put := func(text string) {
			require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
			require.NoError(t, os.Rename(path+".new", path))
		}
		w := watch(t, parse(t, "file:"+path))
		defer w.stop()
		m := w.after(0)
		require.ErrorIs(t, m.Err, os.ErrNotExist)
		require.Empty(t, m.List)
		require.Zero(t, m.Heard)

		put("- address: a:1\n- address: b:1")
		m = w.after(2 * time.Second)
		require.NoError(t, m.Err)
		require.Equal(t, "a:1 b:1", names(m))
		m = w.after(time.Minute)
		require.Less(t, time.Since(m.Heard), 2*time.Second, "an unchanged file is heard")

		for _, bad := range []string{"", "[]", "- address: a", "- {"} {
			put(bad)
			m = w.after(time.Minute)
			require.ErrorContains(t, m.Err, "members: "+path+": ")
			require.Equal(t, "a:1 b:1", names(m), "the members are kept")
			require.Greater(t, time.Since(m.Heard), 50*time.Second)

			put("- address: a:1\n- address: b:1")
			m = w.after(2 * time.Second)
			require.NoError(t, m.Err, "what was there before counts again")
			require.Less(t, time.Since(m.Heard), 2*time.Second)
		}
		require.NoError(t, os.Remove(path))
		m = w.after(time.Minute)
		require.ErrorIs(t, m.Err, os.ErrNotExist)
		require.Equal(t, "a:1 b:1", names(m))
		put("- address: c:1")
		require.Equal(t, "c:1", names(w.after(2*time.Second)))
	})
}

// FuzzParse parses texts, of which none may cost much, and which say what they were.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"file:x", "dns:///a:1", "dns+srv:///a", "k8s:///a/b:c", "a:1,b:2", "[::1]:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := members.Parse(text, members.Cluster{Host: "::1", Port: "1"})
		if err != nil {
			require.Less(t, len(err.Error()), 3000)
			return
		}
		require.Equal(t, text, s.String())
	})
}

// FuzzParseFile checks that what a file gives may be members, and survives being written.
func FuzzParseFile(f *testing.F) {
	for _, text := range []string{"", "[]", "- address: a:1", "- {name: x, address: '[::1]:1', zone: z, weight: 1TiB}", "- &a {address: a:1}\n- *a"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := members.ParseFile(data)
		if err != nil {
			require.Less(t, len(err.Error()), 3000)
			return
		}
		var again strings.Builder
		for i, m := range list {
			require.True(t, i == 0 || list[i-1].Name < m.Name)
			address, err := members.CanonicalAddress(m.Address)
			require.NoError(t, err)
			require.Equal(t, m.Address, address)
			fmt.Fprintf(&again, "- name: '%s'\n  address: '%s'\n", strings.ReplaceAll(m.Name, "'", "''"), m.Address)
			if m.Zone != "" {
				fmt.Fprintf(&again, "  zone: '%s'\n", strings.ReplaceAll(m.Zone, "'", "''"))
			}
			if m.Weight != 0 {
				fmt.Fprintf(&again, "  weight: %d\n", m.Weight)
			}
		}
		if again.Len() > members.MaxFileBytes {
			return
		}
		other, err := members.ParseFile([]byte(again.String()))
		require.NoError(t, err)
		require.Equal(t, list, other)
	})
}
