package members_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/server/members"
	"github.com/tandem-ann/tandem/server/secure/certtest"
)

// TestKube follows a service through what happens to one.
func TestKube(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		t.Run(fmt.Sprint("HTTP/2 ", http2), func(t *testing.T) { testKube(t, http2) })
	}
}

func testKube(t *testing.T, http2 bool) {
	inKubeBy(t, http2, func(t *testing.T, api *endpoints, w *watcher) {
		m := w.after(time.Second)
		require.ErrorContains(t, m.Err, "it has no members")

		api.put("a", sliceOf(pod("shard-0", "10.0.0.1"), pod("shard-1", "10.0.0.2", with("zone", nil))))
		m = w.after(time.Second)
		require.NoError(t, m.Err)
		require.Equal(t, []members.Member{
			{Name: "shard-0", Address: "10.0.0.1:7070", Zone: "eu-1a", Condition: ready},
			{Name: "shard-1", Address: "10.0.0.2:7070", Condition: ready},
		}, m.List)

		api.put("b", sliceOf(pod("shard-2", "10.0.0.3")))
		require.Equal(t, "shard-0 shard-1 shard-2", names(w.after(time.Second)))

		ending := with("conditions", map[string]any{"ready": false, "serving": true, "terminating": true})
		api.put("a", sliceOf(pod("shard-0", "10.0.0.1", ending), pod("shard-1", "10.0.0.2")))
		m = w.after(time.Second)
		require.Equal(t, members.Condition{Serving: true, Terminating: true}, m.List[0].Condition)

		api.put("a", sliceOf(pod("shard-1", "10.0.0.2")))
		require.Equal(t, "shard-1 shard-2", names(w.after(time.Second)))
		api.put("b", nil)
		require.Equal(t, "shard-1", names(w.after(time.Second)))
		before := m.Heard
		api.put("a", nil)
		m = w.after(time.Second)
		require.ErrorContains(t, m.Err, "it has no members")
		require.Equal(t, "shard-1", names(m))
		require.Greater(t, m.Heard, before)

		api.put("a", sliceOf(pod("shard-1", "10.0.0.9")))
		m = w.after(time.Second)
		require.NoError(t, m.Err)
		require.Equal(t, "10.0.0.9:7070", m.List[0].Address)

		m = w.after(time.Hour)
		require.NoError(t, m.Err)
		require.Less(t, time.Since(m.Heard), 2*time.Minute, "it is heard while nothing happens")
		lists, watches := api.counts()
		require.Equal(t, 1, lists, "watches follow one another")
		require.Less(t, watches, 100)
	})
}

// TestKubeMove moves an endpoint between slices: nobody is told that it is nowhere.
func TestKubeMove(t *testing.T) {
	inKube(t, func(t *testing.T, api *endpoints, w *watcher) {
		api.put("a", sliceOf(pod("shard-0", "10.0.0.1"), pod("shard-1", "10.0.0.2")))
		w.after(time.Second)
		before := len(w.told())
		for range 10 {
			api.put("a", sliceOf(pod("shard-0", "10.0.0.1")))
			w.after(20 * time.Millisecond)
			api.put("b", sliceOf(pod("shard-1", "10.0.0.2")))
			w.after(time.Second)
			api.put("a", sliceOf(pod("shard-0", "10.0.0.1"), pod("shard-1", "10.0.0.2")))
			w.after(time.Second)
			api.put("b", nil)
			w.after(time.Second)
		}
		for _, m := range w.told()[before:] {
			require.Equal(t, "shard-0 shard-1", names(m))
			require.NoError(t, m.Err)
		}
	})
}

