package main

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/auth"
)

// TestConsoleOfStrangers holds that no console lets whoever reaches it write.
func TestConsoleOfStrangers(t *testing.T) {
	for _, c := range []struct {
		listen        string
		live, release bool
		guard         *auth.Guard
		want          bool
	}{
		{"127.0.0.1:0", true, true, nil, true},
		{"0.0.0.0:0", false, false, nil, true},
		{"0.0.0.0:0", true, false, nil, false},
		{"0.0.0.0:0", false, true, nil, false},
		{"0.0.0.0:0", true, true, new(auth.Guard), true},
	} {
		var log bytes.Buffer
		config := server.Config{Admin: &adminhttp.Options{Listen: c.listen}, ReleaseWrites: c.release}
		config.Live.Writes, config.Options.Guard = c.live, c.guard
		(&adminFlags{ConsoleHost: []string{"tandem.example"}}).apply(&config, slog.New(slog.NewTextHandler(&log, nil)))
		require.Equal(t, c.want, config.Console != nil, "%+v", c)
		if !c.want {
			require.Contains(t, log.String(), "there is no console")
			continue
		}
		require.Equal(t, []string{"tandem.example"}, config.Console.Hosts)
	}
}
