package auth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"pgregory.net/rapid"

	_ "github.com/tandem-ann/tandem/api/tandem/shard/v1" // registers its contract
	_ "github.com/tandem-ann/tandem/api/tandem/v1"       // registers the contract
	"github.com/tandem-ann/tandem/server/auth"
)

// TestEveryProcedureNeedsAScope looks for each method of the contract in the table, and for
// nothing else in it.
func TestEveryProcedureNeedsAScope(t *testing.T) {
	methods := map[string]bool{}
	for _, contract := range []protoreflect.FullName{"tandem.v1", "tandem.shard.v1"} {
		protoregistry.GlobalFiles.RangeFilesByPackage(contract, func(f protoreflect.FileDescriptor) bool {
			for i := range f.Services().Len() {
				service := f.Services().Get(i)
				for j := range service.Methods().Len() {
					methods[fmt.Sprintf("/%s/%s", service.FullName(), service.Methods().Get(j).Name())] = true
				}
			}
			return true
		})
	}
	require.Greater(t, len(methods), 5)
	for name := range methods {
		require.NotZero(t, auth.Procedures[name], "scopes of %s, in server/auth/procedures.go", name)
	}
	require.Len(t, auth.Procedures, len(methods), "procedures that are not in the contract")
}

func TestNeeded(t *testing.T) {
	for path, want := range map[string]auth.Scopes{
		"/healthz": 0, "/readyz": 0, "/grpc.health.v1.Health/Check": 0, "/grpc.health.v1.Health/Watch": 0,
		"/tandem.v1.RetrievalService/Retrieve": auth.Query, "/tandem.v1.LiveService/Write": auth.Live,
		"/tandem.shard.v1.ShardService/Search": auth.Internal, "/tandem.shard.v1.ShardService/Watch": auth.Internal,
		"/tandem.v1.LiveService/Nothing": auth.Any, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": auth.Any,
		"/": auth.Any, "/healthz/": auth.Any, "/grpc.health.v1.Healthy": auth.Any, "//healthz": auth.Any,
	} {
		require.Equal(t, want, auth.Needed(path), path)
	}
}

// tokenFile returns a file with tokens, and what they are.
func tokenFile(t *testing.T, tokens ...auth.Token) (path string, secrets []string) {
	path = filepath.Join(t.TempDir(), "tokens.yaml")
	for _, token := range tokens {
		secret := auth.NewSecret()
		token.Hash = auth.HashOf(secret)
		require.NoError(t, auth.Append(path, token))
		secrets = append(secrets, secret)
	}
	return path, secrets
}

// asking returns a request with headers of authorization.
func asking(values ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header["Authorization"] = values
	return r
}

// TestTokensComeBack writes any tokens and reads what was written.
func TestTokensComeBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("tokens-%d", time.Now().UnixNano()))
		var want []auth.Token
		for i := range rapid.IntRange(1, 5).Draw(rt, "tokens") {
			token := auth.Token{
				Name: fmt.Sprintf("%s%d", rapid.StringMatching(`[a-zäö:"'#\-{]{1,10}`).Draw(rt, "name"), i), Hash: auth.HashOf(auth.NewSecret()),
				Scopes: auth.Scopes(rapid.IntRange(1, int(auth.Any)).Draw(rt, "scopes")), Priority: auth.Priority(rapid.IntRange(0, 2).Draw(rt, "priority")),
			}
			if rapid.Bool().Draw(rt, "quota") {
				token.Quota = auth.Quota{CPU: rapid.Float64Range(0.001, 100).Draw(rt, "cpu"), InFlight: rapid.IntRange(0, 100).Draw(rt, "in flight")}
			}
			if rapid.Bool().Draw(rt, "expires") {
				token.Expires = time.Unix(rapid.Int64Range(0, 4e9).Draw(rt, "at"), 0).UTC()
			}
			require.NoError(rt, auth.Append(path, token))
			want = append(want, token)
		}
		data, err := os.ReadFile(path)
		require.NoError(rt, err)
		got, err := auth.ParseTokens(data)
		require.NoError(rt, err)
		require.Equal(rt, want, got.List())
	})
}

