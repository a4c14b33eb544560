package members

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/server/filewatch"
)

const (
	// maxList, maxEvent and maxStatus bound what is read of a response, in bytes. The API keeps
	// no object of more than some 1.5 MB.
	maxList   = 32 << 20
	maxEvent  = 4 << 20
	maxStatus = 64 << 10
	// maxCredential bounds the files of a service account.
	maxCredential = 1 << 20
)

// defaultFolder is where a pod has its service account.
const defaultFolder = "/var/run/secrets/kubernetes.io/serviceaccount"

// Cluster is where the API of Kubernetes is, as a pod knows it.
type Cluster struct {
	// Host and Port are what KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT have. Empty
	// outside of a cluster.
	Host, Port string
	// Folder has the files token and ca.crt of a service account, which are read again when
	// they change. The account is to be allowed to list and watch endpointslices. Where pods
	// have them if empty.
	Folder string
}

// server returns the address of the API.
func (c Cluster) server() (string, error) {
	if c.Host == "" && c.Port == "" {
		return "", errors.New("k8s:/// is for pods of Kubernetes, and KUBERNETES_SERVICE_HOST is not set")
	}
	address, err := canonicalAddress(net.JoinHostPort(c.Host, c.Port))
	if err != nil {
		return "", fmt.Errorf("KUBERNETES_SERVICE_HOST and _PORT: %w", err)
	}
	return "https://" + address, nil
}

func (c Cluster) folder() string {
	if c.Folder == "" {
		return defaultFolder
	}
	return c.Folder
}

// dialer makes connections.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// api asks for the slices of one service. It is for one goroutine.
type api struct {
	path     string
	selector string
	dial     dialer

	credentials *filewatch.Files
	unread      error // why the credentials that are there now could not be read
	token, ca   string
	client      *http.Client // nil before there are any
}

func newAPI(k *kube) *api {
	a := &api{
		path:     k.server + "/apis/discovery.k8s.io/v1/namespaces/" + k.namespace + "/endpointslices",
		selector: "kubernetes.io/service-name=" + k.service,
		dial:     k.dial,
	}
	a.credentials = filewatch.New("service account", maxCredential, a.load, k.folder+"/token", k.folder+"/ca.crt")
	return a
}

// close lets go of connections.
func (a *api) close() {
	if a.client != nil {
		a.client.CloseIdleConnections()
	}
}

// load takes credentials over. Other authorities need other connections.
func (a *api) load(contents [][]byte) error {
	token := strings.TrimSpace(string(contents[0]))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("it is no token")
	}
	if ca := string(contents[1]); a.client == nil || ca != a.ca {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(contents[1]) {
			return errors.New("the file beside it, ca.crt, has no certificate")
		}
		a.close()
		a.ca, a.client = ca, newClient(roots, a.dial)
	}
	a.token, a.unread = token, nil
	return nil
}

func newClient(roots *x509.CertPool, dial dialer) *http.Client {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	return &http.Client{
		// A redirect would lead the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            dial,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  listTimeout,
			MaxResponseHeaderBytes: maxStatus,
			IdleConnTimeout:        watchFor,
			ForceAttemptHTTP2:      true,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		},
	}
}

// get asks for slices. The body is the caller's to close if there is no error.
func (a *api) get(ctx context.Context, query url.Values) (*http.Response, error) {
	if err := a.credentials.LookContext(ctx); err != nil { // it tells of each error once
		if ctx.Err() != nil {
			return nil, err
		}
		a.unread = err
	}
	if a.client == nil {
		return nil, a.unread
	}
	query.Set("labelSelector", a.selector)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("User-Agent", "tandem")
	response, err := a.client.Do(request)
	if err != nil {
		return nil, errors.Join(err, a.unread)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	return nil, errors.Join(newStatusError(response), a.unread)
}

// list returns all slices.
func (a *api) list(ctx context.Context) (*sliceList, error) {
	response, err := a.get(ctx, url.Values{})
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var out sliceList
	if err := json.NewDecoder(&atMost{response.Body, maxList}).Decode(&out); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if out.Metadata.ResourceVersion == "" || out.Metadata.Continue != "" {
		return nil, errors.New("it has no version, or is not all")
	}
	return &out, nil
}

// watch asks for the changes since a version, which end after a time, and has follow read them
// if it gets them.
func (a *api) watch(ctx context.Context, version string, lasts time.Duration, follow func(stream io.Reader) error) error {
	response, err := a.get(ctx, url.Values{
		"watch":               {"true"},
		"allowWatchBookmarks": {"true"},
		"resourceVersion":     {version},
		"timeoutSeconds":      {strconv.Itoa(int(lasts / time.Second))},
	})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return follow(response.Body)
}

// What happens to slices. A bookmark has a version only.
const (
	added    = "ADDED"
	modified = "MODIFIED"
	deleted  = "DELETED"
	bookmark = "BOOKMARK"
	failure  = "ERROR"
)

// event is one change.
type event struct {
	kind   string
	object *slice
}

// readEvents hands over events until there are no more, which is [io.EOF], or ctx ends.
func readEvents(ctx context.Context, stream io.Reader, events chan<- event) error {
	limited := &atMost{stream, maxEvent}
	for d := json.NewDecoder(limited); ; {
		var e struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		limited.left = maxEvent
		if err := d.Decode(&e); err != nil {
			return err
		}
		if e.Type == failure {
			return statusOf(e.Object)
		}
		object := new(slice)
		if err := json.Unmarshal(e.Object, object); err != nil {
			return fmt.Errorf("an event of type %.20q: %w", e.Type, err)
		}
		select {
		case events <- event{e.Type, object}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// atMost is what is read of a response, of which only so many bytes are left.
type atMost struct {
	from io.Reader
	left int
}

// Read implements [io.Reader].
func (a *atMost) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, errors.New("it is too long")
	}
	n, err := a.from.Read(p[:min(len(p), a.left)])
	a.left -= n
	return n, err
}

// statusError is a refusal of the API.
type statusError struct {
	code  int
	text  string
	after time.Duration // that it asks for before another try
}

// Error implements [error].
func (e *statusError) Error() string { return fmt.Sprintf("the API says %d: %s", e.code, e.text) }

// isGone reports whether an error says that a version is too old to be known.
func isGone(err error) bool {
	refused, ok := errors.AsType[*statusError](err)
	return ok && refused.code == http.StatusGone
}

func newStatusError(response *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxStatus)) // what there is
	e := statusOf(body)
	e.code = response.StatusCode
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		e.after = time.Duration(min(max(seconds, 0), int(maxRest/time.Second))) * time.Second
	}
	return e
}

// statusOf reads a Status of the API, or whatever else a proxy before it has sent.
func statusOf(data []byte) *statusError {
	var status struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(data, &status); err != nil || status.Message == "" {
		return &statusError{code: status.Code, text: fmt.Sprintf("%.200q", data)}
	}
	return &statusError{code: status.Code, text: fmt.Sprintf("%.200q", status.Message)}
}
