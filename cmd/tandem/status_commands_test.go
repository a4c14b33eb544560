package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

// TestAdvice parses the commands that the runbook and tandem status tell people to run: whoever
// is called at night has no time for one that there is not.
func TestAdvice(t *testing.T) {
	page, err := os.ReadFile("../../docs/runbook.md")
	require.NoError(t, err)
	texts := regexp.MustCompile(`(?m)^ +tandem .*$`).FindAllString(string(page), -1)
	require.Greater(t, len(texts), 15)
	file, err := parser.ParseFile(token.NewFileSet(), "../../server/judge/judge.go", nil, 0)
	require.NoError(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.BasicLit); ok && s.Kind == token.STRING {
			text, err := strconv.Unquote(s.Value)
			require.NoError(t, err)
			texts = append(texts, text)
		}
		return true
	})
	quoted := regexp.MustCompile(`"[^"]*"`)
	flagged := regexp.MustCompile(`tandem(?: [a-z]+)+ --[^;:,()]*`)
	n := 0
	for _, text := range texts {
		for _, command := range flagged.FindAllString(text, -1) {
			for _, more := range []string{" with each server", " says what is released", " names them"} {
				command, _, _ = strings.Cut(command, more)
			}
			var c cli
			k, err := kong.New(&c, vars(), kong.Exit(func(int) { t.Fatalf("%s ends it", command) }))
			require.NoError(t, err)
			_, err = k.Parse(strings.Fields(strings.ReplaceAll(quoted.ReplaceAllString(command, "text"), "%.12s", "0123456789ab"))[1:])
			require.NoError(t, err, command)
			n++
		}
	}
	require.Greater(t, n, 25)
}
