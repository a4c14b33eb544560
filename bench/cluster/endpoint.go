package cluster

import (
	"fmt"
	"net/url"
)

// proxyBefore returns a proxy before the server that a store is on, and the store's location
// behind it.
func proxyBefore(location string) (*Proxy, string, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, "", fmt.Errorf("the location of the store: %w", err)
	}
	query := u.Query()
	to, err := url.Parse(query.Get("endpoint"))
	if err != nil || to.Scheme != "http" || to.Port() == "" {
		return nil, "", fmt.Errorf("the endpoint of the store is %.200q; accepted: a folder, or a URL with endpoint=http://HOST:PORT, which a proxy can be before", query.Get("endpoint"))
	}
	p, err := NewProxy()
	if err != nil {
		return nil, "", err
	}
	p.To(to.Host)
	query.Set("endpoint", "http://"+p.Address())
	u.RawQuery = query.Encode()
	return p, u.String(), nil
}
