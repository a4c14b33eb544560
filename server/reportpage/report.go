package reportpage

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the script and the style
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"time"
)

// Kind is what a report is of.
type Kind string

// The kinds, each with what its JSON is.
const (
	Build  Kind = "build"  // a build, as tandem build --json prints it, and the rows of its gates
	Gate   Kind = "gate"   // a run of the gates, and its rows
	Diff   Kind = "diff"   // how two snapshots differ
	Replay Kind = "replay" // what recorded queries are given
	Bench  Kind = "bench"  // recall against latency
	// Feedback is what joined days say, as tandem feedback report --json prints it.
	Feedback Kind = "feedback"
)

// Report is what a page shows.
type Report struct {
	Kind  Kind
	Title string
	Tool  string    // the release of the command that has made it
	Made  time.Time // when
	// Of is what is shown: a value that encoding/json takes, of the form that its kind has.
	Of any
}

//go:embed dist/report.js
var script []byte

//go:embed dist/report.css
var style []byte

// Write writes a report as a page. It fails if what is shown has no JSON, as a number that is none, or
// if w does.
func Write(w io.Writer, r *Report) error {
	// The encoder writes <, > and & as escapes, so that nothing in the report ends its element.
	told, err := json.Marshal(map[string]any{
		"kind": r.Kind, "title": r.Title, "tool": r.Tool, "made": r.Made.UTC().Format(time.RFC3339), "report": r.Of,
	})
	if err != nil {
		return fmt.Errorf("write the page of a %s: %w", r.Kind, err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '%s'; style-src '%s'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>%s</title>
<style>`, hash(script), hash(style), html.EscapeString(r.Title))
	b.Write(style)
	b.WriteString("</style>\n</head>\n<body>\n<div id=\"page\"></div>\n<noscript>This report is drawn by a script, and scripts are off here. It is below as JSON, in the source of the page.</noscript>\n<script type=\"application/json\" id=\"report\">")
	b.Write(told)
	b.WriteString("</script>\n<script type=\"module\">")
	b.Write(script)
	b.WriteString("</script>\n</body>\n</html>\n")
	_, err = w.Write(b.Bytes())
	return err
}

// hash is how a content security policy names what it allows.
func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