// TestKubeMerge has what slices may have: nothing, twice the same, and what is no member.
func TestKubeMerge(t *testing.T) {
	conditions := func(c map[string]any) func(map[string]any) { return with("conditions", c) }
	for _, c := range []struct {
		name   string
		slices map[string]map[string]any
		want   []members.Member
		err    string
	}{
		{"conditions that are left out", map[string]map[string]any{"a": sliceOf(
			pod("p0", "10.0.0.1", conditions(nil)), pod("p1", "10.0.0.2", conditions(map[string]any{"ready": false})),
			pod("p2", "10.0.0.3", conditions(map[string]any{"ready": nil, "serving": false, "terminating": nil})),
		)}, []members.Member{
			{Name: "p0", Address: "10.0.0.1:7070", Zone: "eu-1a", Condition: ready},
			{Name: "p1", Address: "10.0.0.2:7070", Zone: "eu-1a", Condition: members.Condition{Serving: true}},
			{Name: "p2", Address: "10.0.0.3:7070", Zone: "eu-1a", Condition: members.Condition{Ready: true}},
		}, ""},
		{"names without pods", map[string]map[string]any{"a": sliceOf(
			pod("p0", "10.0.0.1", with("targetRef", nil)), pod("p1", "10.0.0.2", with("targetRef", map[string]any{"kind": "VM", "name": "x"}), with("hostname", nil)),
		)}, []members.Member{
			{Name: "10.0.0.2:7070", Address: "10.0.0.2:7070", Zone: "eu-1a", Condition: ready},
			{Name: "p0", Address: "10.0.0.1:7070", Zone: "eu-1a", Condition: ready},
		}, ""},
		{"both families, and twice in one", map[string]map[string]any{
			"a": {"addressType": "IPv6", "endpoints": []any{pod("p0", "FD00::1")}, "ports": sliceOf()["ports"]},
			"b": sliceOf(pod("p0", "10.0.0.1", conditions(map[string]any{"ready": false, "serving": false}))),
			"c": sliceOf(pod("p0", "10.0.0.2")),
			"d": sliceOf(pod("p0", "10.0.0.3")),
		}, []members.Member{{Name: "p0", Address: "10.0.0.2:7070", Zone: "eu-1a", Condition: ready}}, ""},
		{"IPv6 alone", map[string]map[string]any{
			"a": {"addressType": "IPv6", "endpoints": []any{pod("p0", "FD00::1")}, "ports": sliceOf()["ports"]},
		}, []members.Member{{Name: "p0", Address: "[fd00::1]:7070", Zone: "eu-1a", Condition: ready}}, ""},
		{"slices without endpoints", map[string]map[string]any{
			"a": {"addressType": "IPv4", "endpoints": nil, "ports": nil}, "b": {"addressType": "IPv4"}, "c": sliceOf(pod("p0", "10.0.0.1")),
		}, []members.Member{{Name: "p0", Address: "10.0.0.1:7070", Zone: "eu-1a", Condition: ready}}, ""},
		{"other ports", map[string]map[string]any{
			"a": sliceOf(pod("p0", "10.0.0.1")),
			"b": {"addressType": "IPv4", "endpoints": []any{pod("p1", "10.0.0.2"), pod("p2", "10.0.0.3")}, "ports": []any{map[string]any{"name": "rpc", "port": 1}}},
			"c": {"addressType": "IPv4", "endpoints": []any{pod("p3", "10.0.0.4")}, "ports": []any{map[string]any{"name": "shard", "port": 1, "protocol": "UDP"}, map[string]any{"name": "shard"}}},
		}, []members.Member{{Name: "p0", Address: "10.0.0.1:7070", Zone: "eu-1a", Condition: ready}},
			`endpoints that cannot be used: 3, the first: slice "b": endpoint 0: there is no number of a TCP port named shard; the ports of the slice are "[rpc]"`},
		{"odd endpoints", map[string]map[string]any{"a": sliceOf(
			pod("p0", "10.0.0.1"), pod("p1", "0.0.0.0"), pod("p2", "x y"), pod("p3", "10.0.0.4", with("addresses", nil)),
			pod("p4", "10.0.0.5", with("zone", "a\nb")), pod(strings.Repeat("x", 300), "10.0.0.6"),
		)}, []members.Member{{Name: "p0", Address: "10.0.0.1:7070", Zone: "eu-1a", Condition: ready}},
			`endpoints that cannot be used: 5, the first: slice "a": endpoint 1: it is "0.0.0.0:7070": the IP address is not`},
	} {
		t.Run(c.name, func(t *testing.T) {
			inKube(t, func(t *testing.T, api *endpoints, w *watcher) {
				for name, fields := range c.slices {
					api.put(name, fields)
				}
				m := w.after(time.Second)
				require.Equal(t, c.want, m.List)
				if c.err == "" {
					require.NoError(t, m.Err)
				} else {
					require.ErrorContains(t, m.Err, c.err)
				}
				require.NotZero(t, m.Heard)
			})
		})
	}
}

