package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
)

// maxWritten is how many apps or users one command names: as many events as a server takes
// at a time.
const maxWritten = 1000

type liveTakedownCommand struct {
	eventFlags
	Reason string   `required:"" placeholder:"TEXT" help:"Why, for those who read it later."`
	Apps   []string `arg:"" name:"app" help:"Ids of the apps. A snapshot need not have them."`
}

func (liveTakedownCommand) Help() string {
	return `Returns once that is durable. Servers that follow the store know it within about a second, whichever snapshot they serve or will serve, and one that cannot tell whether it knows it refuses to answer once that is so for longer than its --live-fence. With --wait it returns when the servers named know it, or exits with 1 and says which do not; the apps are taken down all the same.

Examples:

    tandem live takedown --store store --reason malware app-0000042 --server 127.0.0.1:8080 --wait 10s

    tandem live takedown --server 127.0.0.1:8080 --reason malware app-0000042`
}

func (c *liveTakedownCommand) Run(e *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := checkReason(c.Reason, true); err != nil {
		return err
	}
	return forApps(c.Apps, func(app string) *tandemv1.LiveEvent {
		return &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Takedown{Takedown: &tandemv1.Takedown{App: app, Reason: c.Reason}}}
	}, e, &c.eventFlags)
}

// forApps writes an event for each of some apps.
func forApps(apps []string, event func(app string) *tandemv1.LiveEvent, e *environment, f *eventFlags) error {
	if err := checkNamed("app", apps); err != nil {
		return err
	}
	events := make([]*tandemv1.LiveEvent, len(apps))
	for i, app := range apps {
		events[i] = event(app)
	}
	return f.run(e, events...)
}

// checkNamed returns an error unless ids that are named can be those of apps or users.
func checkNamed(what string, ids []string) error {
	if len(ids) > maxWritten {
		return usagef("%d ids of %ss; accepted: up to %d at a time, or a file of events, see tandem live import --help", len(ids), what, maxWritten)
	}
	named := make(map[string]bool, len(ids))
	for _, id := range ids {
		if err := shard.CheckID(id); err != nil {
			return usagef("%s: %w", what, err)
		}
		if named[id] {
			return usagef("%s %q is named twice", what, id)
		}
		named[id] = true
	}
	return nil
}

// checkReason returns an error unless a text is one that an event may have as its reason.
func checkReason(text string, required bool) error {
	switch n := len(text); {
	case required && strings.TrimSpace(text) == "":
		return usagef("--reason is %q; accepted: why, in 1 to %d bytes", text, live.MaxReason)
	case n > live.MaxReason:
		return usagef("--reason has %d bytes; accepted: up to %d", n, live.MaxReason)
	}
	return checkLine("--reason", text)
}

type liveRestoreCommand struct {
	eventFlags
	Reason string   `placeholder:"TEXT" help:"Why, for those who read it later."`
	Apps   []string `arg:"" name:"app" help:"Ids of the apps."`
}

func (liveRestoreCommand) Help() string {
	return `The apps are returned again where snapshots have them, or something that was upserted. It is no error if they are not taken down.

Example:

    tandem live restore --store store --reason "a false alarm" app-0000042`
}

func (c *liveRestoreCommand) Run(e *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := checkReason(c.Reason, false); err != nil {
		return err
	}
	return forApps(c.Apps, func(app string) *tandemv1.LiveEvent {
		return &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Restore{Restore: &tandemv1.Restore{App: app, Reason: c.Reason}}}
	}, e, &c.eventFlags)
}

// oneFlags name one app or one user.
type oneFlags struct {
	App  string `required:"" xor:"of" placeholder:"ID" help:"The app."`
	User string `required:"" xor:"of" placeholder:"ID" help:"The user."`
}

// of returns which it is.
func (f *oneFlags) of() (tower tandemv1.Tower, id string, err error) {
	if tower, id = tandemv1.Tower_TOWER_APPS, f.App; f.App == "" {
		tower, id = tandemv1.Tower_TOWER_USERS, f.User
	}
	if err := shard.CheckID(id); err != nil {
		return tower, id, usagef("--app or --user: %w", err)
	}
	return tower, id, nil
}

// windowFlags say when an app may be returned.
type windowFlags struct {
	From    string `placeholder:"TIME" help:"First moment at which the app may be returned, such as 2026-11-25 (in UTC) or 2026-11-25T08:00:00+01:00."`
	Until   string `placeholder:"TIME" help:"First moment at which it may not be any more."`
	AnyTime bool   `help:"It may be returned at any time: what was said by --from and --until before counts no more."`
}

