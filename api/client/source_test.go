package client

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestAddresses looks up names: each address is a server, IPv6 is left out beside IPv4, and a name that
// fails fails all, or half of the servers would be asked for everything.
func TestAddresses(t *testing.T) {
	hosts := map[string][]string{"many": {"10.0.0.1", "::ffff:10.0.0.2", "fd00::1"}, "six": {"fd00::2"}}
	a := Addresses("many:80", "https://six/tandem/", "10.0.0.9:8080", "localhost:1", "http://[fd00::9]:7").(*addresses)
	a.lookup = func(_ context.Context, _, host string) (list []netip.Addr, err error) {
		for _, text := range hosts[host] {
			list = append(list, netip.MustParseAddr(text))
		}
		if list == nil {
			err = errors.New("no such host")
		}
		return list, err
	}
	require.NoError(t, a.prepare(false))
	got, err := a.Servers(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Server{
		{"http://many:80", "10.0.0.1:80"}, {"http://many:80", "10.0.0.2:80"}, {"https://six/tandem", "[fd00::2]:443"},
		{URL: "http://10.0.0.9:8080"}, {URL: "http://localhost:1"}, {URL: "http://[fd00::9]:7"},
	}, got)
	delete(hosts, "six")
	_, err = a.Servers(t.Context())
	require.ErrorContains(t, err, `look up "six": no such host`)
}

// TestAddressTexts gives any text as an address: it is taken, or there is a short error without what may
// be a password.
func TestAddressTexts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`(https?|ftp)?(://)?(user:hunter2@)?[a-z0-9.\[\]:%]{0,20}(/[a-z?#]*)?`)).Draw(t, "address")
		if rapid.Bool().Draw(t, "long") {
			text += strings.Repeat("x", 5000)
		}
		a := Addresses(text).(*addresses)
		if err := a.prepare(false); err != nil {
			require.Less(t, len(err.Error()), 1200)
			require.NotContains(t, err.Error(), "hunter2")
			return
		}
		require.NotEmpty(t, a.urls[0].Hostname())
		require.Nil(t, a.urls[0].User)
	})
}
