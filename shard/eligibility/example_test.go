package eligibility_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

func Example() {
	schema, err := attribute.NewSchema([]attribute.Field{
		{Name: "min_age", Type: attribute.Int},
		{Name: "platforms", Type: attribute.KeywordList},
	})
	check(err)
	table, closeTable := openShard(schema, []app{
		{minAge: 18, platforms: []string{"linux", "windows"}},
		{minAge: 7, platforms: []string{"linux"}},
		{minAge: 7, platforms: []string{"windows"}},
	})
	defer closeTable()

	// Once for all queries with this text, for one user, for each shard.
	compiler, err := eligibility.NewCompiler(schema)
	check(err)
	filter, err := compiler.Compile(`"linux" in platforms && min_age <= user.age`)
	check(err)
	bound, err := filter.Bind(context.Background(), map[string]any{"age": 16.0})
	check(err)
	eligible := index.NewBitset(table.Rows())
	n, err := bound.Eval(context.Background(), table, eligible)
	check(err)
	fmt.Println(n, "eligible:", eligible.Append(nil))

	_, err = compiler.Compile(`min_age < "x"`)
	fmt.Println(err)
	_, err = filter.Bind(context.Background(), nil)
	fmt.Println(err)
	// Output:
	// 1 eligible: [1]
	// filter: line 1, column 9: operator < does not take attribute min_age (int) and string "x": it compares numbers with numbers, strings with strings and timestamp("...") with timestamps
	// filter: binding user.age: the filter uses it and the query does not bind it
}

type app struct {
	minAge    int64
	platforms []string
}

// openShard writes apps as a shard file and opens their attributes.
func openShard(schema attribute.Schema, apps []app) (*attribute.Table, func()) {
	dir, err := os.MkdirTemp("", "example")
	check(err)
	w := attribute.NewWriter(schema, len(apps))
	minAge, _ := schema.Lookup("min_age")
	platforms, _ := schema.Lookup("platforms")
	order := make([]uint32, len(apps))
	for row, a := range apps {
		check(w.Set(row, minAge, attribute.OfInt(a.minAge)))
		check(w.Set(row, platforms, attribute.OfKeywords(a.platforms)))
		order[row] = uint32(row)
	}
	path := filepath.Join(dir, "apps-0000")
	out, err := sections.Create(path)
	check(err)
	check(w.Write(out, order))
	check(out.Commit())
	f, err := sections.Open(path)
	check(err)
	table, err := attribute.OpenTable(f, len(apps))
	check(err)
	return table, func() {
		check(f.Close())
		check(os.RemoveAll(dir))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
