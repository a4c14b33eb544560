package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	tandemPath     = flag.String("tandem", "", "the tandem that is scraped; none leaves TestScrape out")
	prometheusPath = flag.String("prometheus", "", "the prometheus that scrapes it")
)

// scrapeTimeout is for how long a query may be without data, on a busy machine.
const scrapeTimeout = 2 * time.Minute

// TestScrape has a real Prometheus scrape a real server under load, and holds that every query
// of the dashboard has data, that the rules evaluate, and that nobody is paged.
func TestScrape(t *testing.T) {
	if *tandemPath == "" || *prometheusPath == "" {
		t.Skip("without -tandem and -prometheus")
	}
	dir := t.TempDir()
	server, admin := serve(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	loaded := make(chan error, 1)
	go func() { loaded <- load(ctx, server) }()
	defer func() {
		cancel()
		if err := <-loaded; err != nil {
			t.Error(err)
		}
	}()
	prometheus := scrape(t, dir, admin)

	waiting := dashboardQueries(t)
	for where := range waiting {
		if strings.HasPrefix(where, "annotation ") { // it is about what does not happen here
			delete(waiting, where)
		}
	}
	t.Logf("%d queries of the dashboard", len(waiting))
	deadline := time.Now().Add(scrapeTimeout)
	for len(waiting) > 0 && time.Now().Before(deadline) {
		for where, query := range waiting {
			var answer struct {
				Status string
				Error  string
				Data   struct{ Result []json.RawMessage }
			}
			ask(t, prometheus+"/api/v1/query?query="+url.QueryEscape(query), &answer)
			if answer.Status != "success" {
				t.Fatalf("%s: %s: %s", where, query, answer.Error)
			}
			if len(answer.Data.Result) > 0 {
				delete(waiting, where)
			}
		}
		time.Sleep(time.Second) // until the next scrape
	}
	for where, query := range waiting {
		t.Errorf("%s has no data after %s: %s", where, scrapeTimeout, query)
	}
	checkRules(t, prometheus)
}

// checkRules holds that every rule was evaluated, and that no alert is raised that is for now.
func checkRules(t *testing.T, prometheus string) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct {
					Name, Health, LastError, State string
					Labels                         map[string]string
				}
			}
		}
	}
	ask(t, prometheus+"/api/v1/rules", &answer)
	n := 0
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" {
				t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
			if r.State == "firing" && r.Labels["severity"] == "page" {
				t.Errorf("alert %s is raised", r.Name)
			}
		}
	}
	if n != len(rules(t)) {
		t.Errorf("%d rules are evaluated, there are %d", n, len(rules(t)))
	}
}

// serve starts a server over small towers and returns its addresses.
func serve(t *testing.T, dir string) (server, admin string) {
	tandem, err := filepath.Abs(*tandemPath)
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		c := exec.CommandContext(t.Context(), tandem, args...)
		c.Dir = dir
		out, err := c.Output()
		if err != nil {
			t.Fatalf("tandem %v: %v", args, err)
		}
		return string(out)
	}
	run("generate", "--out", "towers", "--apps", "2000", "--users", "500", "--dim", "16", "--interactions-per-user", "0")
	built := strings.Fields(run("build", "--apps", "towers/apps.parquet", "--users", "towers/users.parquet",
		"--model", "feed", "--model-version", "1", "--metric", "dot", "--store", "store"))
	run("release", "start", "--store", "store", built[len(built)-1])
	log := start(t, dir, tandem, "serve", "--store", "store", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--state", "state", "--record-share", "1", "--drain-delay", "0s", "--log-format", "json")
	address := func(msg string) string {
		pattern := regexp.MustCompile(`"msg":"` + msg + `","address":"([^"]*)"`)
		var m []string
		await(t, msg, func() bool { m = pattern.FindStringSubmatch(read(t, log)); return m != nil })
		return m[1]
	}
	server, admin = address("listening"), address("listening for admin")
	await(t, "a server that is ready", func() bool { return answers("http://" + server + "/readyz") })
	return server, admin
}

// scrape starts a Prometheus and returns its URL.
func scrape(t *testing.T, dir, target string) string {
	absolute, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: tandem
    static_configs: [{targets: [%q]}]
`, absolute, target)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, dir, *prometheusPath, "--config.file", "prometheus.yml", "--storage.tsdb.path", "tsdb", "--web.listen-address", address)
	await(t, "a Prometheus that is ready", func() bool { return answers("http://" + address + "/-/ready") })
	return "http://" + address
}

// start starts a program that is ended with the test, and returns the file of what it says.
func start(t *testing.T, dir, path string, args ...string) string {
	absolute, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, filepath.Base(path)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(absolute, args...)
	c.Dir, c.Stderr, c.Stdout = dir, log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = c.Wait()                          // by the signal
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text := read(t, log.Name())
			t.Logf("%s: %s", log.Name(), text[max(0, len(text)-1000):])
		}
	})
	return log.Name()
}

// load asks a server for candidates 50 times a second, some of them more than there are, some
// of a user that it does not have, until ctx ends.
func load(ctx context.Context, server string) error {
	for i := 0; ; i++ {
		k, user := 20, fmt.Sprintf("user-%07d", i%500)
		switch i % 10 {
		case 1:
			k = 3000
		case 2:
			user = "nobody"
		}
		body := fmt.Sprintf(`{"userId": %q, "k": %d}`, user, k)
		r, err := http.NewRequestWithContext(ctx, "POST", "http://"+server+"/tandem.v1.RetrievalService/Retrieve", strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err == nil {
			var text []byte
			text, err = io.ReadAll(answer.Body)
			_ = answer.Body.Close() // it was read
			if want := map[bool]int{true: http.StatusNotFound, false: http.StatusOK}[user == "nobody"]; err == nil && answer.StatusCode != want {
				err = fmt.Errorf("%s: status %d: %s", body, answer.StatusCode, bytes.TrimSpace(text[:min(len(text), 200)]))
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("there is no %s after a minute", what)
		}
	}
}

func answers(url string) bool {
	r, err := http.Get(url)
	if err != nil {
		return false
	}
	return r.Body.Close() == nil && r.StatusCode == http.StatusOK
}

// ask reads the JSON that is at a URL.
func ask(t *testing.T, url string, answer any) {
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	if err := json.NewDecoder(r.Body).Decode(answer); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
}
