// Command typecheck says whether packages, their tests and all that they import are right as far
// as types go, for the GOOS and GOARCH of its environment. It generates no code, which is nearly
// all that a build for another kind of CPU takes.
package main

import (
	"fmt"
	"os"

	"golang.org/x/tools/go/packages"
)

func main() {
	const needed = packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedEmbedFiles |
		packages.NeedImports | packages.NeedDeps | packages.NeedTypes | packages.NeedTypesSizes | packages.NeedSyntax
	found, err := packages.Load(&packages.Config{Mode: needed, Tests: true}, os.Args[1:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "typecheck:", err)
		os.Exit(1)
	}
	if len(found) == 0 {
		fmt.Fprintln(os.Stderr, "typecheck: no packages match", os.Args[1:])
		os.Exit(1)
	}
	if packages.PrintErrors(found) > 0 {
		os.Exit(1)
	}
	files := 0
	packages.Visit(found, nil, func(p *packages.Package) { files += len(p.Syntax) })
	fmt.Println(len(found), "packages and tests,", files, "files with those that they import")
}
