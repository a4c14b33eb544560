// Command fewlinters writes the sources of golangci-lint, at the version that the module of tools
// requires, with those linters only that a configuration enables, and a go.mod that builds it from
// there. Of its hundred linters, and the packages that those import, most of the time that it
// takes to build is for ones that never run.
//
// It is run in the folder of that module. The list of linters is the one file that differs, so
// what is enabled finds what it finds otherwise.
//
//	fewlinters CONFIG FOLDER
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	module  = "github.com/golangci/golangci-lint/v2"
	linters = module + "/pkg/golinters/"
	list    = "pkg/lint/lintersdb/builder_linter.go"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: fewlinters CONFIG FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "fewlinters:", err)
		os.Exit(1)
	}
}

// write fills a folder: src has the sources, go.mod and go.sum are those of the module of tools,
// of which the first replaces golangci-lint by src.
func write(configuration, folder string) error {
	enabled, err := enabledBy(configuration)
	if err != nil {
		return err
	}
	source, err := sources()
	if err != nil {
		return err
	}
	folder, err = filepath.Abs(folder)
	if err != nil {
		return err
	}
	// Files that only another version has must not stay among those of this one.
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	target := filepath.Join(folder, "src")
	if err := os.CopyFS(target, withoutTests{os.DirFS(source)}); err != nil {
		return err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(filepath.Join(source, list))
	if err != nil {
		return err
	}
	text, err = only(text, enabled)
	if err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	if err := os.WriteFile(filepath.Join(target, list), text, 0o644); err != nil {
		return err
	}
	_, err = output("go", "mod", "edit", "-replace", module+"="+target, filepath.Join(folder, "go.mod"))
	return err
}

// enabledBy returns the linters that a configuration of golangci-lint enables, by name.
func enabledBy(configuration string) (map[string]bool, error) {
	text, err := os.ReadFile(configuration)
	if err != nil {
		return nil, err
	}
	var config struct {
		Linters struct {
			Default string
			Enable  []string
		}
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", configuration, err)
	}
	if config.Linters.Default != "none" || len(config.Linters.Enable) == 0 {
		return nil, fmt.Errorf("%s: linters.default is %q, and linters.enable has %d: it takes none, and at least one",
			configuration, config.Linters.Default, len(config.Linters.Enable))
	}
	enabled := map[string]bool{}
	for _, name := range config.Linters.Enable {
		enabled[name] = true
	}
	return enabled, nil
}

func sources() (string, error) {
	text, err := output("go", "mod", "download", "-json", module)
	if err != nil {
		return "", err
	}
	var found struct{ Dir string }
	if err := json.Unmarshal(text, &found); err != nil {
		return "", fmt.Errorf("go mod download %s: %w", module, err)
	}
	return found.Dir, nil
}

// only returns the source of a list of linters without those that are not enabled. A linter has the
// name of its package. What is of other packages stays, as what tells of code that does not compile,
// and so does nolintlint, which other files import too.
func only(text []byte, enabled map[string]bool) ([]byte, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "", text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	imported := map[string]bool{}
	for _, spec := range file.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		if folder, last := path.Split(name); folder == linters {
			imported[last] = true
		}
	}
	for name := range enabled {
		if !imported[name] {
			return nil, fmt.Errorf("no package is for the linter %q, which is enabled", name)
		}
	}
	enabled["nolintlint"] = true
	// Edits are of the text, so that its comments stay where they are.
	type edit struct {
		from, to int
		text     string
	}
	var edits []edit
	cut := func(node ast.Node) {
		edits = append(edits, edit{from: files.Position(node.Pos()).Offset, to: files.Position(node.End()).Offset})
	}
	for _, declaration := range file.Decls {
		switch declaration := declaration.(type) {
		case *ast.GenDecl:
			for _, spec := range declaration.Specs {
				if spec, ok := spec.(*ast.ImportSpec); ok {
					name, _ := strconv.Unquote(spec.Path.Value)
					if folder, last := path.Split(name); folder == linters && !enabled[last] {
						cut(spec)
					}
				}
			}
		case *ast.FuncDecl:
			ast.Inspect(declaration, func(node ast.Node) bool {
				switch node := node.(type) {
				case *ast.AssignStmt:
					// What only a linter that is cut has used does not compile otherwise.
					if name, ok := node.Lhs[0].(*ast.Ident); ok && node.Tok == token.DEFINE {
						end := files.Position(node.End()).Offset
						edits = append(edits, edit{from: end, to: end, text: "\n_ = " + name.Name})
					}
				case *ast.CompositeLit:
					for _, element := range node.Elts {
						if name := packageOf(element, imported); name != "" && !enabled[name] {
							cut(element)
						}
					}
					return false
				}
				return true
			})
		}
	}
	var kept bytes.Buffer
	from := 0
	for _, edit := range edits {
		kept.Write(text[from:edit.from])
		kept.WriteString(edit.text)
		from = edit.to
		if edit.text == "" && text[from] == ',' {
			from++
		}
	}
	kept.Write(text[from:])
	return format.Source(kept.Bytes())
}

// packageOf returns the package of a linter that an expression makes, or nothing.
func packageOf(expression ast.Expr, imported map[string]bool) string {
	name := ""
	ast.Inspect(expression, func(node ast.Node) bool {
		if selector, ok := node.(*ast.SelectorExpr); ok {
			if of, ok := selector.X.(*ast.Ident); ok && imported[of.Name] {
				name = of.Name
			}
		}
		return name == ""
	})
	return name
}

// withoutTests hides tests and what they read, much of which is no Go that compiles.
type withoutTests struct{ fs.FS }

func (w withoutTests) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(w.FS, name)
	return slices.DeleteFunc(entries, func(entry fs.DirEntry) bool {
		return entry.Name() == "testdata" || strings.HasSuffix(entry.Name(), "_test.go")
	}), err
}

func output(command string, arguments ...string) ([]byte, error) {
	run := exec.Command(command, arguments...)
	text, err := run.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %w: %s", command, arguments[0], err, bytes.TrimSpace(exit.Stderr))
	}
	return text, err
}
