package members

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// maxSlices bounds what a list of JSON may have, as the API bounds the endpoints of a slice.
const maxSlices = 1000

// few is a list of JSON that has not more than maxSlices elements.
type few[T any] []T

// UnmarshalJSON implements [json.Unmarshaler]. It stops before a long list takes memory.
func (f *few[T]) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	*f = nil
	switch open, err := d.Token(); {
	case err != nil:
		return err
	case open == nil:
		return nil
	case open != json.Delim('['):
		return errors.New("there is no list where one should be")
	}
	for d.More() {
		if len(*f) == maxSlices {
			return fmt.Errorf("a list has more than %d elements", maxSlices)
		}
		var value T
		if err := d.Decode(&value); err != nil {
			return err
		}
		*f = append(*f, value)
	}
	return nil
}

// sliceList is a list of EndpointSlices of discovery.k8s.io/v1.
type sliceList struct {
	Metadata metadata   `json:"metadata"`
	Items    few[slice] `json:"items"`
}

// metadata is that of an object, or of a list.
type metadata struct {
	Name            string `json:"name"`
	ResourceVersion string `json:"resourceVersion"`
	Continue        string `json:"continue"`
}

// slice is an EndpointSlice. What may be null is a pointer.
type slice struct {
	Metadata    metadata      `json:"metadata"`
	AddressType string        `json:"addressType"`
	Endpoints   few[endpoint] `json:"endpoints"`
	Ports       few[port]     `json:"ports"`
}

type endpoint struct {
	Addresses  few[string] `json:"addresses"`
	Conditions struct {
		Ready       *bool `json:"ready"`
		Serving     *bool `json:"serving"`
		Terminating *bool `json:"terminating"`
	} `json:"conditions"`
	Hostname  string `json:"hostname"`
	TargetRef *struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"targetRef"`
	Zone string `json:"zone"`
}

type port struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Port     *int   `json:"port"`
}

// condition returns what an endpoint is, by what the API says that is left out.
func (e *endpoint) condition() Condition {
	is := func(value *bool, otherwise bool) bool {
		if value == nil {
			return otherwise
		}
		return *value
	}
	c := e.Conditions
	return Condition{Ready: is(c.Ready, true), Serving: is(c.Serving, true), Terminating: is(c.Terminating, false)}
}

// member returns the node that an endpoint of a slice with these ports is.
func (e *endpoint) member(ports []port, portName string) (m Member, err error) {
	if len(e.Addresses) == 0 {
		return m, errors.New("it has no address")
	}
	number, err := portNumber(ports, portName)
	if err != nil {
		return m, err
	}
	// All its addresses are as good, and the first is the one to take, by the API.
	if m.Address, err = canonicalAddress(net.JoinHostPort(e.Addresses[0], number)); err != nil {
		return m, err
	}
	switch {
	case e.TargetRef != nil && e.TargetRef.Kind == "Pod" && e.TargetRef.Name != "":
		m.Name = e.TargetRef.Name
	case e.Hostname != "":
		m.Name = e.Hostname
	default:
		m.Name = m.Address
	}
	if !isName(m.Name) || !isName(e.Zone) {
		return m, fmt.Errorf("its name %.100q or its zone %.100q are no visible characters, up to %d", m.Name, e.Zone, maxName)
	}
	m.Zone, m.Condition = e.Zone, e.condition()
	return m, nil
}

// portNumber returns the number of a port of TCP, as text.
func portNumber(ports []port, name string) (string, error) {
	for _, p := range ports {
		if p.Name == name && p.Port != nil && (p.Protocol == "TCP" || p.Protocol == "") {
			return strconv.Itoa(*p.Port), nil
		}
	}
	names := make([]string, len(ports))
	for i, p := range ports {
		names[i] = p.Name
	}
	return "", fmt.Errorf("there is no number of a TCP port named %s; the ports of the slice are %.200q", name, fmt.Sprint(names))
}

// merge returns the members that slices have, each once, and what cannot be used of them.
// A node may be in several: on its way from one to another, and by each of its families of
// addresses, of which IPv4 comes first, whatever its condition, so that addresses do not change
// back and forth. Then what is ready, serves and stays comes first.
func merge(all map[string]*slice, portName string) (list []Member, partly error) {
	byName := map[string]Member{}
	lost := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for i, e := range all[name].Endpoints {
			m, err := e.member(all[name].Ports, portName)
			if err != nil {
				if lost++; partly == nil {
					partly = fmt.Errorf("slice %.100q: endpoint %d: %w", name, i, err)
				}
				continue
			}
			if known, ok := byName[m.Name]; !ok || rank(m) > rank(known) {
				byName[m.Name] = m
			}
		}
	}
	if partly != nil {
		partly = fmt.Errorf("endpoints that cannot be used: %d, the first: %w", lost, partly)
	}
	return slices.Collect(maps.Values(byName)), partly
}

// rank is higher for what is to be taken of two of one name.
func rank(m Member) (r int) {
	host, _, _ := net.SplitHostPort(m.Address)
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		r += 8
	}
	if m.Ready {
		r += 4
	}
	if m.Serving {
		r += 2
	}
	if !m.Terminating {
		r++
	}
	return r
}