// window returns what is said, nil if nothing is.
func (f *windowFlags) window(tower tandemv1.Tower) (*tandemv1.Window, error) {
	w := &tandemv1.Window{}
	var err error
	if w.From, err = moment("--from", f.From); err != nil {
		return nil, err
	}
	if w.Until, err = moment("--until", f.Until); err != nil {
		return nil, err
	}
	switch bounded := w.From != nil || w.Until != nil; {
	case bounded && f.AnyTime:
		return nil, usagef("--any-time does not go with --from and --until")
	case !bounded && !f.AnyTime:
		return nil, nil
	case tower != tandemv1.Tower_TOWER_APPS:
		return nil, usagef("--from, --until and --any-time go with --app: users have no time")
	case w.From != nil && w.Until != nil && !w.From.AsTime().Before(w.Until.AsTime()):
		return nil, usagef("--from is %s and --until %s; accepted: an earlier one and a later one", f.From, f.Until)
	}
	return w, nil
}

// moment reads a time, nil if there is none.
func moment(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil && at.Equal(attribute.ClampTime(at)) {
			return timestamppb.New(at), nil
		}
	}
	return nil, usagef("%s is %.200q; accepted: 2026-11-25, in UTC, or 2026-11-25T08:15:00Z, of the years 1 to 9999", flag, text)
}

type liveUpsertCommand struct {
	eventFlags
	oneFlags
	Model        string   `placeholder:"NAME" help:"Model that computed the vector (default the one that is released)."`
	ModelVersion string   `required:"" placeholder:"VERSION" help:"Version of the model. It need not serve yet."`
	Vector       string   `required:"" xor:"vector" placeholder:"CSV|@FILE" help:"The embedding: numbers, or the JSON array of numbers in a file. A leading minus needs the equals sign: --vector=-1,2."`
	VectorFile   string   `required:"" xor:"vector" placeholder:"FILE" help:"File with the embedding as a JSON array of numbers; - is standard input."`
	Attribute    []string `sep:"none" placeholder:"NAME=VALUE" help:"An attribute: a number, true or false, a JSON list of strings, a time such as 2026-11-25T08:15:00Z, or any other text, which is a keyword; in double quotes it is one whatever it looks like. May be repeated."`
	windowFlags
}

func (liveUpsertCommand) Help() string {
	return `The app or user is whole: attributes that are not given it does not have. It counts in snapshots of that model version, until one that was built from newer inputs has it; for a version that nothing serves it is kept for the snapshot that will. An app that is taken down stays so.

Example:

    tandem live upsert --store store --app app-new --model-version 2026-11-22 --vector @app-new.json \
        --attribute platforms='["ios"]' --attribute min_age=12 --attribute name="Lucky Summit"`
}

func (c *liveUpsertCommand) Run(e *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	tower, id, err := c.of()
	if err != nil {
		return err
	}
	u := &tandemv1.Upsert{Tower: tower, Id: id, Model: c.Model, ModelVersion: c.ModelVersion}
	if err := shard.CheckID(c.ModelVersion); err != nil {
		return usagef("--model-version: %w", err)
	}
	if u.Vector, err = c.vector(); err != nil {
		return err
	}
	if u.Attributes, err = attributeFlags(c.Attribute); err != nil {
		return err
	}
	if u.Window, err = c.window(tower); err != nil {
		return err
	}
	return c.run(e, &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Upsert{Upsert: u}})
}

// vector reads the embedding.
func (c *liveUpsertCommand) vector() ([]float32, error) {
	if c.VectorFile == "" {
		return parseVector(c.Vector)
	}
	if c.VectorFile != "-" {
		return parseVector("@" + c.VectorFile)
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, fmt.Errorf("--vector-file: read standard input: %w", err)
	}
	var v []float32
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, usagef("--vector-file: standard input: want a JSON array of numbers: %w", err)
	}
	return v, nil
}

// attributeFlags reads NAME=VALUE flags.
func attributeFlags(flags []string) (map[string]*tandemv1.AttributeValue, error) {
	if len(flags) == 0 {
		return nil, nil
	}
	values := make(map[string]*tandemv1.AttributeValue, len(flags))
	for _, flag := range flags {
		name, text, ok := strings.Cut(flag, "=")
		if !ok || name == "" {
			return nil, usagef("--attribute is %.200q, want NAME=VALUE", flag)
		}
		if _, twice := values[name]; twice {
			return nil, usagef("--attribute names %.200s twice", name)
		}
		v, err := attributeOf(text)
		if err != nil {
			return nil, usagef("--attribute %.200s: %w", name, err)
		}
		values[name] = wire.AttributeValue(v)
	}
	return values, nil
}

