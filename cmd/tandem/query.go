package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/wording"
)

type queryCommand struct {
	clientFlags
	Server string `default:"127.0.0.1:8080" variable:"TANDEM_SERVER" placeholder:"HOST:PORT" help:"Server to ask, by its address or its URL (default ${default})."`

	User   string   `required:"" xor:"query" placeholder:"ID" help:"Ask with the vector of this user."`
	App    string   `required:"" xor:"query" placeholder:"ID" help:"Ask with the vector of this app: more like this."`
	Vector []string `required:"" xor:"query" sep:"none" placeholder:"CSV|@FILE" help:"Ask with these numbers, or with the JSON array of numbers in a file. May be repeated for a user with several interests. A leading minus needs the equals sign: --vector=-1,2."`

	Fallback     string   `default:"none" enum:"none,mean-user" placeholder:"WHAT" help:"What to ask with if --user is not known: ${enum} (default ${default})."`
	Target       string   `default:"apps" enum:"apps,users" placeholder:"TOWER" help:"Tower to search: ${enum} (default ${default})."`
	K            uint32   `default:"10" placeholder:"N" help:"How many candidates to return (default ${default})."`
	Filter       string   `placeholder:"CEL" help:"Eligibility filter."`
	Bind         []string `sep:"none" placeholder:"NAME=JSON" help:"Value of user.NAME in the filter. May be repeated."`
	Segment      string   `placeholder:"NAME" help:"Segment whose apps may be returned."`
	IncludeID    []string `sep:"none" placeholder:"ID" help:"Only the ids of these flags may be returned. May be repeated."`
	Exclude      []string `sep:"none" placeholder:"ID" help:"Id that must not be returned. May be repeated."`
	AtMost       []string `sep:"none" placeholder:"NAME=N" help:"Return at most N candidates with the same value of this attribute: developer=2. May be repeated."`
	Attributes   []string `placeholder:"NAME" help:"Attributes to return, separated by commas; * is all."`
	RequestKey   string   `placeholder:"KEY" help:"Who or what the query is for, which decides its arm (default --user)."`
	Experiment   string   `placeholder:"NAME" help:"Experiment of the caller that the query is part of; with --variant."`
	Variant      string   `placeholder:"NAME" help:"Variant of it, whose arm answers if the release has one."`
	ModelVersion string   `placeholder:"VERSION" help:"Answer only from this model version."`
	RecallTarget *float64 `xor:"effort" placeholder:"X" help:"Recall to reach, up to 1, which is the exact scan."`
	Ef           *uint32  `xor:"effort" placeholder:"N" help:"Effort of the walk in each shard: how many nodes it expands. It may be below --k."`
	MinCoverage  *float64 `placeholder:"X" help:"Least coverage to accept, 0 to 1."`
	PageToken    string   `placeholder:"TOKEN" help:"Go on where an answer to the same query ended, which names this."`
	MinLive      string   `placeholder:"[LOG:]N" help:"Position of the live log that the answer must have, as a write prints it: the server waits for it."`

	Timeout   time.Duration `default:"10s" placeholder:"TIME" help:"How long to wait for the answer (default ${default})."`
	Explain   bool          `help:"Say how each shard answered."`
	ExplainID []string      `sep:"none" placeholder:"ID" help:"Say why this id is or is not in the answer. May be repeated."`
	JSON      bool          `help:"Print the answer as JSON."`
}

func (queryCommand) Help() string {
	return `Examples:

    tandem query --user user-0000042 --attributes name,platforms

    tandem query --user user-0000042 --k 5 --explain \
        --filter '"ios" in platforms && min_age <= user.age' --bind age=14

    tandem query --app app-0000001 --at-most developer=2 --explain-id app-0000007

    tandem query --vector=-1,2`
}

