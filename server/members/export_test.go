package members

import (
	"context"
	"encoding/json"
	"net"
)

// Resolver is what is asked for names.
type Resolver = resolver

// SetResolver has a source of DNS ask another resolver.
func SetResolver(s Source, r Resolver) { s.(*dns).resolver = r }

// SetDial has a source of Kubernetes make connections in another way.
func SetDial(s Source, dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	s.(*kube).dial = dial
}

// MergeJSON returns the members of a list of slices as the API sends it.
func MergeJSON(data []byte, port string) ([]Member, error) {
	var list sliceList
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	all := map[string]*slice{}
	for i := range list.Items {
		all[list.Items[i].Metadata.Name] = &list.Items[i]
	}
	return merge(all, port)
}

// CanonicalAddress returns an address in its one form.
func CanonicalAddress(text string) (string, error) { return canonicalAddress(text) }
