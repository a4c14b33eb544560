package members_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/tandem-ann/tandem/server/members"
)

// realKube is the folder that .ci/kube describes.
var realKube = flag.String("kube", "", "folder of a real API of Kubernetes, as .ci/kube has it; none leaves TestRealKube out")

// realPatience is how long a change may take to be seen, on a busy machine and through controllers.
const realPatience = 2 * time.Minute

// object is one of the API.
type object = map[string]any

// realAPI is the API as somebody who may do everything, or as the holder of another token.
type realAPI struct {
	t      *testing.T
	client *http.Client
	url    string
	token  string
}

func openRealKube(t *testing.T) *realAPI {
	if *realKube == "" {
		t.Skip("without -kube: .ci/run kube has an API server")
	}
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(realFile(t, "ca.crt"))))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	return &realAPI{t: t, client: &http.Client{Transport: transport, Timeout: time.Minute}, url: realFile(t, "url"), token: realFile(t, "token")}
}

func realFile(t *testing.T, name string) string {
	data, err := os.ReadFile(filepath.Join(*realKube, name))
	require.NoError(t, err)
	return string(data)
}

// try asks for something, and returns the status.
func (a *realAPI) try(method, path string, body any) (int, object) {
	data, err := json.Marshal(body)
	require.NoError(a.t, err)
	r, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, bytes.NewReader(data))
	require.NoError(a.t, err)
	r.Header.Set("Authorization", "Bearer "+a.token)
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	answer, err := a.client.Do(r)
	require.NoError(a.t, err)
	defer func() { _ = answer.Body.Close() }()
	var out object
	text, err := io.ReadAll(answer.Body)
	require.NoError(a.t, err)
	_ = json.Unmarshal(text, &out) // what is none is shown as it is
	if out == nil {
		out = object{"text": string(text)}
	}
	return answer.StatusCode, out
}

// do asks for something that is to be done.
func (a *realAPI) do(method, path string, body any) object {
	code, out := a.try(method, path, body)
	require.Less(a.t, code, 300, "%s %s: %v", method, path, out)
	return out
}

// control kills the API server, or starts it.
func (a *realAPI) control(what string) {
	r, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, realFile(a.t, "control")+what, nil)
	require.NoError(a.t, err)
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	require.NoError(a.t, err)
	text, err := io.ReadAll(answer.Body)
	require.NoError(a.t, errors.Join(err, answer.Body.Close()))
	require.Equal(a.t, http.StatusOK, answer.StatusCode, string(text))
}

// manifests are the documents of a file of deploy/kubernetes/base of some kinds.
func manifests(t *testing.T, file string, kinds ...string) (list []object) {
	data, err := os.ReadFile("../../deploy/kubernetes/base/" + file)
	require.NoError(t, err)
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return list
		} else {
			require.NoError(t, err)
		}
		for _, kind := range kinds {
			if o["kind"] == kind {
				list = append(list, o)
			}
		}
	}
}

// grant gives the accounts of a namespace the rights of the manifests.
func (a *realAPI) grant(namespace string) {
	path := "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace
	for _, o := range manifests(a.t, "rights.yaml", "Role") {
		a.do(http.MethodPost, path+"/roles", o)
	}
	for _, o := range manifests(a.t, "rights.yaml", "RoleBinding") {
		for _, s := range o["subjects"].([]any) { // as an overlay does, which has a namespace
			s.(object)["namespace"] = namespace
		}
		a.do(http.MethodPost, path+"/rolebindings", o)
	}
}

// account is a service account, with the files that a pod has of one.
type account struct {
	api             *realAPI
	namespace, name string
	folder          string
}

// rotate has the files be of a new token, which counts for as long as a secret of that name is there.
func (c *account) rotate(secret string) string {
	path := "/api/v1/namespaces/" + c.namespace
	uid := c.api.do(http.MethodPost, path+"/secrets", object{"metadata": object{"name": secret}})["metadata"].(object)["uid"]
	granted := c.api.do(http.MethodPost, path+"/serviceaccounts/"+c.name+"/token", object{"spec": object{
		"boundObjectRef": object{"kind": "Secret", "apiVersion": "v1", "name": secret, "uid": uid},
	}})
	token := granted["status"].(object)["token"].(string)
	for name, text := range map[string]string{"token": token, "ca.crt": realFile(c.api.t, "ca.crt")} {
		next := filepath.Join(c.folder, name+".new")
		require.NoError(c.api.t, os.WriteFile(next, []byte(text), 0o600))
		require.NoError(c.api.t, os.Rename(next, filepath.Join(c.folder, name)))
	}
	return token
}