// faults are what an API, and what is before it, may do instead of answering, with what is
// told then.
var faults = map[string]struct {
	answer func(w http.ResponseWriter, r *http.Request) bool
	want   string
}{
	"an error": {func(w http.ResponseWriter, _ *http.Request) bool {
		status(w, http.StatusInternalServerError, "etcd is away")
		return true
	}, `list: the API says 500: "etcd is away"`},
	"a page of a proxy": {func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "<html>"+strings.Repeat("x", 1000), http.StatusBadGateway)
		return true
	}, `list: the API says 502: "<html>xxx`},
	"a page that says OK": {func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte("<html>"))
		return true
	}, "list: read: invalid character"},
	"no rights": {func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		status(w, http.StatusForbidden, "cannot watch")
		return true
	}, `watch: the API says 403: "cannot watch"`},
	"a redirect": {func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "https://example.com", http.StatusFound)
		return true
	}, "list: the API says 302"},
	"silence": {func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}, "list: "},
	"a watch that ends at once": {func(_ http.ResponseWriter, r *http.Request) bool {
		return r.URL.Query().Get("watch") != ""
	}, "watch: it ended at once"},
	"a list without a version": {func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte(`{"items":[]}`))
		return true
	}, "list: it has no version, or is not all"},
	"a page of a list": {func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte(`{"metadata":{"resourceVersion":"1","continue":"x"}}`))
		return true
	}, "list: it has no version, or is not all"},
	"another list": {func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte(`{"metadata":{"resourceVersion":"1"},"items":{"a":1}}`))
		return true
	}, "list: read: there is no list where one should be"},
	"two slices of one name": {func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte(`{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"a"}}]}`))
		return true
	}, `list: the name "a" is that of no slice, or of two`},
	"a million endpoints": {func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte(`{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a"},"endpoints":[{}` + strings.Repeat(",{}", 1_000_000) + `]}]}`))
		return true
	}, "list: read: a list has more than 1000 elements"},
	"a list that is too long": {func(w http.ResponseWriter, _ *http.Request) bool {
		for _, err := w.Write([]byte(`{"a":"`)); err == nil; {
			_, err = w.Write([]byte(strings.Repeat("x", 1<<20)))
		}
		return true
	}, "list: read: it is too long"},
	"an event that is too long": watched(`{"type":"ADDED","object":{"metadata":{"name":"`+strings.Repeat("x", 5<<20)+`"}}}`, "watch: it is too long"),
	"an event again and again": {func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			return false
		}
		_, _ = w.Write([]byte(`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"101"}}}`))
		return true
	}, "watch: it ended at once"},
	"half an event":           watched(`{"type":"ADDED","obj`, "watch: unexpected EOF"),
	"an unknown event":        watched(`{"type":"MOVED","object":{"metadata":{"name":"a","resourceVersion":"1"}}}`, `watch: an event is of type "MOVED", want ADDED`),
	"an event of no version":  watched(`{"type":"ADDED","object":{"metadata":{"name":"a"}}}`, `watch: an event of type "ADDED" has no version`),
	"an event of nothing":     watched(`{"type":"ADDED"}`, "watch: an event of type"),
	"an event that is a list": watched(`{"type":"ADDED","object":[]}`, "watch: an event of type"),
	"an error in a watch":     watched(`{"type":"ERROR","object":{"kind":"Status","code":500,"message":"broken"}}`, `watch: the API says 500: "broken"`),
	"a watch of nonsense":     watched("\x00\x00\x00\x05hello", "watch: invalid character"),
}

