package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/tandem-ann/tandem/api/client"
	"github.com/tandem-ann/tandem/api/client/clienttest"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// rank stands for what a ranker does with candidates.
func rank(string, []*tandemv1.Candidate) { ranked++ }

var ranked, popular int

// A ranker asks for 100 users at once, with a deadline, and knows what to do where there is no answer.
func Example() {
	tandem := startTandem() // or the address of yours
	defer tandem.Close()

	c, err := client.New(client.Addresses(tandem.URL), client.WithDeadline(10*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	batch := make([]*tandemv1.RetrieveRequest, 100)
	for i := range batch {
		batch[i] = &tandemv1.RetrieveRequest{UserId: fmt.Sprintf("user-%03d", i), K: 10}
	}
	results, err := c.BatchRetrieve(context.Background(), batch)
	if e, ok := errors.AsType[*client.Error](err); ok {
		log.Fatalf("no candidates, temporary: %v, retry after %s: %v", e.Temporary(), e.RetryAfter, e)
	}
	for i, r := range results {
		e, failed := errors.AsType[*client.Error](r.Err)
		switch {
		case !failed:
			rank(batch[i].UserId, r.Response.Candidates)
		case e.Reason == client.EntityUnknown: // a new user
			popular++
		case e.Mistake(): // ours: the fields say where
			log.Fatalf("%s: %v: %v", batch[i].UserId, e.Fields, e)
		default: // temporary, or a failure of the server: this user is for the next time
			fmt.Println(batch[i].UserId, e.Reason)
		}
	}
	fmt.Println(ranked, "ranked,", popular, "popular")
	// Output: 90 ranked, 10 popular
}

// startTandem returns a server of 50 apps and of all users but the last ten.
func startTandem() *httptest.Server {
	var apps, users []clienttest.Row
	for i := range 90 {
		v := []float32{float32(i), 1}
		users = append(users, clienttest.Row{ID: fmt.Sprintf("user-%03d", i), Vector: v})
		if i < 50 {
			apps = append(apps, clienttest.Row{ID: fmt.Sprintf("app-%03d", i), Vector: v})
		}
	}
	s, err := clienttest.New(apps, users)
	if err != nil {
		log.Fatal(err)
	}
	return httptest.NewServer(s)
}
