package rowlog_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

// TestUserHash has ids be replaced by what is documented, so that others can find a user's rows.
func TestUserHash(t *testing.T) {
	h, err := rowlog.NewUserHash([]byte("\n0123456789abcdef \n"))
	require.NoError(t, err)
	mac := hmac.New(sha256.New, []byte("0123456789abcdef"))
	mac.Write([]byte("user\x00user-0000007"))
	require.Equal(t, hex.EncodeToString(mac.Sum(nil))[:32], h.Of("user-0000007"))
	require.Empty(t, h.Of(""))
	require.NotEqual(t, h.Of("user-0000007"), h.Of("user-0000008"))
	var none *rowlog.UserHash
	require.Equal(t, "user-0000007", none.Of("user-0000007"))
	for _, key := range []string{"", "  0123456789abcde  ", strings.Repeat("x", rowlog.MostHashKey+1)} {
		_, err := rowlog.NewUserHash([]byte(key))
		require.ErrorContains(t, err, "accepted: 16 to 4096", "%.20q", key)
	}
}

// TestUserHashes has the keys be known that were used, whoever notes them and how often.
func TestUserHashes(t *testing.T) {
	bucket := objectstest.NewFaults().Bucket("x")
	first, err := rowlog.NewUserHash([]byte("0123456789abcdef"))
	require.NoError(t, err)
	second, err := rowlog.NewUserHash([]byte("fedcba9876543210"))
	require.NoError(t, err)
	keys, err := rowlog.UserHashes(t.Context(), bucket)
	require.NoError(t, err)
	require.Empty(t, keys)
	for _, h := range []*rowlog.UserHash{first, second, first} {
		require.NoError(t, rowlog.NoteUserHash(t.Context(), bucket, h, time.Unix(0, 0)))
	}
	keys, err = rowlog.UserHashes(t.Context(), bucket)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{first.ID(), second.ID()}, keys)
}
