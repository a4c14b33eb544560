package auth

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// IsOwnHost reports whether the Host header of a request, with or without a port, is localhost
// or an IP address: who asks by one of these meant this server. A web page that is open in a
// browser could have any other name lead here, and read the answers.
func IsOwnHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// CheckOwnHost returns an error unless IsOwnHost, or there is no host.
func CheckOwnHost(host string) *DeniedError {
	if host == "" || IsOwnHost(host) {
		return nil
	}
	return &DeniedError{OtherHost, fmt.Sprintf("host is %.100q; accepted: localhost, or an IP address", host)}
}
