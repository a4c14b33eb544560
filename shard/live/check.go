package live

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// ErrEvent is the class of every error that says that an event breaks a rule. Nothing of
// what it was appended with was written.
var ErrEvent = errors.New("the event is not valid")

// EventError says what is wrong with an event. Its class is [ErrEvent].
type EventError struct {
	Field string // such as "vector", by its name in the contract
	Err   error  // with the value, and what is accepted
	// Index is which of the events that were appended together it is.
	Index int
}

func (e *EventError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns the class, and what is wrong.
func (e *EventError) Unwrap() []error { return []error{ErrEvent, e.Err} }

func wrong(field, format string, arguments ...any) error {
	return &EventError{Field: field, Err: fmt.Errorf(format, arguments...)}
}

var kindNames = [...]string{
	Takedown: "takedown", Restore: "restore", Upsert: "upsert", SetAttributes: "set_attributes",
	Remove: "remove", Forget: "forget_user", Settle: "settle", Moot: "moot",
}

// String returns the name that the contract has for it.
func (k Kind) String() string {
	if k >= Takedown && k <= Moot {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Check returns an [*EventError] that says what of an event no snapshot could take: it is as
// strict as a build is with its inputs. Whether it fits a snapshot is another matter. An
// event without an ID, a time or an author may be right.
func (e *Event) Check() error {
	_, err := e.check()
	return err
}

// check returns what the event changes, encoded.
func (e *Event) check() ([]byte, error) {
	if e.Kind == Moot { // which the log makes of others
		return nil, wrong("kind", "%d; accepted: 1 to %d", e.Kind, Settle)
	}
	if err := e.checkFields(); err != nil {
		return nil, err
	}
	change, err := e.encode()
	if err != nil {
		return nil, wrong("event", "%w", err)
	}
	if n := len(change) + len(e.ID) + len(e.Author); n > MaxEvent {
		return nil, wrong("event", "it has %d bytes, encoded; accepted: up to %d", n, MaxEvent)
	}
	return change, nil
}

func (e *Event) checkFields() error {
	if e.Kind < Takedown || e.Kind > Moot {
		return wrong("kind", "%d; accepted: 1 to %d", e.Kind, Settle)
	}
	if err := e.checkNames(); err != nil {
		return err
	}
	if err := e.checkUnused(); err != nil {
		return err
	}
	switch e.Kind {
	case Upsert:
		if err := e.checkUpsert(); err != nil {
			return err
		}
	case SetAttributes:
		if len(e.Attributes) == 0 && e.Window == nil {
			return wrong("attributes", "there are none, and no window; accepted: at least one of them")
		}
	case Settle:
		if e.Through == 0 {
			return wrong("through", "0; accepted: the number of an entry")
		}
		if (e.Model == "") != (e.ModelVersion == "") {
			return wrong("model_version", "model is %.80q and model_version %.80q; accepted: both, or neither", e.Model, e.ModelVersion)
		}
	}
	if err := e.checkAttributes(); err != nil {
		return err
	}
	return e.checkWindow()
}

// checkNames checks what events of any kind have.
func (e *Event) checkNames() error {
	if n := len(e.ID); n > MaxEventID {
		return wrong("event_id", "it has %d bytes; accepted: 1 to %d", n, MaxEventID)
	}
	if !utf8.ValidString(e.ID) {
		return wrong("event_id", "%.80q is not UTF-8", e.ID)
	}
	for _, c := range e.ID {
		if !unicode.IsPrint(c) {
			return wrong("event_id", "%.80q has the character %U; accepted: those that can be printed", e.ID, c)
		}
	}
	if n := len(e.Author); n > MaxAuthor {
		return wrong("author", "it has %d bytes; accepted: up to %d", n, MaxAuthor)
	}
	if !utf8.ValidString(e.Author) {
		return wrong("author", "%.80q is not UTF-8", e.Author)
	}
	field, towers := "id", []shard.Kind{shard.Apps, shard.Users}
	switch e.Kind {
	case Takedown, Restore:
		field, towers = "app", towers[:1]
	case Forget:
		field, towers = "user", towers[1:]
		if e.Entity == "" && e.User != (UserHash{}) {
			return nil // as a log has it
		}
	case Settle, Moot:
		if e.Tower != "" || e.Entity != "" {
			return wrong("id", "%s has neither tower nor id", e.Kind)
		}
		return nil
	}
	if !slices.Contains(towers, e.Tower) {
		return wrong("tower", "%.80q; accepted for %s: %q", e.Tower, e.Kind, towers)
	}
	if err := shard.CheckID(e.Entity); err != nil {
		return wrong(field, "%w", err)
	}
	return nil
}

// checkUnused checks that what an event of its kind does not have is not there, and the
// reason of one that may have it.
func (e *Event) checkUnused() error {
	reasoned := e.Kind == Takedown || e.Kind == Restore || e.Kind == Remove
	switch {
	case e.Kind == Takedown && e.Reason == "":
		return wrong("reason", "it is empty; accepted: 1 to %d bytes", MaxReason)
	case len(e.Reason) > MaxReason:
		return wrong("reason", "it has %d bytes; accepted: up to %d", len(e.Reason), MaxReason)
	case !utf8.ValidString(e.Reason):
		return wrong("reason", "%.80q is not UTF-8", e.Reason)
	case e.Reason != "" && !reasoned:
		return wrong("reason", "%s has none", e.Kind)
	case e.Kind != Upsert && e.Kind != Settle && (e.Model != "" || e.ModelVersion != ""):
		return wrong("model_version", "%s has none", e.Kind)
	case e.Kind != Upsert && len(e.Vector) > 0:
		return wrong("vector", "%s has none", e.Kind)
	case e.Kind != Upsert && e.Kind != SetAttributes && len(e.Attributes) > 0:
		return wrong("attributes", "%s has none", e.Kind)
	case e.Kind != Upsert && e.Kind != SetAttributes && e.Window != nil:
		return wrong("window", "%s has none", e.Kind)
	case e.Kind != Forget && e.User != (UserHash{}):
		return wrong("user", "%s has no hash of one", e.Kind)
	case e.Kind != Forget && e.Key != (UserHash{}):
		return wrong("user", "%s has no key of one", e.Kind)
	case e.Kind != Moot && e.Original != 0:
		return wrong("event", "%s stands for no other", e.Kind)
	case e.Kind != Settle && e.Through != 0:
		return wrong("through", "%s has none", e.Kind)
	}
	return nil
}

func (e *Event) checkUpsert() error {
	for _, name := range []struct{ field, value string }{{"model", e.Model}, {"model_version", e.ModelVersion}} {
		switch {
		case len(name.value) < 1 || len(name.value) > MaxModel:
			return wrong(name.field, "it has %d bytes; accepted: 1 to %d", len(name.value), MaxModel)
		case !utf8.ValidString(name.value):
			return wrong(name.field, "%.80q is not UTF-8", name.value)
		}
	}
	if n := len(e.Vector); n < 1 || n > MaxDim {
		return wrong("vector", "it has %d numbers; accepted: 1 to %d", n, MaxDim)
	}
	if err := index.Dot.CheckVector(e.Vector); err != nil {
		return wrong("vector", "%w", err)
	}
	return nil
}

func (e *Event) checkAttributes() error { return e.checkAttributesOf(MaxValues) }

func (e *Event) checkAttributesOf(most int) error {
	if n := len(e.Attributes); n > most {
		return wrong("attributes", "there are %d; accepted: up to %d", n, most)
	}
	for name, value := range e.Attributes {
		typ := value.Type()
		if value.Absent() {
			typ = attribute.Bool // any: the name is what counts
		}
		field := attribute.Field{Name: name, Type: typ}
		if _, err := attribute.NewSchema([]attribute.Field{field}); err != nil {
			return wrong("attributes", "%w", err)
		}
		if err := field.Check(value); err != nil {
			return wrong("attributes", "%w", err)
		}
	}
	return nil
}

func (e *Event) checkWindow() error {
	w := e.Window
	if w == nil {
		return nil
	}
	if e.Tower != shard.Apps {
		return wrong("window", "a user has none")
	}
	for _, bound := range []struct {
		name string
		at   time.Time
	}{{"window.from", w.From}, {"window.until", w.Until}} {
		if !bound.at.IsZero() && !bound.at.Equal(attribute.ClampTime(bound.at)) {
			return wrong(bound.name, "%s; accepted: a time of the years 1 to 9999", bound.at)
		}
	}
	if !w.From.IsZero() && !w.Until.IsZero() && !w.From.Before(w.Until) {
		return wrong("window", "it is from %s until %s; accepted: until after from",
			w.From.UTC().Format(time.RFC3339Nano), w.Until.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// Content returns a hash of what an event changes, by which a log tells whether two of one id
// are the same, and the error of [Event.Check].
func (e *Event) Content() (uint64, error) {
	change, err := e.check()
	if err == nil && e.Kind == Forget {
		change = append(change, e.Entity...) // a log has a hash in its place
	}
	return contentHash(change), err
}
