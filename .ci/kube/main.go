package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	bin := flag.String("bin", "", "folder of the programs")
	stages := flag.String("stages", "", "folder kustomize/stage of the module of kwok")
	flag.Parse()
	if *bin == "" || *stages == "" || flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: kube -bin FOLDER -stages FOLDER -- COMMAND [ARG...]")
		os.Exit(2)
	}
	code, err := run(*bin, *stages, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		code = 1
	}
	os.Exit(code)
}

// run runs a command beside a cluster, and returns its exit code.
func run(bin, stages string, command []string) (code int, err error) {
	for _, folder := range []*string{&bin, &stages} { // programs have a folder of their own
		if *folder, err = filepath.Abs(*folder); err != nil {
			return 0, err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "tandem-kube-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c, err := start(ctx, bin, stages, dir)
	defer func() { err = errors.Join(err, c.stop()) }()
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, c.logs())
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, "kubeconfig"), "TANDEM_KUBE="+dir)
	err = cmd.Run()
	if exited := (*exec.ExitError)(nil); errors.As(err, &exited) {
		fmt.Fprintln(os.Stderr, c.logs())
		return max(exited.ExitCode(), 1), nil
	}
	return 0, err
}
