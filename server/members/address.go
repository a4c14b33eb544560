package members

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of names, by RFC 1035.
const (
	maxHost  = 253
	maxLabel = 63
)

// canonicalAddress returns host:port in the one form that [Member] has it in.
func canonicalAddress(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", fmt.Errorf("it is %.100q, want HOST:PORT, such as 10.0.0.1:7070, [fd00::1]:7070 or node-0.example:7070", text)
	}
	if host, err = canonicalHost(host); err == nil {
		err = checkPort(port)
	}
	if err != nil {
		return "", fmt.Errorf("it is %.100q: %w", text, err)
	}
	return net.JoinHostPort(host, port), nil
}

// canonicalHost returns an IP address, or a name in lower case and without a dot at its end.
func canonicalHost(host string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return canonicalIP(ip)
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	if name == "" || len(name) > maxHost {
		return "", fmt.Errorf("the host has %d bytes, want 1 to %d", len(name), maxHost)
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !isLabel(strings.ReplaceAll(label, "_", "x")) {
			return "", errors.New("the host is neither an IP address nor a name of letters, digits, - and _ with dots between")
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "", errors.New("the host ends like an IP address, and is none")
	}
	return name, nil
}

// canonicalIP returns an address that one node may have.
func canonicalIP(ip netip.Addr) (string, error) {
	ip = ip.Unmap()
	switch {
	case ip.IsUnspecified(), ip.IsMulticast():
		return "", errors.New("the IP address is not that of one node")
	case ip.Zone() != "":
		return "", errors.New("the IP address has a zone, which counts on one machine only")
	}
	return ip.String(), nil
}

// checkPort returns an error unless a text is a port.
func checkPort(text string) error {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != text {
		return errors.New("the port is not a number from 1 to 65535")
	}
	return nil
}

// isLabel reports whether a text is a label as RFC 1123 has it, in lower case.
func isLabel(text string) bool {
	if text == "" || len(text) > maxLabel || text[0] == '-' || text[len(text)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}