// watched is a fault of watches, which send a text and then nothing, or end after half an event.
func watched(text, want string) struct {
	answer func(w http.ResponseWriter, r *http.Request) bool
	want   string
} {
	return struct {
		answer func(w http.ResponseWriter, r *http.Request) bool
		want   string
	}{func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") != "" {
			_, _ = w.Write([]byte(text))
			_ = http.NewResponseController(w).Flush()
			if strings.Contains(want, "EOF") {
				return true
			}
			<-r.Context().Done()
			return true
		}
		return false
	}, want}
}

// TestKubeFaults has the API do what it should not for a while: the members stay, it is told
// what is wrong, the API is not asked too often, and once it is well its members count soon.
func TestKubeFaults(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			inKube(t, func(t *testing.T, api *endpoints, w *watcher) {
				api.put("a", sliceOf(pod("shard-0", "10.0.0.1")))
				w.after(time.Second)
				before := len(w.told())
				lists, watches := api.counts()
				api.breakBy(fault.answer)
				if strings.Contains(name, "long") || strings.Contains(name, "million") {
					w.after(5 * time.Second) // they are long to make, too
				} else {
					w.after(10 * time.Minute)
				}
				seen := false
				for _, m := range w.told()[before:] {
					require.Equal(t, "shard-0", names(m))
					seen = seen || m.Err != nil && strings.Contains(m.Err.Error(), "EndpointSlices of ns/shards: "+fault.want)
					if m.Err != nil {
						require.Less(t, len(m.Err.Error()), 1000)
					}
				}
				require.True(t, seen, "%v", w.after(0).Err)
				after, afterwards := api.counts()
				require.Less(t, after-lists+afterwards-watches, 260, "requests in 10 minutes")

				api.put("a", sliceOf(pod("shard-1", "10.0.0.2")))
				api.breakBy(nil)
				m := w.after(15 * time.Second)
				require.NoError(t, m.Err)
				require.Equal(t, "shard-1", names(m))
			})
		})
	}
}

// TestKubeOverloaded does as the API asks when it has too much to do.
func TestKubeOverloaded(t *testing.T) {
	inKube(t, func(t *testing.T, api *endpoints, w *watcher) {
		api.put("a", sliceOf(pod("shard-0", "10.0.0.1")))
		w.after(time.Second)
		before, _ := api.counts()
		api.breakBy(func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "30")
			status(w, http.StatusTooManyRequests, "later")
			return true
		})
		m := w.after(10 * time.Minute)
		require.ErrorContains(t, m.Err, `the API says 429: "later"`)
		after, _ := api.counts()
		require.InDelta(t, 20, after-before, 2)
	})
}

// TestKubeGone has the API forget what happened while a watch was away.
func TestKubeGone(t *testing.T) {
	for name, code := range map[string]int{"in the stream": 0, "as the status": http.StatusGone} {
		t.Run(name, func(t *testing.T) {
			inKube(t, func(t *testing.T, api *endpoints, w *watcher) {
				api.put("a", sliceOf(pod("shard-0", "10.0.0.1")))
				api.put("b", sliceOf(pod("shard-1", "10.0.0.2")))
				w.after(time.Second)
				for range 3 {
					lists, _ := api.counts()
					api.put("b", nil)
					api.put("c", sliceOf(pod("shard-2", "10.0.0.3")))
					api.compact()
					once := code != 0
					api.mu.Lock()
					api.fault = func(w http.ResponseWriter, r *http.Request) bool {
						api.mu.Lock()
						gone := once && r.URL.Query().Get("watch") != ""
						once = once && !gone
						api.mu.Unlock()
						if gone {
							status(w, code, "too old resource version")
						}
						return gone
					}
					api.mu.Unlock()
					m := w.after(3 * time.Minute)
					require.NoError(t, m.Err)
					require.Equal(t, "shard-0 shard-2", names(m))
					now, _ := api.counts()
					require.LessOrEqual(t, now-lists, 2)
					api.put("c", nil)
					api.put("b", sliceOf(pod("shard-1", "10.0.0.2")))
					require.Equal(t, "shard-0 shard-1", names(w.after(time.Second)))
				}
			})
		})
	}
}

