package main

import (
	"fmt"
	"time"

	"github.com/tandem-ann/tandem/server/auth"
)

// tokenCommand is `tandem token`.
type tokenCommand struct {
	New tokenNewCommand `cmd:"" help:"Make a token for a caller, and print it once."`
}

type tokenNewCommand struct {
	Name      string        `arg:"" help:"The caller. It may have several tokens at a time, as while one is replaced by another."`
	File      string        `required:"" type:"path" placeholder:"FILE" help:"The file that tandem serve --tokens reads."`
	Scope     []string      `required:"" placeholder:"SCOPE" help:"What the caller may do: query, live, publish, admin, internal, feedback; may be repeated."`
	ExpiresIn time.Duration `placeholder:"TIME" help:"How long the token counts, such as 2160h (default for ever)."`
	CPU       *float64      `name:"cpu" placeholder:"X" help:"How many processors of a server the caller may take, such as 0.5 (default no bound)."`
	InFlight  *int          `placeholder:"N" help:"How many of its requests may be under way on a server (default no bound)."`
	Priority  string        `default:"live" enum:"live,batch,audit" placeholder:"WHICH" help:"Which requests are refused first where there is too much to do, the last first: ${enum} (default ${default})."`
}

func (tokenNewCommand) Help() string {
	return `Prints the token, which is kept nowhere: the file has its hash. Servers that read the file know it within seconds. Whoever has the token is the caller; to take it back, remove its entry from the file.

Example:

    tandem token new ranker --scope query --file tokens.yaml > ranker.token`
}

func (c *tokenNewCommand) Run(e *environment) error {
	t := auth.Token{Name: c.Name}
	for _, name := range c.Scope {
		scope, err := auth.ParseScope(name)
		if err != nil {
			return usagef("--scope is %.100q: %w", name, err)
		}
		t.Scopes |= scope
	}
	t.Priority, _ = auth.ParsePriority(c.Priority) // kong has looked
	if err := auth.CheckName(c.Name); err != nil {
		return usageError{err}
	}
	quota, err := auth.NewQuota(c.CPU, c.InFlight)
	if err != nil {
		return usageError{err}
	}
	t.Quota = quota
	switch {
	case c.ExpiresIn < 0:
		return usagef("--expires-in is %s, want more than 0", c.ExpiresIn)
	case c.ExpiresIn > 0:
		t.Expires = time.Now().Add(c.ExpiresIn)
	}
	secret := auth.NewSecret()
	t.Hash = auth.HashOf(secret)
	if err := auth.Append(c.File, t); err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, secret)
	return err
}
