package attack

import (
	"os/exec"
	"syscall"
)

// StartOwned starts a command that ends with this process, however that ends; if pinned, it
// runs on the first of this process's processors.
func StartOwned(cmd *exec.Cmd, pinned bool) error {
	if pinned {
		all, err := processors()
		if err != nil {
			return err
		}
		return startOn(cmd, all[0])
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}
