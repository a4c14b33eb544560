package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

// commands returns the commands that do something, by their names.
func commands(t *testing.T) map[string]*kong.Node {
	k, err := kong.New(&cli{}, kong.Name("tandem"), vars())
	require.NoError(t, err)
	byName := map[string]*kong.Node{}
	for _, leaf := range k.Model.Leaves(false) {
		name := ""
		for n := leaf; n.Parent != nil; n = n.Parent {
			name = n.Name + " " + name
		}
		byName[strings.TrimSpace(name)] = leaf
	}
	return byName
}

// Every command that reports does it as JSON too. Those that have no such flag are listed here,
// with what they print.
func TestReportsAreJSON(t *testing.T) {
	others := map[string]string{
		"serve":                  "its log, which --log-format has as JSON",
		"demo":                   "a story",
		"completion":             "a program of a shell",
		"build partition":        "nothing: what it has done is in the store, or an Arrow stream",
		"build shard":            "nothing: what it has done is in the store",
		"token new":              "one token, alone on its line",
		"live export":            "JSON Lines",
		"bench record":           "the record, which is JSON",
		"bench capacity measure": "what was measured, which is JSON",
	}
	found := commands(t)
	require.Greater(t, len(found), 50)
	for name, command := range found {
		has := false
		for _, group := range command.AllFlags(false) {
			for _, flag := range group {
				has = has || flag.Name == "json"
			}
		}
		why, listed := others[name]
		require.True(t, has != listed, "tandem %s: has --json: %t; listed as without: %q", name, has, why)
	}
	for name := range others {
		require.Contains(t, found, name, "commands without --json")
	}
}

// A command that asks a store or a server takes it from the variables, too, and says so; that
// which makes a store of its own does not.
func TestVariablesStandForFlags(t *testing.T) {
	own := map[string]string{"bench live": "store", "bench cluster chaos": "store", "bench cluster rows": "store", "bench attack": "server"}
	for name, command := range commands(t) {
		for _, group := range command.AllFlags(false) {
			for _, flag := range group {
				want := map[string]string{"store": storeVariable, "server": serverVariable}[flag.Name]
				if own[name] == flag.Name {
					want = ""
				}
				require.Equal(t, want, variableOf(flag.Value), "tandem %s --%s", name, flag.Name)
			}
		}
	}
}

// One package aligns tables, so that all of them fit a terminal.
func TestTablesAreAlignedByOne(t *testing.T) {
	for dir, p := range readPackages(t, os.DirFS("../..")) {
		for file, imports := range p.imports {
			if dir != "shard/wording" && !strings.HasSuffix(file, "_test.go") {
				require.NotContains(t, imports, "text/tabwriter", "%s: tables are those of shard/wording", file)
			}
		}
	}
}

// What the command says of formats is what the page of formats says.
func TestFormatsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../shard/format.md")
	require.NoError(t, err)
	for _, f := range formats() {
		if f.Format == "shard RPC" {
			continue // it is in no store
		}
		row := regexp.MustCompile(`(?m)^\| ` + f.Format + ` \|.*$`).FindString(string(page))
		require.NotEmpty(t, row, "%s in shard/format.md", f.Format)
		cells := strings.Split(row, "|")
		for cell, v := range map[int]versions{3: f.Writes, 4: f.Reads} {
			require.Regexp(t, "^ `?"+v.String()+"`?([ ,;]|$)", cells[cell], "%s in shard/format.md", f.Format)
		}
	}
}
