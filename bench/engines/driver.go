package engines

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/index"
)

// driver is an engine in a process of its own, which speaks the protocol of
// bench/peers.
type driver struct {
	connection
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr bytes.Buffer
	spent  Cost
}

// startDriver writes the set's vectors, unless another driver has, and runs the
// program of spec's name in the folder of drivers.
func startDriver(ctx context.Context, spec Spec, s *Set, o Options, dir string) (_ *driver, err error) {
	program, err := filepath.Abs(filepath.Join(o.Drivers, spec.Name))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(program); err != nil {
		return nil, err
	}
	metric, base, queries := "ip", "base.fbin", "queries.fbin"
	write := map[string]func() *Vectors{
		base:    func() *Vectors { return s.base },
		queries: func() *Vectors { return s.queries },
	}
	if spec.Augmented {
		metric, base, queries = "l2", "base-augmented.fbin", "queries-augmented.fbin"
		write = map[string]func() *Vectors{base: s.base.augmented, queries: s.queries.extended}
	} else if s.Metric == index.L2 {
		metric = "l2"
	}
	for name, vectors := range write {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := vectors().writeFile(path); err != nil {
			return nil, err
		}
	}

	d := &driver{name: spec.String()}
	d.cmd = exec.CommandContext(ctx, program,
		"--base", filepath.Join(dir, base), "--queries", filepath.Join(dir, queries), "--metric", metric,
		"--m", strconv.Itoa(spec.M), "--ef-construction", strconv.Itoa(spec.EfConstruction), "--threads", strconv.Itoa(o.Threads))
	d.cmd.Stderr = &d.stderr
	d.cmd.WaitDelay = 5 * time.Second
	stdin, err := d.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, stdin.Close())
	}
	d.stdin, d.connection = stdin, newConnection(stdout, stdin)
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, stdin.Close(), stdout.Close())
	}
	if d.spent, err = d.ready(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *driver) cost() Cost { return d.spent }

func (d *driver) restrict(p *Predicate) error {
	if err := d.give(p); err != nil {
		return errors.Join(err, d.Close())
	}
	return nil
}

func (d *driver) search(ctx context.Context, s Setting, first, n int, count bool, a *answers) error {
	err := d.ask(s, first, n, count, a)
	if err != nil {
		return errors.Join(ctx.Err(), err, d.Close())
	}
	return nil
}

// Close ends the process. Its error says what the driver said.
func (d *driver) Close() error {
	if d.cmd == nil {
		return nil
	}
	_ = d.quit() // a driver that is gone already is told by Wait
	_ = d.stdin.Close()
	err := d.cmd.Wait()
	d.cmd = nil
	if err != nil {
		return fmt.Errorf("driver %s: %w: %s", d.name, err, strings.TrimSpace(d.stderr.String()))
	}
	return nil
}

// connection speaks the protocol over a pair of pipes.
type connection struct {
	r   *bufio.Reader
	w   io.Writer
	buf []byte
}

func newConnection(r io.Reader, w io.Writer) connection {
	return connection{r: bufio.NewReaderSize(r, 1<<16), w: w}
}

// line reads a line that begins with a word, and scans what follows.
func (c *connection) line(word string, into ...any) error {
	text, err := c.r.ReadString('\n')
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %s line of driver: %w", word, err)
	}
	rest, ok := strings.CutPrefix(text, word+" ")
	if !ok {
		return fmt.Errorf("driver says %q, want a %s line", strings.TrimSpace(text), word)
	}
	if n, err := fmt.Sscan(rest, into...); err != nil {
		return fmt.Errorf("driver says %q: number %d: %w", strings.TrimSpace(text), n+1, err)
	}
	return nil
}

// ready waits for the build to end.
func (c *connection) ready() (cost Cost, err error) {
	err = c.line("ready", &cost.BuildSeconds, &cost.Bytes)
	return cost, err
}

// give tells the driver which rows are eligible.
func (c *connection) give(p *Predicate) error {
	var words []uint64
	if p != nil {
		words = p.rows
	}
	if _, err := fmt.Fprintf(c.w, "eligible %d\n", len(words)); err != nil {
		return err
	}
	// A driver that does not know the command hangs up before it has all of them.
	writing := binary.Write(c.w, binary.LittleEndian, words)
	var eligible int
	if err := c.line("eligible", &eligible); err != nil {
		return err
	}
	if p != nil && eligible != p.eligible {
		return fmt.Errorf("driver counts %d eligible rows, want %d", eligible, p.eligible)
	}
	return writing
}

func (c *connection) ask(s Setting, first, n int, count bool, a *answers) error {
	if s.Ef == 0 {
		return fmt.Errorf("a driver takes no %s", s)
	}
	counting := 0
	if count {
		counting = 1
	}
	if _, err := fmt.Fprintf(c.w, "search %d %d %d %d %d\n", s.Ef, s.K, first, n, counting); err != nil {
		return err
	}
	var gotN, gotK int
	if err := c.line("answer", &gotN, &gotK); err != nil {
		return err
	}
	if gotN != n || gotK != s.K {
		return fmt.Errorf("driver answers %d queries with %d rows each, want %d and %d", gotN, gotK, n, s.K)
	}
	a.reset(n, s.K)
	c.buf = resize(c.buf, 4*n*s.K+16*n)
	if _, err := io.ReadFull(c.r, c.buf); err != nil {
		return fmt.Errorf("read answers of driver: %w", err)
	}
	rest := c.buf
	for _, into := range []any{a.rows, a.nanos, a.distances} {
		size, err := binary.Decode(rest, binary.LittleEndian, into)
		if err != nil {
			return err
		}
		rest = rest[size:]
	}
	return nil
}

func (c *connection) quit() error {
	_, err := io.WriteString(c.w, "quit\n")
	return err
}
