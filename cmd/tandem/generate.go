package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/shard/wording"
)

type generateCommand struct {
	Out                 string            `required:"" placeholder:"DIR" help:"Folder to write apps.parquet, users.parquet and interactions.parquet to."`
	Apps                int64             `default:"20000" placeholder:"N" help:"Number of apps (default ${default})."`
	Users               int64             `default:"5000" placeholder:"N" help:"Number of users (default ${default})."`
	Dim                 int               `default:"64" placeholder:"N" help:"Dimension of the embeddings (default ${default})."`
	InteractionsPerUser int               `default:"20" placeholder:"N" help:"Mean number of apps that a user played; 0 for no interactions file (default ${default})."`
	Clusters            int               `placeholder:"N" help:"Number of clusters of apps; by default it grows with the number of apps."`
	Norms               synthetic.NormLaw `default:"rising" placeholder:"LAW" help:"How the norms of apps follow popularity: rising, falling or flat (default ${default})."`
	Seed                uint64            `default:"1" placeholder:"N" help:"Seed; the same seed and sizes give the same files (default ${default})."`
	JSON                bool              `help:"Print JSON."`
}

func (generateCommand) Help() string {
	return `Apps lie around clusters and users mix a few of them, with attributes to match.

Example:

    tandem generate --out towers --apps 100000 --users 20000 --dim 64`
}

func (c *generateCommand) options() synthetic.Options {
	return synthetic.Options{
		Apps: c.Apps, Users: c.Users, Dim: c.Dim, Seed: c.Seed,
		Interactions: c.InteractionsPerUser, Clusters: c.Clusters, Norms: c.Norms,
	}
}

func (c *generateCommand) Run(e *environment) error {
	o := c.options()
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	start := time.Now()
	if err := generate(e, c.Out, o); err != nil {
		return err
	}
	info := generatedInfo{Files: []generatedFile{}, Apps: o.Apps, Users: o.Users, Dim: o.Dim}
	for _, name := range []string{synthetic.AppsFile, synthetic.UsersFile, synthetic.InteractionsFile} {
		path := filepath.Join(c.Out, name)
		if i, err := os.Stat(path); err == nil {
			info.Files = append(info.Files, generatedFile{path, i.Size()})
		}
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, info)
	}
	t := newTable(e.stdout)
	for _, f := range info.Files {
		fmt.Fprintf(t, "%s\t%s\n", f.Path, wording.Bytes(f.Bytes))
	}
	fmt.Fprintf(t, "%s, %s, dim %d, %s\n", wording.Plural(o.Apps, "app"), wording.Plural(o.Users, "user"), o.Dim, wording.Seconds(time.Since(start)))
	return t.Flush()
}

// generatedInfo is what `tandem generate` wrote, as JSON.
type generatedInfo struct {
	Files []generatedFile `json:"files"`
	Apps  int64           `json:"apps"`
	Users int64           `json:"users"`
	Dim   int             `json:"dim"`
}

type generatedFile struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// generate writes towers and shows how far it is.
func generate(e *environment, dir string, o synthetic.Options) error {
	p := newProgress(e.stderr)
	defer p.Done()
	started := false
	return synthetic.Write(e.ctx, dir, o, func(done, total int64) {
		if !started {
			p.Stage("generate", total)
			started = true
		}
		p.Step(done)
	})
}
