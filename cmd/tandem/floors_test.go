package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/tandem-ann/tandem"

// floors are the folders that packages are in. A package imports those of its own folder
// and of lower floors; folders of one floor do not know one another.
var floors = map[string]int{"api": 0, "index": 0, "docs": 0, "shard": 1, "builder": 2, "server": 2, "bench": 3, "cmd": 4}

// Below server there are no wire types: what is asked of a store or of a shard does not
// depend on how it is sent.
var (
	wireless = []string{"index", "shard", "builder"}
	wired    = []string{modulePath + "/api", "google.golang.org/protobuf", "google.golang.org/grpc", "connectrpc.com", "buf.build"}
)

// The clients of clouds are linked where stores are opened by them, and not by all that has a store:
// each by its package, and those by the command and by files of tests that a build tag asks for.
var (
	clients   = []string{"github.com/aws", "github.com/Azure", "cloud.google.com/go/storage", "gocloud.dev/blob/s3blob", "gocloud.dev/blob/azureblob", "gocloud.dev/blob/gcsblob"}
	clientsIn = []string{"shard/objects/s3", "shard/objects/azure", "shard/objects/gcs"}
	linkers   = []string{"cmd/tandem", "shard/objects/objectstest"}
)

// maxPackageLines is how many lines a package has, tests and generated files aside, unless
// its doc says why they are more, in a sentence that begins with reasonForSize.
const (
	maxPackageLines = 3000
	reasonForSize   = "The package has more than 3,000 lines because "
)

// TestFloors holds the walls between packages: every import of every file, those of tests
// and of other architectures too, goes downwards.
func TestFloors(t *testing.T) {
	packages := readPackages(t, os.DirFS("../.."))
	require.Greater(t, len(packages), 30, "packages that were found")
	require.Empty(t, forbiddenImports(packages), "imports that ARCHITECTURE.md, Floors, forbids")
}

// TestPackageSizes fails for a package that has grown without a reason.
func TestPackageSizes(t *testing.T) {
	require.Empty(t, tooLarge(readPackages(t, os.DirFS("../.."))),
		"packages of more than %d lines: divide them, or say why in their doc", maxPackageLines)
}

// TestWallsHold breaks each wall, in a tree of its own, and looks whether that is found.
func TestWallsHold(t *testing.T) {
	for _, c := range []struct{ file, imports, want string }{
		{"index/a.go", modulePath + "/shard", "index/a.go imports shard"},
		{"index/sections/a.go", modulePath + "/api/tandem/v1", "index/sections/a.go imports api/tandem/v1"},
		{"api/tandem/v1/a.go", modulePath + "/index", "api/tandem/v1/a.go imports index"},
		{"shard/a_test.go", modulePath + "/builder", "shard/a_test.go imports builder"},
		{"shard/objects/a.go", modulePath + "/server/events", "shard/objects/a.go imports server/events"},
		{"builder/gate/a.go", modulePath + "/server", "builder/gate/a.go imports server"},
		{"server/a.go", modulePath + "/builder", "server/a.go imports builder"},
		{"server/a_arm64.go", modulePath + "/bench", "server/a_arm64.go imports bench"},
		{"bench/a.go", modulePath + "/cmd/tandem", "bench/a.go imports cmd/tandem"},
		{"shard/live/a.go", "google.golang.org/protobuf/proto", "shard/live/a.go imports google.golang.org/protobuf/proto"},
		{"index/a.go", "connectrpc.com/connect", "index/a.go imports connectrpc.com/connect"},
		{"builder/a.go", "google.golang.org/grpc/codes", "builder/a.go imports google.golang.org/grpc/codes"},
		{"shard/objects/a.go", "github.com/aws/aws-sdk-go-v2/service/s3", "shard/objects/a.go imports github.com/aws/aws-sdk-go-v2/service/s3"},
		{"builder/a_test.go", "gocloud.dev/blob/s3blob", "builder/a_test.go imports gocloud.dev/blob/s3blob"},
		{"server/a_test.go", modulePath + "/shard/objects/s3", "server/a_test.go imports shard/objects/s3"},
		{"shard/objects/azure/a.go", "github.com/Azure/azure-sdk-for-go/sdk/azcore", ""},
		{"shard/objects/azure/a_test.go", modulePath + "/shard/objects/azure", ""},
		{"cmd/tandem/a.go", modulePath + "/shard/objects/s3", ""},
		{"internal/a.go", "fmt", "internal/a.go is in none of the folders that packages are in"},
		{"a.go", "fmt", "a.go is in none of the folders that packages are in"},
		{"shard/objects/a.go", modulePath + "/index/sections", ""},
		{"server/a.go", modulePath + "/api/tandem/v1", ""},
		{"server/a.go", "connectrpc.com/connect", ""},
		{"cmd/tandem/a.go", modulePath + "/bench/replay", ""},
	} {
		text := fmt.Sprintf("package a\n\nimport _ %q\n", c.imports)
		got := forbiddenImports(readPackages(t, fstest.MapFS{c.file: {Data: []byte(text)}}))
		if c.want == "" {
			require.Empty(t, got, c.file)
		} else {
			require.Equal(t, []string{c.want}, got)
		}
	}

	lines := strings.Repeat("// a\n", maxPackageLines)
	for _, c := range []struct {
		head, lines string
		tooLarge    bool
	}{
		{"package a\n", lines, true},
		{"// Package a is large.\npackage a\n", lines, true},
		{"// Package a is large. The package has more than\n// 3,000 lines because it is one thing.\npackage a\n", lines, false},
		{"// Code generated by a test. DO NOT EDIT.\n\npackage a\n", lines, false},
		{"package a\n", "", false},
	} {
		got := tooLarge(readPackages(t, fstest.MapFS{"shard/a/a.go": {Data: []byte(c.head + c.lines)}, "shard/a/a_test.go": {Data: []byte("package a\n" + lines)}}))
		require.Equal(t, c.tooLarge, len(got) == 1, "%s: %v", c.head, got)
	}
}

