package reportpage_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/server/reportpage"
)

// told is what a page has as its report, by how a browser takes a script apart: to the first </script.
func told(t require.TestingT, page string) map[string]any {
	_, rest, found := strings.Cut(page, `<script type="application/json" id="report">`)
	require.True(t, found)
	end := regexp.MustCompile(`(?i)</script`).FindStringIndex(rest)
	require.NotNil(t, end)
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(rest[:end[0]]), &got))
	return got
}

// Whatever is in a report is data: it comes back as it was, and adds no element to the page.
func TestReportIsData(t *testing.T) {
	texts := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
		`<img src=x onerror="document.title=1">`, `</script><script>alert(1)</script>`, `<!--<script>`, `]]>`, "\u2028", `"><`, `</title><img>`, `'&amp;`,
	}))
	elements := regexp.MustCompile(`(?i)<(/?[a-z!][a-z0-9-]*)`)
	write := func(t require.TestingT, title, text string) string {
		var b bytes.Buffer
		require.NoError(t, reportpage.Write(&b, &reportpage.Report{Kind: reportpage.Gate, Title: title, Tool: text, Made: time.Unix(0, 0), Of: map[string]string{"name": text}}))
		return b.String()
	}
	count := func(page string) int { return len(elements.FindAllString(page, -1)) }
	plain := count(write(t, "a title", "a name"))
	rapid.Check(t, func(t *rapid.T) {
		title, text := strings.ToValidUTF8(texts.Draw(t, "title"), "?"), strings.ToValidUTF8(texts.Draw(t, "text"), "?")
		page := write(t, title, text)
		assert.Equal(t, plain, count(page))
		got := told(t, page)
		assert.Equal(t, text, got["tool"])
		assert.Equal(t, map[string]any{"name": text}, got["report"])
		assert.Equal(t, title, got["title"])
	})
}

// The policy of a page allows its own script and style, by their hashes, and nothing else; neither
// ends its element early.
func TestPolicy(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, reportpage.Write(&b, &reportpage.Report{Kind: reportpage.Bench, Title: "a bench", Of: nil}))
	page := b.String()
	policy := regexp.MustCompile(`Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(page)[1]
	within := func(begin, end string) string {
		_, rest, found := strings.Cut(page, begin)
		require.True(t, found, begin)
		text, _, found := strings.Cut(rest, end)
		require.True(t, found, end)
		sum := sha256.Sum256([]byte(text))
		return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
	}
	assert.Contains(t, policy, "default-src 'none'")
	assert.Contains(t, policy, "script-src '"+within(`<script type="module">`, "</script>")+"';")
	assert.Contains(t, policy, "style-src '"+within("<style>", "</style>")+"';")
	assert.NotContains(t, policy, "unsafe")
	assert.NotRegexp(t, `(?i)(src|href)="?(https?:)?//`, page, "it names nothing elsewhere")
	assert.Less(t, b.Len(), 250<<10)
}

func TestWriteFails(t *testing.T) {
	err := reportpage.Write(&bytes.Buffer{}, &reportpage.Report{Kind: reportpage.Bench, Of: math.NaN()})
	require.ErrorContains(t, err, "write the page of a bench")
	require.ErrorIs(t, reportpage.Write(broken{}, &reportpage.Report{Kind: reportpage.Bench}), errBroken)
}

var errBroken = errors.New("the disk is full")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }
