package members_test

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/server/members"
)

// A source is parsed from what a flag has, and told of until it is no longer of use.
func ExampleParse() {
	source, err := members.Parse("node-1:7070,node-0:7070", members.Cluster{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	source.Watch(ctx, func(m members.Members) {
		for _, one := range m.List {
			fmt.Println(one.Name, one.Address, one.Ready)
		}
		cancel()
	})
	// Output:
	// node-0:7070 node-0:7070 true
	// node-1:7070 node-1:7070 true
}