// TestKubeIsAway has no API for a minute, and watches that do not end.
func TestKubeIsAway(t *testing.T) {
	inKube(t, func(t *testing.T, api *endpoints, w *watcher) {
		api.put("a", sliceOf(pod("shard-0", "10.0.0.1")))
		w.after(time.Second)
		for range 5 {
			api.breakBy(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
			m := w.after(time.Minute)
			require.Error(t, m.Err)
			require.Equal(t, "shard-0", names(m))
			api.breakBy(nil)
			m = w.after(12 * time.Second)
			require.NoError(t, m.Err)
			require.Equal(t, "shard-0", names(m))
		}
		// A watch that is taken, brings nothing, and does not end.
		api.breakBy(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("watch") == "" {
				return false
			}
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return true
		})
		w.after(time.Second)
		api.put("a", sliceOf(pod("shard-1", "10.0.0.2")))
		m := w.after(2 * time.Minute)
		require.Equal(t, "shard-1", names(m))
		seen := false
		for _, m := range w.told() {
			seen = seen || m.Err != nil && strings.Contains(m.Err.Error(), "the connection may be dead")
		}
		require.True(t, seen)
	})
}

// TestKubeIsDeaf has connections on which nothing comes any more, as when a machine is gone:
// pings find that, and without HTTP/2 the end of the watch that is overdue.
func TestKubeIsDeaf(t *testing.T) {
	for http2, within := range map[bool]time.Duration{true: 30 * time.Second, false: 2 * time.Minute} {
		t.Run(fmt.Sprint("HTTP/2 ", http2), func(t *testing.T) {
			inKubeBy(t, http2, func(t *testing.T, api *endpoints, w *watcher) {
				api.put("a", sliceOf(pod("shard-0", "10.0.0.1")))
				w.after(time.Second)
				for i := range 3 {
					api.pipes.deafen()
					name := fmt.Sprint("shard-", i+1)
					api.put("a", sliceOf(pod(name, "10.0.0.1")))
					m := w.after(within)
					require.Equal(t, name, names(m))
					require.NoError(t, m.Err)
				}
			})
		})
	}
}

// TestKubeCredentials rotates the token and the authority, and has them wrong in between.
func TestKubeCredentials(t *testing.T) {
	inKube(t, func(t *testing.T, api *endpoints, w *watcher) {
		api.put("a", sliceOf(pod("shard-0", "10.0.0.1")))
		require.NoError(t, w.after(time.Second).Err)
		rotate := func(token string) {
			api.mu.Lock()
			api.token = token
			api.mu.Unlock()
		}
		rotate("second")
		api.cut()
		m := w.after(time.Minute)
		require.ErrorContains(t, m.Err, `the API says 401: "Unauthorized"`)
		require.NotContains(t, m.Err.Error(), "second")
		api.account("second", nil)
		require.NoError(t, w.after(15*time.Second).Err)

		rotate("third")
		api.account("third", nil) // while a watch goes on with the second
		m = w.after(5 * time.Minute)
		require.NoError(t, m.Err)
		require.Less(t, time.Since(m.Heard), 2*time.Minute)

		for want, files := range map[string]struct{ token, ca string }{
			"it is no token":        {"a\nb", ""},
			"has no certificate":    {"third", "nonsense"},
			"x509: certificate":     {"third", string(certtest.New(t, "other").PEM())},
			"has more than 1048576": {strings.Repeat("x", 2<<20), ""},
		} {
			if files.ca == "" {
				api.account(files.token, nil)
			} else {
				api.account(files.token, []byte(files.ca))
			}
			api.put("a", sliceOf(pod("shard-0", "10.0.0.1")))
			api.cut()
			if want != "x509: certificate" { // what was read before stays in use, and tells when that fails
				rotate("fourth")
				api.cut()
			}
			m = w.after(time.Minute)
			require.ErrorContains(t, m.Err, want)
			require.Equal(t, "shard-0", names(m))
			require.NotContains(t, m.Err.Error(), "third")
			rotate("third")
			api.account("third", nil)
			require.NoError(t, w.after(15*time.Second).Err)
		}
	})
}

