//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	cni "github.com/containerd/go-cni"
)

// daemonVariable names the program to test with.
const daemonVariable = "WORKLOADNETD"

const settings = `[socket]
path = %q
[network]
prefixes = ["10.77.0.0/24", "fd77:77:77::/64"]
mtu = 1400
state = %q
`

// daemon is a workloadnetd in this process's network namespace.
type daemon struct {
	folder  string
	socket  string
	running *exec.Cmd
}

// newDaemon starts one with a folder of its own.
func newDaemon(t *testing.T) *daemon {
	t.Helper()
	noneIsLeft(t)
	folder, err := os.MkdirTemp("", "wn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	d := &daemon{folder: folder, socket: filepath.Join(folder, "w.sock")}
	text := fmt.Sprintf(settings, d.socket, filepath.Join(folder, "state.json"))
	if err := os.WriteFile(d.settings(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	t.Cleanup(func() { d.end(syscall.SIGTERM) })
	return d
}

// noneIsLeft waits for the links of the test before: the kernel takes them away some time after their namespaces.
func noneIsLeft(t *testing.T) {
	t.Helper()
	ours := func(link net.Interface) bool { return strings.HasPrefix(link.Name, "wk") }
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(all, ours) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left over: %v", all)
		}
	}
}

func (d *daemon) settings() string { return filepath.Join(d.folder, "workloadnetd.toml") }

func (d *daemon) start(t *testing.T) {
	t.Helper()
	command := exec.Command(os.Getenv(daemonVariable), "--config", d.settings())
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatalf("%s names no daemon that starts: %v", daemonVariable, err)
	}
	d.running = command
	c := d.cni(t)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := c.Status()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// end ends it, and waits until it has ended.
func (d *daemon) end(signal os.Signal) {
	if d.running != nil {
		d.running.Process.Signal(signal)
		d.running.Wait()
		d.running = nil
	}
}

func (d *daemon) cni(t *testing.T, opts ...cni.Opt) cni.CNI {
	t.Helper()
	made, err := cni.New(append([]cni.Opt{cni.WithSocket(d.socket)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}
