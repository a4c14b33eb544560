package resident

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const whole = "Name:\ttandem\nVmRSS:\t   14080 kB\nRssAnon:\t    3328 kB\nRssFile:\t   10752 kB\nRssShmem:\t       0 kB\n"

func TestWhatTheKernelTells(t *testing.T) {
	m, err := parse(whole)
	require.NoError(t, err)
	require.Equal(t, Memory{Anonymous: 3328 << 10, File: 10752 << 10}, m)
	for want, text := range map[string]string{
		"it has no RssAnon":                          strings.Replace(whole, "RssAnon", "Rss", 1),
		"it has no RssFile":                          strings.Replace(whole, "RssFile", "Rss", 1),
		`RssAnon is "many kB", want a number of kB`:  strings.Replace(whole, "3328", "many", 1),
		`RssAnon is "-3328 kB", want a number of kB`: strings.Replace(whole, "3328", "-3328", 1),
		`RssFile is "10752 MB", want a number of kB`: strings.Replace(whole, "10752 kB", "10752 MB", 1),
		`want a number of kB`:                        strings.Replace(whole, "3328", "9223372036854775807", 1), // no int64 of bytes
	} {
		_, err := parse(text)
		require.ErrorContains(t, err, want)
	}
	_, err = parse("RssAnon: " + strings.Repeat("9", 1<<20))
	require.Less(t, len(err.Error()), 200)
}

// held is what the test has allocated.
var held []byte

func TestOwnMemory(t *testing.T) {
	before, err := Self()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("it is for Linux")
	}
	require.NoError(t, err)
	require.Positive(t, before.File)
	const size = 64 << 20
	held = make([]byte, size)
	for i := 0; i < len(held); i += os.Getpagesize() {
		held[i] = 1
	}
	after, err := Of(os.Getpid())
	require.NoError(t, err)
	require.GreaterOrEqual(t, after.Anonymous-before.Anonymous, int64(size*3/4))
	runtime.KeepAlive(held)
	held = nil
	_, err = Of(1 << 30)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "process 1073741824")
}