// packageFiles are the files of one package.
type packageFiles struct {
	imports map[string][]string // by the file's path
	lines   int                 // of files that are neither tests nor generated
	doc     string
}

// readPackages reads the Go files of the module that is in a tree, whatever they are built
// for, by their folders.
func readPackages(t *testing.T, tree fs.FS) map[string]*packageFiles {
	packages := map[string]*packageFiles{}
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		switch base := path.Base(name); {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && (strings.HasPrefix(base, ".") || base == "testdata"):
			return fs.SkipDir
		case entry.IsDir() && name != ".":
			if _, err := fs.Stat(tree, name+"/go.mod"); err == nil {
				return fs.SkipDir // a module of its own
			}
		}
		if entry.IsDir() || path.Ext(name) != ".go" {
			return nil
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, data, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		p := packages[path.Dir(name)]
		if p == nil {
			p = &packageFiles{imports: map[string][]string{}}
			packages[path.Dir(name)] = p
		}
		p.imports[name] = nil
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			p.imports[name] = append(p.imports[name], imported)
		}
		if !strings.HasSuffix(name, "_test.go") && !ast.IsGenerated(f) {
			p.lines += strings.Count(string(data), "\n")
			p.doc += " " + strings.Join(strings.Fields(f.Doc.Text()), " ")
		}
		return nil
	})
	require.NoError(t, err)
	return packages
}

// forbiddenImports returns the imports that go upwards or aside, or bring wire types to where
// there are none.
func forbiddenImports(packages map[string]*packageFiles) (list []string) {
	within := func(name, parent string) bool { return name == parent || strings.HasPrefix(name, parent+"/") }
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		files := packages[dir].imports
		for _, file := range slices.Sorted(maps.Keys(files)) {
			folder, _, _ := strings.Cut(file, "/")
			floor, known := floors[folder]
			if !known {
				list = append(list, file+" is in none of the folders that packages are in")
				continue
			}
			for _, imported := range files[file] {
				name, ours := strings.CutPrefix(imported, modulePath+"/")
				to, _, _ := strings.Cut(name, "/")
				upwards := ours && to != folder && floors[to] >= floor
				onWire := slices.Contains(wireless, folder) && slices.ContainsFunc(wired, func(w string) bool { return within(imported, w) })
				linked := slices.ContainsFunc(clients, func(c string) bool { return within(imported, c) }) && !slices.Contains(clientsIn, dir) ||
					ours && slices.Contains(clientsIn, name) && !slices.Contains(linkers, dir) && name != dir
				if upwards || onWire || linked {
					list = append(list, file+" imports "+name)
				}
			}
		}
	}
	return list
}

// tooLarge returns the packages that have more lines than they should, and no reason.
func tooLarge(packages map[string]*packageFiles) (list []string) {
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		if p := packages[dir]; p.lines > maxPackageLines && !strings.Contains(p.doc, reasonForSize) {
			list = append(list, fmt.Sprintf("%s has %d lines", dir, p.lines))
		}
	}
	return list
}
