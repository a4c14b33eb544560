package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// verb is a verb of package fmt.
var verb = regexp.MustCompile(`%[-+.0-9*# ]*[a-zA-Z]`)

// TestGateMessagesAreDocumented looks for every text of a check, and for every cause that a refusal
// names, in the page of the gates' messages. Of a text that is put together it looks for the longest part between
// two verbs.
func TestGateMessagesAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/gate-messages.md")
	require.NoError(t, err)
	page := strings.Join(strings.Fields(strings.ReplaceAll(string(data), "`", "")), " ")
	var files []string
	for _, pattern := range []string{"../../builder/gate/*.go", "../../shard/gates/*.go", "../../builder/axes/state.go"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		files = append(files, found...)
	}
	texts := 0
	var missing []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || elsewhere[filepath.Base(file)] {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && isError(call) {
				return false
			}
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING || literal.Value[0] != '"' {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			require.NoError(t, err)
			part := ""
			for _, p := range verb.Split(strings.ReplaceAll(text, "%%", "%"), -1) {
				if len(p) > len(part) {
					part = p
				}
			}
			part = strings.Trim(part, " ;,:()\n")
			if len(part) < 26 || !strings.Contains(part, " ") {
				return true // a subject, or a name
			}
			texts++
			if !strings.Contains(page, part) {
				missing = append(missing, filepath.Base(file)+": "+text)
			}
			return true
		})
	}
	require.Greater(t, texts, 60)
	require.Empty(t, missing, "texts that docs/gate-messages.md lacks")
}

// elsewhere are files whose texts are of refusals, limits and records, and of no check.
var elsewhere = map[string]bool{
	"parse.go": true, "thresholds.go": true, "record.go": true, "verdict.go": true, "row.go": true, "loosened.go": true, "doc.go": true, "share.go": true, "turn.go": true,
}

// isError says whether a call makes an error, which is of a file and not of a snapshot.
func isError(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	return ok && (f.Sel.Name == "Errorf" || f.Sel.Name == "New")
}