func (c *queryCommand) request() (*tandemv1.RetrieveRequest, error) {
	r := &tandemv1.RetrieveRequest{
		UserId: c.User, AppId: c.App, Target: tandemv1.Tower_TOWER_APPS, K: c.K,
		Filter: c.Filter, Segment: c.Segment, IncludeIds: c.IncludeID, ExcludeIds: c.Exclude, Attributes: c.Attributes, ModelVersion: c.ModelVersion, RequestKey: c.RequestKey, Experiment: c.Experiment, Variant: c.Variant,
		RecallTarget: c.RecallTarget, Ef: c.Ef, MinCoverage: c.MinCoverage, PageToken: c.PageToken, Explain: c.Explain, ExplainIds: c.ExplainID,
	}
	for _, text := range c.AtMost {
		limit, err := parseAtMost(text)
		if err != nil {
			return nil, err
		}
		r.AtMost = append(r.AtMost, limit)
	}
	if c.Target == "users" {
		r.Target = tandemv1.Tower_TOWER_USERS
	}
	if c.Fallback == "mean-user" {
		if c.User == "" {
			return nil, usagef("--fallback mean-user: want it with --user")
		}
		r.Fallback = tandemv1.Fallback_FALLBACK_MEAN_USER
	}
	for _, text := range c.Vector {
		v, err := parseVector(text)
		if err != nil {
			return nil, err
		}
		r.Vectors = append(r.Vectors, &tandemv1.Vector{Values: v})
	}
	if len(r.Vectors) == 1 {
		r.Vector, r.Vectors = r.Vectors[0].Values, nil
	}
	if c.MinLive != "" {
		at, err := shard.ParsePosition(c.MinLive)
		if err != nil {
			return nil, usagef("--min-live: %w", err)
		}
		r.MinLive = wire.LivePosition(at)
	}
	values, err := bindings(c.Bind)
	if err != nil {
		return nil, err
	}
	r.Bindings, err = wireBindings(values)
	return r, err
}

// parseAtMost reads NAME=N.
func parseAtMost(text string) (*tandemv1.AtMost, error) {
	name, number, ok := strings.Cut(text, "=")
	n, err := strconv.ParseUint(number, 10, 32)
	if !ok || name == "" || err != nil {
		return nil, usagef("--at-most is %q, want NAME=N, such as developer=2", text)
	}
	return &tandemv1.AtMost{Attribute: name, N: uint32(n)}, nil
}

// parseVector reads numbers separated by commas, or a JSON array from @FILE.
func parseVector(text string) ([]float32, error) {
	if path, ok := strings.CutPrefix(text, "@"); ok {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--vector: %w", err)
		}
		var v []float32
		if err := json.Unmarshal(data, &v); err != nil {
			return nil, usagef("--vector %s: want a JSON array of numbers: %w", text, err)
		}
		return v, nil
	}
	var v []float32
	for word := range strings.SplitSeq(text, ",") {
		x, err := strconv.ParseFloat(strings.TrimSpace(word), 32)
		if err != nil {
			return nil, usagef("--vector: number %d is %q: want numbers separated by commas, or @FILE", len(v)+1, word)
		}
		v = append(v, float32(x))
	}
	return v, nil
}

func (c *queryCommand) Run(e *environment) error {
	if c.Timeout <= 0 {
		return usagef("--timeout is %s, want more than 0", c.Timeout)
	}
	request, err := c.request()
	if err != nil {
		return err
	}
	server, err := c.url(c.Server)
	if err != nil {
		return err
	}
	transport, err := c.client(c.Timeout)
	if err != nil {
		return err
	}
	client := tandemv1connect.NewRetrievalServiceClient(transport, server, fleet.Bounded())
	response, err := client.Retrieve(e.ctx, connect.NewRequest(request))
	if r := refusalOf(err); r != nil {
		return r
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return writeProto(e.stdout, response.Msg)
	}
	return writeAnswer(e.stdout, request, response.Msg)
}

