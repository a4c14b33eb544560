package synthetic_test

import (
	"context"
	"fmt"
	"os"

	"github.com/tandem-ann/tandem/builder/synthetic"
)

func ExampleWrite() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	o := synthetic.Options{Apps: 1000, Users: 100, Dim: 16, Seed: 1, Interactions: 5}
	if err := synthetic.Write(context.Background(), dir, o, nil); err != nil {
		panic(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		panic(err)
	}
	for _, f := range files {
		fmt.Println(f.Name())
	}
	// Output:
	// apps.parquet
	// interactions.parquet
	// users.parquet
}
