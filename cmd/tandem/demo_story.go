package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/wording"
)

const (
	demoStore = "store" // in the folder of the demo
	// demoWidth is the longest line of the story, and demoReason how many lines of a
	// refusal it has.
	demoWidth  = 100
	demoReason = 5
	// demoAge is bound in the filter of the story.
	demoAge    = 12
	demoFilter = `"ios" in platforms && min_age <= user.age`
	// demoAsked is how many users are asked for, to see who answers them.
	demoAsked = 500
)

// story is what the demo tells. Its steps are commands of the command line, and what they
// have come to.
type story struct {
	*environment
	dir, address string
	users        int64
	began        time.Time
}

// say prints a line.
func (s *story) say(format string, args ...any) { fmt.Fprintf(s.stdout, format+"\n", args...) }

// run runs a command in the folder of the demo.
func (s *story) run(args ...string) (stdout, stderr string, code int, err error) {
	args = slices.Clone(args)
	for i := 1; i < len(args); i++ {
		flag := args[i-1]
		if flag == "--store" || flag == "--out" || args[0] == "build" && (flag == "--apps" || flag == "--users") {
			args[i] = filepath.Join(s.dir, args[i])
		}
	}
	var out, log bytes.Buffer
	code = run(s.ctx, args, &out, &log)
	return out.String(), strings.TrimSpace(log.String()), code, s.ctx.Err()
}

// must runs a command that has to succeed.
func (s *story) must(args ...string) (stdout string, err error) {
	stdout, stderr, code, err := s.run(args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, stderr)
	}
	return stdout, err
}

// show prints a command as a person types it, a flag beside its value.
func (s *story) show(args ...string) {
	var units []string
	for i, arg := range args {
		if word := quoteWord(arg); i > 0 && strings.HasPrefix(args[i-1], "--") {
			units[len(units)-1] += " " + word
		} else {
			units = append(units, word)
		}
	}
	line := "  $ tandem"
	for i, unit := range units {
		room := demoWidth
		if i < len(units)-1 {
			room -= len(" \\")
		}
		if len(line)+1+len(unit) > room {
			s.say("%s \\", line)
			line = "     "
		}
		line += " " + unit
	}
	s.say("%s", line)
}