// until waits until what was told last is as it should be, and returns it.
func (w *watcher) until(t *testing.T, what string, is func(m members.Members) bool) members.Members {
	t.Helper()
	var last members.Members
	require.Eventually(t, func() bool {
		if all := w.told(); len(all) > 0 {
			last = all[len(all)-1]
			return is(last)
		}
		return false
	}, realPatience, 20*time.Millisecond, "%s", &lazily{what, &last})
	return last
}

// lazily is what was waited for, and what there is instead, as it is when it is printed.
type lazily struct {
	what string
	last *members.Members
}

// String implements [fmt.Stringer].
func (l *lazily) String() string { return fmt.Sprintf("%s: %+v, %v", l.what, l.last.List, l.last.Err) }

// are waits until these are the members and nothing is wrong.
func (w *watcher) are(t *testing.T, want string) members.Members {
	t.Helper()
	return w.until(t, want, func(m members.Members) bool { return m.Err == nil && names(m) == want })
}

// failing waits until this is wrong.
func (w *watcher) failing(t *testing.T, want string) members.Members {
	t.Helper()
	return w.until(t, want, func(m members.Members) bool { return m.Err != nil && strings.Contains(m.Err.Error(), want) })
}

// realSlice is a slice of the service tandem-shards.
func realSlice(name string, fields object) object {
	out := object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata": object{"name": name, "labels": object{"kubernetes.io/service-name": "tandem-shards"}},
	}
	for k, v := range fields {
		out[k] = v
	}
	return out
}

// realPod is an endpoint, with an IP address that the API takes: it refuses those of loopback.
func realPod(i int, changes ...func(map[string]any)) map[string]any {
	return pod(fmt.Sprintf("p%d", i), fmt.Sprintf("10.1.%d.%d", i/200, i%200+1), changes...)
}