// writeProto writes a message as indented JSON.
func writeProto(w io.Writer, m proto.Message) error {
	data, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	// protojson varies its spaces on purpose.
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// writeAnswer writes an answer for people.
func writeAnswer(w io.Writer, request *tandemv1.RetrieveRequest, a *tandemv1.RetrieveResponse) error {
	served := fmt.Sprintf("%s at %s, snapshot %.12s", a.Model, a.ModelVersion, a.Snapshot)
	if len(a.Interleaved) > 0 {
		served = a.Model + ", interleaved"
		for i, arm := range a.Interleaved {
			served += fmt.Sprintf("%s %s at %s (snapshot %.12s)", []string{" of", " and"}[min(i, 1)], arm.GetArm(), arm.GetModelVersion(), arm.GetSnapshot())
		}
		served += fmt.Sprintf(", generation %d", a.Generation)
	} else if a.Generation > 0 {
		served += fmt.Sprintf(", generation %d, arm %s", a.Generation, a.Arm)
	}
	fmt.Fprintf(w, "%s, %s, %s eligible, coverage %.3g (%d of %s)\n",
		served, planName(a.Plan), wording.Count(int64(a.Eligible)),
		a.Coverage.GetEligibleShare(), a.Coverage.GetShardsAnswered(), wording.Plural(int64(a.Coverage.GetShards()), "shard"))
	if a.FallbackUsed != tandemv1.Fallback_FALLBACK_UNSPECIFIED {
		fmt.Fprintf(w, "fallback: the snapshot does not have user %s; these are for the %s\n", release.Escape(request.UserId), enumName(a.FallbackUsed.String(), "FALLBACK_"))
	}
	if a.NotInterleaved != "" {
		fmt.Fprintf(w, "not interleaved: %s\n", release.Escape(a.NotInterleaved))
	}
	if a.Explored {
		fmt.Fprintln(w, "explored: the last places were drawn of what ranks after them")
	}
	if n := a.Coverage.GetShardsCut(); n > 0 {
		fmt.Fprintf(w, "cut: %s did not give all\n", wording.Plural(int64(n), "shard"))
	}
	if a.ShortReason != tandemv1.ShortReason_SHORT_REASON_UNSPECIFIED {
		fmt.Fprintf(w, "short: %s\n", release.Escape(a.ShortReasonText))
	}
	if len(a.Candidates) > 0 {
		fmt.Fprintln(w)
		place := "rank"
		if request.PageToken != "" {
			place = "on page"
		}
		if err := writeCandidates(w, place, columns(request, a), a.Candidates); err != nil {
			return err
		}
	}
	if a.Explain != nil {
		fmt.Fprintln(w)
		if err := writeExplain(w, a.Explain); err != nil {
			return err
		}
	}
	if a.NextPageToken != "" {
		fmt.Fprintf(w, "\nnext page: --page-token %s\n", a.NextPageToken)
	}
	return nil
}

// columns returns the attributes to show: those asked for, in that order.
func columns(request *tandemv1.RetrieveRequest, a *tandemv1.RetrieveResponse) []string {
	var all, names []string
	for _, c := range a.Candidates {
		for name := range c.Attributes {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	for _, name := range request.Attributes {
		if name == "*" {
			names = append(names, slices.Compact(all)...)
		} else {
			names = append(names, name)
		}
	}
	return names
}

// writeCandidates writes candidates, counted from 1 on: their places.
func writeCandidates(w io.Writer, place string, names []string, candidates []*tandemv1.Candidate) error {
	t := newTable(w)
	fmt.Fprintf(t, "%s\tid\tscore", place)
	teams := len(candidates) > 0 && candidates[0].Team != ""
	if teams {
		fmt.Fprint(t, "\tteam")
	}
	for _, name := range names {
		fmt.Fprintf(t, "\t%s", release.Escape(name))
	}
	fmt.Fprintln(t)
	for i, c := range candidates {
		fmt.Fprintf(t, "%d\t%s\t%.6g", i+1, release.Escape(c.Id), c.Score)
		if teams {
			fmt.Fprintf(t, "\t%s", release.Escape(c.Team))
		}
		for _, name := range names {
			fmt.Fprintf(t, "\t%s", release.Escape(valueText(c.Attributes[name])))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// valueText formats an attribute's value, "-" for none.
func valueText(v *tandemv1.AttributeValue) string {
	switch v := v.GetValue().(type) {
	case *tandemv1.AttributeValue_Keyword:
		return v.Keyword
	case *tandemv1.AttributeValue_Keywords:
		return strings.Join(v.Keywords.GetValues(), ",")
	case *tandemv1.AttributeValue_Bool:
		return strconv.FormatBool(v.Bool)
	case *tandemv1.AttributeValue_Int:
		return strconv.FormatInt(v.Int, 10)
	case *tandemv1.AttributeValue_Float:
		return strconv.FormatFloat(v.Float, 'g', -1, 64)
	case *tandemv1.AttributeValue_Timestamp:
		return v.Timestamp.AsTime().Format(time.RFC3339Nano)
	}
	return "-"
}

func writeExplain(w io.Writer, x *tandemv1.Explain) error {
	fmt.Fprintf(w, "prepare %s, fan out %s, merge %s, total %s\n",
		x.PrepareTime.AsDuration(), x.FanOutTime.AsDuration(), x.MergeTime.AsDuration(), x.TotalTime.AsDuration())
	t := newTable(w)
	fmt.Fprintln(t, "shard\tplan\trows\teligible\tasked\tef\tscored\texpanded\tfilter\tsearch\terror")
	for _, s := range x.Shards {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", s.Shard, planName(s.Plan), s.Rows, s.Eligible, s.Asked, s.Ef,
			s.Scored, s.Expanded, s.FilterTime.AsDuration(), s.SearchTime.AsDuration(), release.Escape(s.Error))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	t = newTable(w)
	for _, s := range x.Shards {
		if s.Reason != "" {
			fmt.Fprintf(t, "%s\t%s\n", s.Shard, s.Reason)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	writeUnknown(w, x)
	for _, id := range slices.Sorted(maps.Keys(x.OtherForms)) {
		fmt.Fprintf(w, "id %+q is unknown; the tower has it in another Unicode form: %+q\n", id, x.OtherForms[id])
	}
	return writeVerdicts(w, x.Ids)
}

// writeUnknown says how many ids of the query no shard has.
func writeUnknown(w io.Writer, x *tandemv1.Explain) {
	if x.UnknownIncludeIds > 0 {
		fmt.Fprintf(w, "%s to include unknown\n", wording.Plural(int64(x.UnknownIncludeIds), "id"))
	}
	if x.UnknownExcludeIds > 0 {
		fmt.Fprintf(w, "%s to exclude unknown\n", wording.Plural(int64(x.UnknownExcludeIds), "id"))
	}
}

// writeVerdicts says why ids are or are not in the answer.
func writeVerdicts(w io.Writer, ids []*tandemv1.IdExplain) error {
	if len(ids) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w)
	fmt.Fprintln(t, "id\tverdict\tscore\twhy")
	for _, e := range ids {
		score := "-"
		if e.Score != nil {
			score = fmt.Sprintf("%.6g", *e.Score)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", release.Escape(e.Id), enumName(e.Verdict.String(), "VERDICT_"), score, release.Escape(e.Text))
	}
	return t.Flush()
}

// planName returns a plan's name as people write it: "exact scan".
func planName(p tandemv1.Plan) string {
	if p == tandemv1.Plan_PLAN_UNSPECIFIED {
		return "no plan"
	}
	return enumName(p.String(), "PLAN_")
}

// enumName returns the name of an enum's value as people write it.
func enumName(name, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", " "))
}