// TestTokenFilesSayWhatIsWrong reads files that are not as they should be: the error names the
// line and nothing that may be a token.
func TestTokenFilesSayWhatIsWrong(t *testing.T) {
	secret := auth.NewSecret()
	hash := fmt.Sprintf("sha256:%x", auth.HashOf(secret))
	for text, want := range map[string]string{
		"":                                  "the file is empty, want a list of tokens, up to 4096, or [] for none",
		"# no tokens\n":                     "the file is empty, want a list of tokens, up to 4096, or [] for none",
		"~":                                 "the file is empty, want a list of tokens, up to 4096, or [] for none",
		"---\n":                             "the file is empty, want a list of tokens, up to 4096, or [] for none",
		"[]":                                "",
		secret:                              "line 1: the file is no list of tokens",
		"- " + secret:                       "line 1: want the fields name, hash, scopes, expires, quota, priority",
		"- {" + secret + ": 1}":             "line 1: there is a field that is none of name, hash, scopes, expires, quota, priority",
		"\n- name: a\n  hash: " + secret:    "line 2: hash is not sha256: and 64 hexadecimal digits",
		"- hash: " + hash:                   "line 1: name is not 1 to 64 visible characters that are no token",
		"- {name: " + secret + "}":          "line 1: name is not 1 to 64 visible characters that are no token",
		"- {name: a, hash: '" + hash + "'}": "line 1: scopes is empty, want some of query, live, publish, admin, internal, feedback",
		"- {name: a, hash: '" + hash + "', scopes: [" + secret + "]}":                                                                                                   "line 1: scopes: there is no such scope; there are query, live, publish, admin, internal, feedback",
		"- {name: a, hash: '" + hash + "', scopes: query}":                                                                                                              "line 1: a field is of another kind: name, hash, expires and priority are texts, scopes is a list, quota has the numbers cpu and in_flight",
		"- {name: a, hash: '" + hash + "', scopes: [query], expires: " + secret + "}":                                                                                   "line 1: expires is no time such as 2027-01-31T00:00:00Z",
		"- {name: a, hash: '" + hash + "', scopes: [query], quota: {cpus: 1}}":                                                                                          "line 1: there is a field that is none of quota.cpu, quota.in_flight",
		"- {name: a, hash: '" + hash + "', scopes: [query], quota: {cpu: -1}}":                                                                                          "line 1: quota.cpu is -1, want 0.000001 to 4096 processors",
		"- {name: a, hash: '" + hash + "', scopes: [query], quota: {cpu: 0}}":                                                                                           "line 1: quota.cpu is 0, want 0.000001 to 4096 processors",
		"- {name: a, hash: '" + hash + "', scopes: [query], quota: {cpu: 1, in_flight: 0}}":                                                                             "line 1: quota.in_flight is 0, want 1 to 1048576",
		"- {name: a, hash: '" + hash + "', scopes: [query], quota: {in_flight: -7}}":                                                                                    "line 1: quota.in_flight is -7, want 1 to 1048576",
		"- {name: a, hash: '" + hash + "', scopes: [query], quota: {cpu: }}":                                                                                            "line 1: quota.cpu has no value; leave it out for no bound",
		"- {name: a, hash: '" + hash + "', scopes: [query], quota: {in_flight: 1e300}}":                                                                                 "line 1: quota.in_flight is 1e+300, want 1 to 1048576",
		"- {name: a, hash: '" + hash + "', scopes: [query], quota: {in_flight: 1.5}}":                                                                                   "line 1: quota.in_flight is no whole number",
		"- {name: a, name: b, hash: '" + hash + "', scopes: [query]}":                                                                                                   "line 1: name is there twice",
		"- {name: a, hash: '" + hash + "', scopes: [query]}\n- {name: b, hash: '" + hash + "', scopes: [query]}":                                                        `caller "b": its hash is there twice`,
		"- {name: a, hash: '" + hash + "', scopes: [query]}\n- {name: a, hash: 'sha256:" + fmt.Sprintf("%x", auth.HashOf("x")) + "', scopes: [query], quota: {cpu: 1}}": `caller "a": its tokens have different quotas, and a quota is of the caller`,
		"- {name: a":  "the file is not one document of YAML",
		"[]\n---\n[]": "the file is not one document of YAML",
	} {
		_, err := auth.ParseTokens([]byte(text))
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.EqualError(t, err, want, text)
		require.NotContains(t, err.Error(), secret)
	}
}