// TestRealKube follows a service of a real API of Kubernetes, with the rights of the manifests.
func TestRealKube(t *testing.T) {
	admin := openRealKube(t)
	namespace := fmt.Sprintf("members-%d", time.Now().UnixNano())
	admin.do(http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": namespace}})
	in := "/apis/discovery.k8s.io/v1/namespaces/" + namespace + "/endpointslices"
	for _, a := range manifests(t, "routers.yaml", "ServiceAccount") {
		admin.do(http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts", a)
	}
	router := &account{api: admin, namespace: namespace, name: "tandem-router", folder: t.TempDir()}
	token := router.rotate("first")
	at, err := url.Parse(admin.url)
	require.NoError(t, err)
	source, err := members.Parse("k8s:///"+namespace+"/tandem-shards:shard", members.Cluster{Host: at.Hostname(), Port: at.Port(), Folder: router.folder})
	require.NoError(t, err)
	w := watch(t, source)
	defer w.stop()

	// Rights: those of the manifests, and no more.
	w.failing(t, "list: the API says 403")
	admin.grant(namespace)
	w.failing(t, "it has no members")
	own := *admin
	own.token = token
	for path, want := range map[string]int{
		in: http.StatusOK, in + "?watch=true&timeoutSeconds=1": http.StatusOK,
		strings.ReplaceAll(in, namespace, "default"): http.StatusForbidden,
		in + "/a": http.StatusForbidden,
		"/api/v1/namespaces/" + namespace + "/pods":      http.StatusForbidden,
		"/api/v1/namespaces/" + namespace + "/secrets":   http.StatusForbidden,
		"/api/v1/namespaces/" + namespace + "/endpoints": http.StatusForbidden,
	} {
		code, out := own.try(http.MethodGet, path, nil)
		require.Equal(t, want, code, "%s: %v", path, out)
	}

	// Endpoints come, are not ready, terminate and go; by several slices.
	put := func(name string, fields object) {
		t.Helper()
		if code, _ := admin.try(http.MethodGet, in+"/"+name, nil); code == http.StatusNotFound {
			admin.do(http.MethodPost, in, realSlice(name, fields))
		} else {
			admin.do(http.MethodPut, in+"/"+name, realSlice(name, fields))
		}
	}
	put("a", sliceOf(realPod(0), realPod(1, with("zone", nil))))
	m := w.are(t, "p0 p1")
	require.Equal(t, members.Member{Name: "p0", Address: "10.1.0.1:7070", Zone: "eu-1a", Condition: ready}, m.List[0])
	require.Equal(t, members.Member{Name: "p1", Address: "10.1.0.2:7070", Condition: ready}, m.List[1])
	conditions := func(isReady, serving, terminating bool) func(map[string]any) {
		return with("conditions", object{"ready": isReady, "serving": serving, "terminating": terminating})
	}
	put("a", sliceOf(realPod(0, conditions(false, false, false)), realPod(1, conditions(false, true, true))))
	m = w.until(t, "conditions", func(m members.Members) bool { return len(m.List) == 2 && !m.List[0].Ready })
	require.Equal(t, []members.Condition{{}, {Serving: true, Terminating: true}}, []members.Condition{m.List[0].Condition, m.List[1].Condition})
	put("a", sliceOf(realPod(0, with("conditions", nil)), realPod(1)))
	m = w.until(t, "conditions that are left out", func(m members.Members) bool { return m.List[0].Ready })
	require.Equal(t, ready, m.List[0].Condition)
	put("b", sliceOf(realPod(2)))
	w.are(t, "p0 p1 p2")
	put("b", sliceOf(realPod(1), realPod(2))) // on its way, it is in both
	put("a", sliceOf(realPod(0)))
	w.are(t, "p0 p1 p2")
	admin.do(http.MethodDelete, in+"/a", nil)
	w.are(t, "p1 p2")

	// Slices of others do not count.
	other := realSlice("other", sliceOf(realPod(7)))
	other["metadata"].(object)["labels"] = object{"kubernetes.io/service-name": "tandem"}
	admin.do(http.MethodPost, in, other)
	put("a", sliceOf(realPod(0)))
	w.are(t, "p0 p1 p2")

	// Both families, and duplicates: one member each, by its address of IPv4.
	put("six", object{"addressType": "IPv6", "endpoints": []any{pod("p0", "fd00::1"), pod("p3", "fd00::3")}, "ports": sliceOf()["ports"]})
	put("twice", sliceOf(realPod(0)))
	m = w.are(t, "p0 p1 p2 p3")
	require.Equal(t, "10.1.0.1:7070", m.List[0].Address)
	require.Equal(t, "[fd00::3]:7070", m.List[3].Address)
	admin.do(http.MethodDelete, in+"/six", nil)
	admin.do(http.MethodDelete, in+"/twice", nil)
	w.are(t, "p0 p1 p2")

	// As many endpoints as a slice may have, and what the API does not take.
	var many []map[string]any
	for i := range 1001 {
		many = append(many, realPod(1000+i))
	}
	put("many", sliceOf(many[:1000]...))
	m = w.until(t, "1,003 members", func(m members.Members) bool { return len(m.List) == 1003 })
	require.NoError(t, m.Err)
	code, _ := admin.try(http.MethodPut, in+"/many", realSlice("many", sliceOf(many...)))
	require.Equal(t, http.StatusUnprocessableEntity, code, "1,001 endpoints")
	code, _ = admin.try(http.MethodPost, in, realSlice("loopback", sliceOf(pod("p9", "127.0.0.1"))))
	require.Equal(t, http.StatusUnprocessableEntity, code, "a loopback address")
	admin.do(http.MethodDelete, in+"/many", nil)
	w.are(t, "p0 p1 p2")

	// A slice whose ports are others is told of, and the rest counts.
	put("odd", object{"addressType": "IPv4", "endpoints": []any{realPod(8)}, "ports": []any{object{"name": "rpc", "port": 1, "protocol": "TCP"}}})
	m = w.failing(t, "endpoints that cannot be used: 1")
	require.Equal(t, "p0 p1 p2", names(m))
	admin.do(http.MethodDelete, in+"/odd", nil)
	w.are(t, "p0 p1 p2")

	// The API server is killed: the members stay. It comes back, and what has happened since is seen.
	for range 3 {
		admin.control("/stop")
		m = w.failing(t, "EndpointSlices of "+namespace)
		require.Equal(t, "p0 p1 p2", names(m))
		admin.control("/start")
		put("a", sliceOf(realPod(0), realPod(3)))
		w.are(t, "p0 p1 p2 p3")
		put("a", sliceOf(realPod(0)))
		w.are(t, "p0 p1 p2")
	}

	// A token is rotated. The old one does not count any more, which is told until there is another.
	admin.do(http.MethodDelete, "/api/v1/namespaces/"+namespace+"/secrets/first", nil)
	admin.control("/stop")
	admin.control("/start")
	m = w.failing(t, "the API says 401")
	require.Equal(t, "p0 p1 p2", names(m))
	router.rotate("second")
	w.are(t, "p0 p1 p2")

	// Nothing happens for longer than a watch lasts, and it is heard all the same.
	before, quiet := w.until(t, "that it is heard", func(m members.Members) bool { return m.Err == nil }), len(w.told())
	w.until(t, "that it is heard again", func(m members.Members) bool { return m.Heard.After(before.Heard) })
	for _, m := range w.told()[quiet:] {
		require.NoError(t, m.Err)
	}
	put("a", sliceOf(realPod(0), realPod(4)))
	w.are(t, "p0 p1 p2 p4")
}

// TestRealKubeTooOld has watches be of a version that the API does not know any more.
func TestRealKubeTooOld(t *testing.T) {
	admin := openRealKube(t)
	namespace := fmt.Sprintf("old-%d", time.Now().UnixNano())
	admin.do(http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": namespace}})
	in := "/apis/discovery.k8s.io/v1/namespaces/" + namespace + "/endpointslices"
	admin.do(http.MethodPost, in, realSlice("a", sliceOf(realPod(0))))
	admin.control("/stop") // one that was just started knows no version from before
	admin.control("/start")
	_, out := admin.try(http.MethodGet, in+"?watch=true&timeoutSeconds=1&resourceVersion=1", nil)
	require.Equal(t, "ERROR", out["type"], "%v", out)
	require.EqualValues(t, http.StatusGone, out["object"].(object)["code"], "%v", out)

	// Between the two, somebody makes the first watches old.
	const old = 3
	var lists, watches atomic.Int32
	at, err := url.Parse(admin.url)
	require.NoError(t, err)
	proxy := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Transport: admin.client.Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(at)
			query := r.In.URL.Query()
			if query.Get("watch") == "" {
				lists.Add(1)
			} else if watches.Add(1) <= old {
				query.Set("resourceVersion", "1")
			}
			r.Out.URL.RawQuery = query.Encode()
		},
	})
	proxy.EnableHTTP2 = true
	proxy.StartTLS()
	defer proxy.Close()
	folder := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw})
	require.NoError(t, os.WriteFile(filepath.Join(folder, "ca.crt"), ca, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "token"), []byte(admin.token), 0o600))
	to, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	source, err := members.Parse("k8s:///"+namespace+"/tandem-shards", members.Cluster{Host: to.Hostname(), Port: to.Port(), Folder: folder})
	require.NoError(t, err)
	w := watch(t, source)
	defer w.stop()
	require.Eventually(t, func() bool { return watches.Load() > old }, realPatience, 20*time.Millisecond)
	require.EqualValues(t, old+1, lists.Load(), "each is followed by a list")
	admin.do(http.MethodPut, in+"/a", realSlice("a", sliceOf(realPod(0), realPod(1))))
	w.are(t, "p0 p1")
	for _, m := range w.told() {
		require.NoError(t, m.Err, "it is no failure")
	}
}

