package server

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
)

// codesOfReasons returns, for each reason that this package's code gives to an error, the
// names of the codes that it has there.
func codesOfReasons(t *testing.T) map[string][]string {
	values := map[string]string{} // of the constants
	type use struct{ code, constant string }
	var uses []use
	look := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if kind, ok := n.Type.(*ast.Ident); ok && kind.Name == "reason" {
				value, err := strconv.Unquote(n.Values[0].(*ast.BasicLit).Value)
				require.NoError(t, err)
				values[n.Names[0].Name] = value
			}
		case *ast.CallExpr:
			name, ok := n.Fun.(*ast.Ident)
			if !ok {
				return true
			}
			for i, arg := range n.Args {
				constant, ok := arg.(*ast.Ident)
				if !ok || !regexp.MustCompile("^reason[A-Z]").MatchString(constant.Name) {
					continue
				}
				switch {
				case name.Name == "invalidf":
					uses = append(uses, use{"InvalidArgument", constant.Name})
				case name.Name == "notFoundf":
					uses = append(uses, use{"NotFound", constant.Name})
				case name.Name == "errorf" && i == 1:
					if code, ok := n.Args[0].(*ast.SelectorExpr); ok {
						uses = append(uses, use{strings.TrimPrefix(code.Sel.Name, "Code"), constant.Name})
					}
				case constant.Name == "reasonOverloaded":
					uses = append(uses, use{"ResourceExhausted", constant.Name})
				default:
					require.Fail(t, "it is not known which code goes with a reason", "%s in a call of %s", constant.Name, name.Name)
				}
			}
		}
		return true
	}
	sources, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, path := range sources {
		if !strings.HasSuffix(path, "_test.go") {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			require.NoError(t, err)
			ast.Inspect(file, look)
		}
	}
	names := map[string]string{}
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		names[strings.ReplaceAll(code.String(), "_", "")] = code.String()
	}
	found := map[string][]string{}
	for _, u := range uses {
		code := names[strings.ToLower(u.code)]
		require.NotEmpty(t, code, u.code)
		require.NotEmpty(t, values[u.constant], u.constant)
		found[code] = append(found[code], values[u.constant])
	}
	for code, list := range found {
		slices.Sort(list)
		found[code] = slices.Compact(list)
	}
	return found
}

// TestReasonsAreDocumented holds the lists of the contract and of docs/errors.md to what the
// code sends: a program that branches on reasons is written by them.
func TestReasonsAreDocumented(t *testing.T) {
	want := codesOfReasons(t)
	require.Greater(t, len(want), 5)
	documented := func(path, from, to, code string) map[string][]string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		_, section, ok := strings.Cut(string(text), from)
		require.True(t, ok, "%s has no %q", path, from)
		section, _, ok = strings.Cut(section, to)
		require.True(t, ok, "%s has no %q after it", path, to)
		out := map[string][]string{}
		places := regexp.MustCompile(code).FindAllStringSubmatchIndex(section, -1)
		for i, place := range places {
			end := len(section)
			if i+1 < len(places) {
				end = places[i+1][0]
			}
			list := regexp.MustCompile(`\b[A-Z]+(_[A-Z]+)+\b|\bOVERLOADED\b|\bSTOPPING\b|\bINTERNAL\b`).FindAllString(section[place[1]:end], -1)
			slices.Sort(list)
			out[section[place[2]:place[3]]] = list
		}
		return out
	}
	require.Equal(t, want, documented("../api/tandem/v1/retrieval.proto", "The reasons:", "// A request that", `//   - ([a-z_]+): `))
	require.Equal(t, want, documented("../docs/errors.md", "| code | reasons |", "\n\n", "\n\\| `([a-z_]+)` \\| "))
}
