//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// inside is a process in a network namespace of its own, which does there what it is told.
type inside struct {
	command *exec.Cmd
	words   io.WriteCloser
	answers *bufio.Scanner
}

// link is what it says of an interface.
type link struct {
	Up        bool
	MTU       int
	MAC       string
	Addresses []string
}

func newInside(t *testing.T) *inside {
	t.Helper()
	command := exec.Command("/proc/self/exe")
	// The race detector keeps every process for a second after its end.
	command.Env = append(os.Environ(), roleVariable+"="+roleWorkload, "GORACE=atexit_sleep_ms=0")
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	words, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	w := &inside{command: command, words: words, answers: bufio.NewScanner(answers)}
	t.Cleanup(func() {
		words.Close()
		command.Wait()
	})
	return w
}

func (w *inside) path() string { return fmt.Sprintf("/proc/%d/ns/net", w.command.Process.Pid) }

func (w *inside) tell(t *testing.T, words string) []byte {
	t.Helper()
	if _, err := fmt.Fprintln(w.words, words); err != nil {
		t.Fatal(err)
	}
	if !w.answers.Scan() {
		t.Fatalf("no answer to %s: %v", words, w.answers.Err())
	}
	return w.answers.Bytes()
}

func (w *inside) links(t *testing.T) map[string]link {
	t.Helper()
	var links map[string]link
	if err := json.Unmarshal(w.tell(t, "links"), &links); err != nil {
		t.Fatal(err)
	}
	return links
}

// hears says what a listener outside greets with, or why it cannot be heard.
func (w *inside) hears(t *testing.T, address string) string {
	t.Helper()
	return string(w.tell(t, address))
}

// live is the process itself.
func live() {
	words := bufio.NewScanner(os.Stdin)
	for words.Scan() {
		if words.Text() == "links" {
			text, _ := json.Marshal(links())
			fmt.Println(string(text))
			continue
		}
		fmt.Println(greeting(words.Text()))
	}
}

func links() map[string]link {
	found := map[string]link{}
	all, _ := net.Interfaces()
	for _, one := range all {
		l := link{Up: one.Flags&net.FlagUp != 0, MTU: one.MTU, MAC: one.HardwareAddr.String()}
		addresses, _ := one.Addrs()
		for _, address := range addresses {
			l.Addresses = append(l.Addresses, address.String())
		}
		found[one.Name] = l
	}
	return found
}

func greeting(address string) string {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// greet listens on every address of this namespace and greets with the caller's address.
func greet(t *testing.T) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
			fmt.Fprint(conn, "hello ", host)
			conn.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port
}