// TestKubeSettles makes random changes, with faults between, and looks whether the members are
// those of the slices in the end.
func TestKubeSettles(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type step struct{ what, slice, pods int }
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.IntRange(0, 9).Draw(rt, "what"), rapid.IntRange(0, 3).Draw(rt, "slice"), rapid.IntRange(0, 31).Draw(rt, "pods")}
		}), 1, 30).Draw(rt, "steps")
		pauses := rapid.SliceOfN(rapid.IntRange(0, 3), len(steps), len(steps)).Draw(rt, "pauses")
		wrong := ""
		inKube(t, func(t *testing.T, api *endpoints, w *watcher) {
			state := map[int]int{}
			for i, s := range steps {
				switch s.what {
				case 0:
					api.compact()
				case 1:
					api.cut()
				case 2:
					api.breakBy(func(w http.ResponseWriter, _ *http.Request) bool {
						status(w, http.StatusServiceUnavailable, "later")
						return true
					})
				case 3:
					api.breakBy(nil)
				case 4:
					api.put(fmt.Sprint("s", s.slice), nil)
					delete(state, s.slice)
				default:
					var pods []map[string]any
					for p := range 5 {
						if s.pods&(1<<p) != 0 {
							pods = append(pods, pod(fmt.Sprint("p", p), fmt.Sprint("10.0.0.", p+1)))
						}
					}
					api.put(fmt.Sprint("s", s.slice), sliceOf(pods...))
					state[s.slice] = s.pods
				}
				w.after([]time.Duration{0, 20 * time.Millisecond, time.Second, 2 * time.Minute}[pauses[i]])
			}
			api.breakBy(nil)
			m := w.after(15 * time.Second)
			all := 0
			for _, pods := range state {
				all |= pods
			}
			var want []string
			for p := range 5 {
				if all&(1<<p) != 0 {
					want = append(want, fmt.Sprint("p", p))
				}
			}
			switch got := names(m); {
			case len(want) == 0 && m.Err == nil:
				wrong = "no error where no members are"
			case len(want) > 0 && (got != strings.Join(want, " ") || m.Err != nil):
				wrong = fmt.Sprintf("members are %q, error %v, want %q", got, m.Err, want)
			}
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// FuzzSlices merges what the API may send.
func FuzzSlices(f *testing.F) {
	for _, text := range []string{
		`{"items":[{"metadata":{"name":"a"},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":null}}],"ports":[{"name":"shard","port":1}]}]}`,
		`{"items":null}`, `{"items":[{"endpoints":[{"addresses":[""]}],"ports":[{"name":"shard","port":-1}]}]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := members.MergeJSON(data, "shard")
		if err != nil {
			require.Less(t, len(err.Error()), 3000)
		}
		seen := map[string]bool{}
		for _, m := range list {
			require.False(t, seen[m.Name])
			seen[m.Name] = true
			address, err := members.CanonicalAddress(m.Address)
			require.NoError(t, err)
			require.Equal(t, m.Address, address)
		}
	})
}
