package live

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// delaying is a proxy before a store, on loopback, which has each request arrive later.
type delaying struct {
	server   *http.Server
	location string // of the store, behind it
	ended    chan struct{}
}

// endpoint returns the address of the server that a store is on, nil if its location names
// none, as that of a folder does.
func endpoint(location string) (*url.URL, error) {
	u, err := url.Parse(location)
	if err != nil || u.Query().Get("endpoint") == "" {
		return nil, nil //nolint:nilerr // that of a folder need be no URL
	}
	to, err := url.Parse(u.Query().Get("endpoint"))
	if err != nil || to.Scheme != "http" || to.Host == "" {
		return nil, fmt.Errorf("the endpoint of the store is %q; accepted: http://HOST:PORT, which a proxy can be before", u.Query().Get("endpoint"))
	}
	return to, nil
}

// delay returns a proxy before the server that a store is on.
func delay(location string, to *url.URL, by time.Duration) (*delaying, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	query.Set("endpoint", "http://"+listener.Addr().String())
	u.RawQuery = query.Encode()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // which it is signed for
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}
	d := &delaying{location: u.String(), ended: make(chan struct{})}
	d.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() {
		defer close(d.ended)
		_ = d.server.Serve(listener) // until it is closed
	}()
	return d, nil
}

func (d *delaying) close() error {
	err := d.server.Close()
	<-d.ended
	return err
}