// TestAppendsAtATime has many append to one file: none is lost, and what is wrong leaves the file
// as it was, with who may read it.
func TestAppendsAtATime(t *testing.T) {
	path, _ := tokenFile(t, auth.Token{Name: "first", Scopes: auth.Query})
	require.NoError(t, os.Chmod(path, 0o640))
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	var appending sync.WaitGroup
	for i := range 20 {
		appending.Go(func() {
			if err := auth.Append(link, auth.Token{Name: fmt.Sprint("caller-", i), Hash: auth.HashOf(fmt.Sprint(i)), Scopes: auth.Live}); err != nil {
				t.Error(err)
			}
		})
	}
	appending.Wait()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	tokens, err := auth.ParseTokens(data)
	require.NoError(t, err)
	require.Len(t, tokens.List(), 21)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode())
	require.ErrorContains(t, auth.Append(path, auth.Token{Name: "first", Hash: auth.HashOf("0"), Scopes: auth.Query}), "its hash is there twice")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, data, after)
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "files beside it")
}

func TestGuardIdentifies(t *testing.T) {
	now := time.Now()
	path, secrets := tokenFile(t,
		auth.Token{Name: "ranker", Scopes: auth.Query}, auth.Token{Name: "ranker", Scopes: auth.Query | auth.Live, Priority: auth.BatchPriority},
		auth.Token{Name: "old", Scopes: auth.Query, Expires: now.Add(time.Hour)})
	guard, err := auth.Open(auth.Options{TokenFile: path, Now: func() time.Time { return now }})
	require.NoError(t, err)
	one, denied := guard.Identify(asking("Bearer " + secrets[0]))
	require.Nil(t, denied)
	other, denied := guard.Identify(asking("bearer  " + secrets[1]))
	require.Nil(t, denied)
	require.Same(t, one.Caller, other.Caller)
	require.Equal(t, auth.BatchPriority, other.Priority)
	require.Nil(t, other.Check(auth.Live))
	require.EqualError(t, one.Check(auth.Live|auth.Admin), `caller "ranker" has the scopes query; accepted: live, admin`)
	for _, values := range [][]string{
		nil, {""}, {"Bearer"}, {"Bearer "}, {"Basic " + secrets[0]}, {secrets[0]}, {"Bearer " + secrets[0] + "x"}, {"Bearer " + secrets[0], "Bearer " + secrets[0]},
	} {
		_, denied := guard.Identify(asking(values...))
		require.NotNil(t, denied, values)
		require.Equal(t, http.StatusUnauthorized, denied.Status())
		require.NotContains(t, denied.Error(), secrets[0])
	}
	_, denied = guard.Identify(asking("Bearer " + secrets[2]))
	require.Nil(t, denied)
	now = now.Add(time.Hour)
	_, denied = guard.Identify(asking("Bearer " + secrets[2]))
	require.Equal(t, auth.ExpiredToken, denied.Denial)

	// Another file: one token is gone, one is new, and the caller goes on with what it has taken.
	require.NoError(t, os.Remove(path))
	fresh := auth.NewSecret()
	require.NoError(t, auth.Append(path, auth.Token{Name: "ranker", Hash: auth.HashOf(fresh), Scopes: auth.Query, Quota: auth.Quota{InFlight: 1}}))
	require.Nil(t, one.Caller.Begin(now))
	require.NoError(t, guard.Files().Look())
	_, denied = guard.Identify(asking("Bearer " + secrets[0]))
	require.Equal(t, auth.UnknownToken, denied.Denial)
	again, denied := guard.Identify(asking("Bearer " + fresh))
	require.Nil(t, denied)
	require.Same(t, one.Caller, again.Caller)
	require.NotNil(t, again.Caller.Begin(now), "a request from before the change counts")

	// A file that cannot be used changes nothing.
	require.NoError(t, os.WriteFile(path, []byte("- nothing"), 0o600))
	require.ErrorContains(t, guard.Files().Look(), path)
	_, denied = guard.Identify(asking("Bearer " + fresh))
	require.Nil(t, denied)
}