// quoteWord returns a word as a shell takes it.
func quoteWord(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@", r)
	}
	if word != "" && strings.TrimFunc(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// explain prints a text in lines that fit, the first of them if there are many.
func (s *story) explain(text string) {
	const indent = "    "
	var lines []string
	for paragraph := range strings.SplitSeq(text, "\n") {
		line := indent
		for word := range strings.FieldsSeq(paragraph) {
			if len(line)+1+len(word) > demoWidth-len(" ...") {
				lines, line = append(lines, line), indent
			}
			if line != indent {
				line += " "
			}
			line += word
		}
		lines = append(lines, line)
	}
	if len(lines) > demoReason {
		lines = append(lines[:demoReason-1], lines[demoReason-1]+" ...")
	}
	for _, line := range lines {
		s.say("%s", line)
	}
}

// built is what the story takes from the report of a build.
type built struct {
	Snapshot manifest.Digest    `json:"snapshot"`
	Manifest *manifest.Manifest `json:"manifest"`
	Gates    *gates.Recorded    `json:"gates"`
}

// build builds the towers of two folders. That the gates refuse the snapshot is no error.
func (s *story) build(apps, users, version string) (*built, error) {
	args := []string{
		"build", "--apps", apps + "/" + synthetic.AppsFile, "--users", users + "/" + synthetic.UsersFile, "--store", demoStore,
		"--model", "demo", "--model-version", version, "--metric", "dot",
	}
	s.show(args...)
	began := time.Now()
	stdout, stderr, code, err := s.run(append(args, "--json")...)
	if err == nil && code != 0 && code != exitUnfit {
		err = fmt.Errorf("exit code %d: %s", code, stderr)
	}
	b := &built{}
	if err == nil {
		err = json.Unmarshal([]byte(stdout), b)
	}
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	s.say("    snapshot %s in %s; gates: %s", b.Snapshot.Short(), wording.Seconds(time.Since(began)), gates.Summary(b.Gates.Rows()))
	return b, nil
}

// short is a digest as a person types it.
func short(d manifest.Digest) string { return string(d)[:6] }

// first builds and releases the first snapshot, since a server serves nothing before.
func (s *story) first(apps int64) error {
	for _, towers := range []struct {
		folder, seed string
		users        int64
	}{{"monday", "1", s.users}, {"tuesday", "1", s.users + s.users/20}, {"other", "2", s.users}} {
		_, err := s.must("generate", "--out", towers.folder, "--apps", fmt.Sprint(apps), "--users", fmt.Sprint(towers.users),
			"--seed", towers.seed, "--interactions-per-user", "0")
		if err != nil {
			return fmt.Errorf("generate: %w", err)
		}
	}
	s.say("1. Monday's towers become one snapshot, which is measured, and gets all traffic.")
	good, err := s.build("monday", "monday", "monday")
	if err != nil {
		return err
	}
	if !good.Gates.Passed() {
		return fmt.Errorf("build: %w", passed(good.Gates, demoStore))
	}
	for _, r := range good.Manifest.Apps.Recall {
		if r.Target == server.DefaultRecallTarget && r.K == 10 {
			s.say("    recall@%d of %d users that the build has not seen: %.4f, where %v is the target", r.K, r.Queries, r.Recall, r.Target)
		}
	}
	args := []string{"release", "start", "--store", demoStore, short(good.Snapshot)}
	s.show(args...)
	if _, err := s.must(args...); err != nil {
		return fmt.Errorf("release start: %w", err)
	}
	return nil
}

// rest tells what comes once the first snapshot is served.
func (s *story) rest() error {
	for _, step := range []func() error{s.refuse, s.split, s.why, s.back} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// refuse builds towers of two models, and tries to release them.
func (s *story) refuse() error {
	s.say("2. A job takes the users of another training: ids and shapes fit, and all scores are wrong.")
	bad, err := s.build("monday", "other", "mixed")
	if err != nil {
		return err
	}
	args := []string{"release", "start", "--store", demoStore, short(bad.Snapshot)}
	s.show(args...)
	_, stderr, code, err := s.run(args...)
	switch {
	case err != nil:
		return err
	case code == 0:
		return fmt.Errorf("release start: snapshot %s, of towers that do not belong together, was not refused", bad.Snapshot.Short())
	}
	s.explain(stderr)
	return nil
}

// split gives a second snapshot a share of the traffic.
func (s *story) split() error {
	s.say("3. Both towers of Tuesday are fit, and get a tenth of the traffic.")
	next, err := s.build("tuesday", "tuesday", "tuesday")
	if err != nil {
		return err
	}
	if !next.Gates.Passed() {
		return fmt.Errorf("build: %w", passed(next.Gates, demoStore))
	}
	if err := s.change("start", short(next.Snapshot), "--weight", "100"); err != nil {
		return err
	}
	return s.answered()
}

// change changes the release, and waits until the server serves it.
func (s *story) change(args ...string) error {
	args = append([]string{"release", args[0], "--store", demoStore}, args[1:]...)
	args = append(args, "--server", s.address, "--wait", demoTimeout.String())
	s.show(args...)
	if _, err := s.must(args...); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// answered says which model versions answer some users.
func (s *story) answered() error {
	client := tandemv1connect.NewRetrievalServiceClient(http.DefaultClient, "http://"+s.address, fleet.Bounded())
	ctx, cancel := context.WithTimeout(s.ctx, demoTimeout)
	defer cancel()
	by := map[string]int{}
	for i := range int64(demoAsked) {
		answer, err := client.Retrieve(ctx, connect.NewRequest(&tandemv1.RetrieveRequest{UserId: synthetic.UserID(i), K: 1}))
		if err != nil {
			return err
		}
		by[answer.Msg.ModelVersion]++
	}
	var parts []string
	for _, version := range []string{"monday", "tuesday"} {
		parts = append(parts, fmt.Sprintf("%d by %s", by[version], version))
	}
	s.say("    of %d users, %s", demoAsked, strings.Join(parts, " and "))
	return nil
}

// why asks for an app that a user does not get, though only one is better.
func (s *story) why() error {
	user := synthetic.UserID(s.users / 2)
	ask := []string{"query", "--server", s.address, "--user", user}
	best, err := s.query(append(slices.Clone(ask), "--k", "20", "--attributes", "name", "--json"))
	if err != nil {
		return err
	}
	ask = append(ask, "--k", "3", "--filter", demoFilter, "--bind", "age="+strconv.Itoa(demoAge))
	all := slices.Clone(ask)
	for _, c := range best.Candidates {
		all = append(all, "--explain-id", c.Id)
	}
	explained, err := s.query(append(all, "--json"))
	if err != nil {
		return err
	}
	ids := explained.GetExplain().GetIds()
	left := slices.IndexFunc(ids, func(x *tandemv1.IdExplain) bool { return x.Verdict == tandemv1.Verdict_VERDICT_NOT_ELIGIBLE })
	if left < 0 {
		return fmt.Errorf("query: the filter %s leaves none of the best apps of %s out", demoFilter, user)
	}
	at := slices.IndexFunc(best.Candidates, func(c *tandemv1.Candidate) bool { return c.Id == ids[left].Id })
	s.say("4. Why does %s, %d years old, not get %q, number %d of all apps?",
		user, demoAge, best.Candidates[at].Attributes["name"].GetKeyword(), at+1)
	s.show(append(ask, "--explain-id", ids[left].Id)...)
	s.say("    %s: %s", enumName(ids[left].Verdict.String(), "VERDICT_"), ids[left].Text)
	return nil
}

// query asks, and returns the answer.
func (s *story) query(args []string) (*tandemv1.RetrieveResponse, error) {
	stdout, err := s.must(args...)
	answer := &tandemv1.RetrieveResponse{}
	if err == nil {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(stdout), answer)
	}
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return answer, nil
}

// back takes the release back.
func (s *story) back() error {
	s.say("5. Clicks fall: back, with one command, to what had all traffic before.")
	if err := s.change("rollback", "--reason", "clicks fell"); err != nil {
		return err
	}
	return s.answered()
}

// invite says how to try what is served.
func (s *story) invite(removed bool) {
	user := synthetic.UserID(s.users / 2)
	s.say("\nThat took %s.\nServing on http://%s; ask it:", wording.Seconds(time.Since(s.began)), s.address)
	s.say("  curl -s http://%s/tandem.v1.RetrievalService/Retrieve \\\n    -H 'Content-Type: application/json' -d '{\"userId\":%q,\"k\":3,\"attributes\":[\"name\"]}'", s.address, user)
	s.say("  tandem query --server %s --user %s --k 3 --attributes name,genres", s.address, user)
	s.say("  tandem release history --store %s", quoteWord(filepath.Join(s.dir, demoStore)))
	if removed {
		s.say("Press Ctrl-C to stop; it removes the folder.")
	} else {
		s.say("Press Ctrl-C to stop; the folder stays.")
	}
}