// TestRealKubePods follows a service whose slices the controllers of Kubernetes write, while pods
// are made, end, move and fail.
func TestRealKubePods(t *testing.T) {
	admin := openRealKube(t)
	namespace := fmt.Sprintf("pods-%d", time.Now().UnixNano())
	admin.do(http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": namespace}})
	core, apps := "/api/v1/namespaces/"+namespace, "/apis/apps/v1/namespaces/"+namespace+"/statefulsets"
	admin.grant(namespace)
	for _, a := range manifests(t, "shards.yaml", "ServiceAccount") {
		admin.do(http.MethodPost, core+"/serviceaccounts", a)
	}
	for _, s := range manifests(t, "shards.yaml", "Service") {
		admin.do(http.MethodPost, core+"/services", s)
	}
	shard := &account{api: admin, namespace: namespace, name: "tandem-shard", folder: t.TempDir()}
	shard.rotate("first")
	at, err := url.Parse(admin.url)
	require.NoError(t, err)
	source, err := members.Parse("k8s:///"+namespace+"/tandem-shards", members.Cluster{Host: at.Hostname(), Port: at.Port(), Folder: shard.folder})
	require.NoError(t, err)
	w := watch(t, source)
	defer w.stop()
	w.failing(t, "it has no members")

	labels := object{"app.kubernetes.io/name": "tandem", "app.kubernetes.io/component": "shard"}
	zone := func(name string) object { return object{"topology.kubernetes.io/zone": name} }
	admin.do(http.MethodPost, apps, object{"metadata": object{"name": "n"}, "spec": object{
		"serviceName": "tandem-shards", "replicas": 3, "podManagementPolicy": "Parallel", "selector": object{"matchLabels": labels},
		"template": object{"metadata": object{"labels": labels}, "spec": object{
			"nodeSelector": zone("a"),
			"containers":   []any{object{"name": "c", "image": "x", "ports": []any{object{"name": "shard", "containerPort": 7070}}}},
		}},
	}})
	steady := func(list string) members.Members {
		t.Helper()
		return w.until(t, list, func(m members.Members) bool {
			for _, one := range m.List {
				if one.Condition != ready {
					return false
				}
			}
			return m.Err == nil && names(m) == list
		})
	}
	m := steady("n-0 n-1 n-2")
	for _, one := range m.List {
		require.Equal(t, "a", one.Zone)
		require.Regexp(t, `^10\.\d+\.\d+\.\d+:7070$`, one.Address)
	}

	// A pod is deleted: it ends, is no member for a moment, and comes back by its name. Its machine
	// waits with that for as long as it is told to.
	hold := func(pod string, value any) {
		admin.do(http.MethodPatch, core+"/pods/"+pod, object{"metadata": object{"annotations": object{"tandem.test/hold": value}}})
	}
	hold("n-1", "yes")
	admin.do(http.MethodDelete, core+"/pods/n-1", nil)
	m = w.until(t, "that n-1 ends", func(m members.Members) bool { return len(m.List) == 3 && m.List[1].Terminating })
	require.Equal(t, members.Condition{Ready: true, Serving: true, Terminating: true}, m.List[1].Condition)
	hold("n-1", nil)
	steady("n-0 n-1 n-2")

	// One is not ready: it is a member, and does not serve. The service lists it as ready, as it
	// is told to.
	pod := admin.do(http.MethodGet, core+"/pods/n-2", nil)
	for _, c := range pod["status"].(object)["conditions"].([]any) {
		if c := c.(object); c["type"] == "Ready" {
			c["status"] = "False"
		}
	}
	admin.do(http.MethodPut, core+"/pods/n-2/status", pod)
	m = w.until(t, "that n-2 does not serve", func(m members.Members) bool { return len(m.List) == 3 && !m.List[2].Serving })
	require.Equal(t, members.Condition{Ready: true}, m.List[2].Condition)
	admin.do(http.MethodDelete, core+"/pods/n-2", nil)
	steady("n-0 n-1 n-2")

	// More and fewer, and another zone.
	admin.do(http.MethodPatch, apps+"/n", object{"spec": object{"replicas": 5}})
	steady("n-0 n-1 n-2 n-3 n-4")
	admin.do(http.MethodPatch, apps+"/n", object{"spec": object{"replicas": 2}})
	steady("n-0 n-1")
	admin.do(http.MethodPatch, apps+"/n", object{"spec": object{"template": object{"spec": object{"nodeSelector": zone("b")}}}})
	w.until(t, "zone b", func(m members.Members) bool {
		return len(m.List) == 2 && m.List[0].Zone == "b" && m.List[1].Zone == "b" && m.List[0].Condition == ready && m.List[1].Condition == ready
	})

	// None is left, as after a mistake: who was known last stays.
	admin.do(http.MethodPatch, apps+"/n", object{"spec": object{"replicas": 0}})
	require.NotEmpty(t, w.failing(t, "it has no members").List)
	admin.do(http.MethodDelete, "/api/v1/namespaces/"+namespace, nil)
}