func TestRequire(t *testing.T) {
	path, secrets := tokenFile(t, auth.Token{Name: "ranker", Scopes: auth.Query}, auth.Token{Name: "ops", Scopes: auth.Admin})
	guard, err := auth.Open(auth.Options{TokenFile: path})
	require.NoError(t, err)
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	ask := func(h http.Handler, values ...string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, asking(values...))
		return w.Code
	}
	profile := guard.Require(auth.Admin)(ok)
	require.Equal(t, http.StatusUnauthorized, ask(profile))
	require.Equal(t, http.StatusForbidden, ask(profile, "Bearer "+secrets[0]))
	require.Equal(t, http.StatusOK, ask(profile, "Bearer "+secrets[1]))
	require.Equal(t, http.StatusOK, ask(guard.Require(0)(ok)))
	require.Equal(t, http.StatusOK, ask((*auth.Guard)(nil).Require(auth.Admin)(ok)))
}

// TestQuotas lets a caller take as much as its quota, whatever it asks for.
func TestQuotas(t *testing.T) {
	path, secrets := tokenFile(t, auth.Token{Name: "a", Scopes: auth.Query, Quota: auth.Quota{CPU: 0.25, InFlight: 3}})
	start := time.Now()
	now := start
	guard, err := auth.Open(auth.Options{TokenFile: path, Now: func() time.Time { return start }})
	require.NoError(t, err)
	id, denied := guard.Identify(asking("Bearer " + secrets[0]))
	require.Nil(t, denied)
	caller := id.Caller
	for range 3 {
		require.Nil(t, caller.Begin(now))
	}
	exceeded := caller.Begin(now)
	require.NotNil(t, exceeded)
	require.False(t, exceeded.InTime)
	caller.End()
	require.Nil(t, caller.Begin(now))

	// For a minute of asking 10 times as much it takes its quarter, and what it had not taken
	// before.
	var took time.Duration
	const work = 2500 * time.Microsecond
	for now.Before(start.Add(time.Minute)) {
		if err := caller.Take(work, now); err == nil {
			took += work
		} else {
			require.True(t, err.InTime)
			require.Positive(t, err.Retry)
			require.Less(t, err.Retry, 50*time.Millisecond)
		}
		now = now.Add(time.Millisecond)
	}
	require.InDelta(t, (15*time.Second + 250*time.Millisecond).Seconds(), took.Seconds(), 0.01)

	// One that takes more than all that is left passes, and the next ones wait for it.
	now = now.Add(time.Hour)
	require.Nil(t, caller.Take(5*time.Second, now))
	exceeded = caller.Take(1, now)
	require.NotNil(t, exceeded)
	require.InDelta(t, 19, exceeded.Retry.Seconds(), 0.1)
	require.NotNil(t, caller.Begin(now.Add(exceeded.Retry-10*time.Millisecond)))
	require.Nil(t, caller.Take(1, now.Add(exceeded.Retry)))
}
