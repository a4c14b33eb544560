package main

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// serverURL returns the URL of a server that --server names by its URL, whose port may be left
// out, or by HOST:PORT, which means the scheme.
func serverURL(text, scheme string) (string, error) {
	full, bare := text, !strings.Contains(text, "://")
	if bare {
		full = scheme + "://" + text
	}
	u, err := url.Parse(full)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" && u.Port() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", usagef("--server is %.200q, want HOST:PORT, http://HOST:PORT or https://HOST:PORT", text)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", usagef("--server is %.200q, whose port is %.20s; accepted: 1 to 65535", text, port)
		}
	}
	if bare && u.Port() == "" {
		return "", usagef("--server is %.200q, which has no port; want HOST:PORT, http://HOST:PORT or https://HOST:PORT", text)
	}
	return strings.TrimSuffix(full, "/"), nil
}

// plainAddress returns the HOST:PORT of a server that --server names, which must speak
// clear text.
func plainAddress(text string) (string, error) {
	full, err := serverURL(text, "http")
	if err != nil {
		return "", err
	}
	address, ok := strings.CutPrefix(full, "http://")
	if _, _, err := net.SplitHostPort(address); !ok || err != nil || strings.Contains(address, "/") {
		return "", usagef("--server is %.200q, want HOST:PORT or http://HOST:PORT", text)
	}
	return address, nil
}
