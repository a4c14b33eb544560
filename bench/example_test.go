package bench

import (
	"context"
	"fmt"
)

func ExampleRun() {
	report, err := Run(context.Background(), threeShards, Options{K: []int{10}, Queries: 200})
	if err != nil {
		panic(err)
	}
	for _, r := range report.Results {
		if r.Default {
			fmt.Printf("recall@%d at the default target is above 0.98: %v\n", r.K, r.Recall > 0.98)
		}
	}
	// Output: recall@10 at the default target is above 0.98: true
}
