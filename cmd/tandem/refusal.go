package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/release"
)

// maxServerText is how much of what a server says of an error is told: whatever is at its address
// may say anything.
const maxServerText = 8 << 10

// bounded returns what a server says of an error, cut if it is far too long.
func bounded(text string) string {
	if len(text) <= maxServerText {
		return text
	}
	return shortened(text, maxServerText) + " ..."
}

// refusal is the error of a server's answer, for people: what is wrong, and below it what
// the server says for programs, and to those who look into its log.
type refusal struct {
	err   *connect.Error
	notes []note
}

// note is one thing that an answer says of its error.
type note struct{ name, text string }

// Error implements [error].
func (r *refusal) Error() string {
	text := r.err.Code().String() + ": " + bounded(r.err.Message())
	for _, n := range r.notes {
		text += fmt.Sprintf("\n  %-9s %s", n.name, n.text)
	}
	return text
}

// inLine returns what an answer says beside its text, for the end of the same line.
func (r *refusal) inLine() string {
	if len(r.notes) == 0 {
		return ""
	}
	texts := make([]string, len(r.notes))
	for i, n := range r.notes {
		texts[i] = n.name + " " + n.text
	}
	return " (" + strings.Join(texts, "; ") + ")"
}

// Unwrap returns what the client returned.
func (r *refusal) Unwrap() error { return r.err }

// refusalOf returns the refusal in an error of a client, nil if there is none.
func refusalOf(err error) *refusal {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	r := &refusal{err: coded}
	add := func(name, text string) {
		if text != "" {
			r.notes = append(r.notes, note{name, release.Escape(bounded(text))})
		}
	}
	retry := ""
	for _, d := range coded.Details() {
		m, err := d.Value()
		if err != nil {
			continue // a later server may send what we do not know
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			add("reason", m.Reason)
		case *errdetails.BadRequest:
			add("fields", strings.Join(fieldsOf(m), ", "))
		case *errdetails.ResourceInfo:
			add("missing", fmt.Sprintf("%s %q", m.ResourceType, m.ResourceName))
		case *errdetails.RetryInfo:
			retry = "in " + m.GetRetryDelay().AsDuration().String()
		}
	}
	if seconds := coded.Meta().Get("Retry-After"); retry == "" && seconds != "" {
		retry = "after " + seconds + " s" // or a date, of a proxy
		if _, err := http.ParseTime(seconds); err == nil {
			retry = "after " + seconds
		}
	}
	add("retry", retry)
	add("request", coded.Meta().Get(server.RequestIDHeader))
	return r
}

// fieldsOf returns the paths of the fields that are wrong.
func fieldsOf(m *errdetails.BadRequest) []string {
	var paths []string
	for _, v := range m.GetFieldViolations() {
		if v.Field != "" && !slices.Contains(paths, v.Field) {
			paths = append(paths, v.Field)
		}
	}
	return paths
}