// attributeOf returns the value that a text means.
func attributeOf(text string) (attribute.Value, error) {
	if text == "" {
		return attribute.Value{}, fmt.Errorf("there is no value; accepted: one, or for a keyword without a letter \"\"")
	}
	parsed, err := decodeBinding(text)
	if err != nil { // no JSON
		if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
			return attribute.OfTimestamp(at), nil
		}
		return attribute.OfKeyword(text), nil
	}
	if parsed, err = numbers(parsed); err != nil {
		return attribute.Value{}, err
	}
	switch v := parsed.(type) {
	case string:
		return attribute.OfKeyword(v), nil
	case bool:
		return attribute.OfBool(v), nil
	case int64:
		return attribute.OfInt(v), nil
	case float64:
		return attribute.OfFloat(v), nil
	case []any:
		list := make([]string, len(v))
		for i, item := range v {
			s, ok := item.(string)
			if !ok {
				return attribute.Value{}, fmt.Errorf("item %d of %.200s is no string; accepted: a list of strings", i+1, text)
			}
			list[i] = s
		}
		if len(list) == 0 {
			return attribute.Value{}, fmt.Errorf("the list is empty; accepted: at least one string, or no such attribute")
		}
		return attribute.OfKeywords(list), nil
	}
	return attribute.Value{}, fmt.Errorf("%.200s; accepted: a number, true, false, a list of strings, a time, or a text", text)
}

type liveSetCommand struct {
	eventFlags
	oneFlags
	Attribute []string `sep:"none" placeholder:"NAME=VALUE" help:"An attribute to set, as for tandem live upsert. Others stay as they are. May be repeated."`
	Clear     []string `sep:"none" placeholder:"NAME" help:"An attribute that it shall not have any more. May be repeated."`
	windowFlags
}

func (liveSetCommand) Help() string {
	return `It counts in every snapshot that was built from older inputs, whatever its model version, and in what was upserted before. A value that the attribute of a snapshot which serves cannot have is refused.

Examples:

    tandem live set --store store --app app-0000042 --attribute min_age=17

    tandem live set --store store --app daily-1125 --from 2026-11-25 --until 2026-11-26`
}

func (c *liveSetCommand) Run(e *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	tower, id, err := c.of()
	if err != nil {
		return err
	}
	s := &tandemv1.SetAttributes{Tower: tower, Id: id, Clear: c.Clear}
	if s.Attributes, err = attributeFlags(c.Attribute); err != nil {
		return err
	}
	cleared := map[string]bool{}
	for _, name := range c.Clear {
		if _, set := s.Attributes[name]; set || cleared[name] || name == "" {
			return usagef("--clear is %.200q; accepted: an attribute that no other flag names", name)
		}
		cleared[name] = true
	}
	if s.Window, err = c.window(tower); err != nil {
		return err
	}
	if len(s.Attributes)+len(s.Clear) == 0 && s.Window == nil {
		return usagef("missing flags: --attribute=NAME=VALUE, --clear=NAME, --from=TIME, --until=TIME or --any-time: what changes")
	}
	return c.run(e, &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_SetAttributes{SetAttributes: s}})
}

type liveRemoveCommand struct {
	eventFlags
	App    []string `sep:"none" placeholder:"ID" help:"An app. May be repeated."`
	User   []string `sep:"none" placeholder:"ID" help:"A user. May be repeated."`
	Reason string   `placeholder:"TEXT" help:"Why, for those who read it later."`
}

func (liveRemoveCommand) Help() string {
	return `They are no more in snapshots that were built from older inputs, nor what was upserted or set of them. Unlike a takedown that ends when they are upserted again, or a build has them. Of a user who is to be forgotten, tandem forget leaves less.

Example:

    tandem live remove --store store --app app-0000042 --reason "its developer withdrew it"`
}

func (c *liveRemoveCommand) Run(e *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := checkReason(c.Reason, false); err != nil {
		return err
	}
	if len(c.App)+len(c.User) == 0 {
		return usagef("missing flags: --app=ID or --user=ID: what is removed")
	}
	if n := len(c.App) + len(c.User); n > maxWritten {
		return usagef("%d apps and users; accepted: up to %d at a time, or a file of events, see tandem live import --help", n, maxWritten)
	}
	var events []*tandemv1.LiveEvent
	for _, of := range []struct {
		what  string
		tower tandemv1.Tower
		ids   []string
	}{{"app", tandemv1.Tower_TOWER_APPS, c.App}, {"user", tandemv1.Tower_TOWER_USERS, c.User}} {
		if err := checkNamed(of.what, of.ids); err != nil {
			return err
		}
		for _, id := range of.ids {
			r := &tandemv1.Remove{Tower: of.tower, Id: id, Reason: c.Reason}
			events = append(events, &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Remove{Remove: r}})
		}
	}
	return c.run(e, events...)
}
