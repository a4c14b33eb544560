package azure_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects"
	_ "github.com/tandem-ann/tandem/shard/objects/azure" // azblob://
)

// What Azure refuses is an error of its class, and is not tried again.
func TestAzureRefusals(t *testing.T) {
	t.Setenv("AZURE_STORAGE_ACCOUNT", "account")
	t.Setenv("AZURE_STORAGE_KEY", "a2V5")
	for code, test := range map[string]struct {
		status int
		class  error
	}{
		"BlobAlreadyExists":    {http.StatusConflict, objects.ErrExists},
		"ContainerNotFound":    {http.StatusNotFound, objects.ErrGone},
		"AuthorizationFailure": {http.StatusForbidden, nil},
	} {
		t.Run(code, func(t *testing.T) {
			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if r.Method == http.MethodGet { // what object is there
					w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
					w.Header().Set("ETag", "\"1\"")
					_, _ = w.Write([]byte("other"))
					return
				}
				w.Header().Set("x-ms-error-code", code)
				w.WriteHeader(test.status)
			}))
			defer server.Close()
			bucket, err := objects.Open(t.Context(), "azblob://container?protocol=http&localemu=true&domain="+strings.TrimPrefix(server.URL, "http://"))
			require.NoError(t, err)
			defer func() { require.NoError(t, bucket.Close()) }()
			for name, write := range map[string]func() error{
				"create": func() error { return bucket.Create(t.Context(), "key", []byte("data")) },
				"upload": func() error { return bucket.Upload(t.Context(), "key", strings.NewReader("data")) },
			} {
				requests.Store(0)
				err := write()
				require.Error(t, err)
				require.LessOrEqual(t, requests.Load(), int64(2), "%s is tried again", name)
				if test.class != nil && (name == "create" || errors.Is(test.class, objects.ErrGone)) {
					require.ErrorIs(t, err, test.class, name)
				}
			}
		})
	}
}
