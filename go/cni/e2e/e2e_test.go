//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	cni "github.com/containerd/go-cni"
)

const (
	roleVariable = "WORKLOADNET_E2E_ROLE"
	roleNode     = "node"
	roleWorkload = "workload"
)

// TestMain starts itself once more in a network namespace of its own, which is the node. Without a daemon all fails.
func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case roleWorkload:
		live()
	case roleNode:
		os.Exit(m.Run())
	default:
		os.Exit(onNode())
	}
}

func onNode() int {
	if os.Getenv(daemonVariable) == "" {
		fmt.Fprintf(os.Stderr, "%s has to name a workloadnetd: cargo xtask go does that\n", daemonVariable)
		return 1
	}
	node := exec.Command("/proc/self/exe", os.Args[1:]...)
	node.Env = append(os.Environ(), roleVariable+"="+roleNode)
	node.Stdin, node.Stdout, node.Stderr = os.Stdin, os.Stdout, os.Stderr
	node.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		node.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		node.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		node.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	err := node.Run()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		return ended.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "no namespace for the node:", err)
		return 1
	}
	return 0
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestAContainerIsAttachedAndNothingIsLeftOfIt(t *testing.T) {
	d := newDaemon(t)
	c, w, port := d.cni(t), newInside(t), greet(t)
	result, err := c.Setup(within(t), "pod-1", w.path(), cni.WithLabels(map[string]string{"K8S_POD_NAME": "web-0"}))
	if err != nil {
		t.Fatal(err)
	}
	eth0, lo := result.Interfaces["eth0"], w.links(t)["lo"]
	found := w.links(t)["eth0"]
	var addresses []string
	for _, ip := range eth0.IPConfigs {
		addresses = append(addresses, ip.IP.String())
	}
	if len(addresses) != 2 || !strings.HasPrefix(addresses[0], "10.77.0.") || !strings.HasPrefix(addresses[1], "fd77:77:77:") {
		t.Fatalf("the addresses are %v", addresses)
	}
	expected := link{Up: true, MTU: 1400, MAC: eth0.Mac, Addresses: []string{addresses[0] + "/32", addresses[1] + "/128"}}
	// Beside these it has the link-local one that the kernel gives.
	if found.Addresses = without(found.Addresses, "fe80:"); !reflect.DeepEqual(found, expected) {
		t.Errorf("inside: %+v, and not %+v", found, expected)
	}
	if !lo.Up || !reflect.DeepEqual(lo.Addresses, []string{"127.0.0.1/8", "::1/128"}) || len(result.Interfaces["lo"].IPConfigs) != 2 {
		t.Errorf("loopback: %+v", lo)
	}
	if eth0.Sandbox != w.path() || result.Raw()[1].Interfaces[1].Mtu != 1400 {
		t.Errorf("%+v, %+v", eth0, result.Raw()[1].Interfaces[1])
	}
	host := result.Raw()[1].Interfaces[0]
	if outside := links()[host.Name]; !outside.Up || outside.MAC != host.Mac || result.Interfaces[host.Name].Mac != host.Mac {
		t.Errorf("the host's end: %+v, %+v", outside, host)
	}
	for first, own := range map[string]string{"169.254.77.1": "::ffff:" + addresses[0], "[fe80::1%eth0]": addresses[1]} {
		if heard := w.hears(t, first+":"+port); heard != "hello "+strings.TrimPrefix(own, "::ffff:") {
			t.Errorf("by %s: %s", first, heard)
		}
	}
	again, err := d.cni(t).SetupSerially(within(t), "pod-1", w.path())
	if err != nil || text(t, again) != text(t, result) {
		t.Errorf("again: %v\n%s\n%s", err, text(t, result), text(t, again))
	}
	if err := c.Check(within(t), "pod-1", w.path()); err != nil {
		t.Error(err)
	}
	for _, path := range []string{w.path(), "", ""} {
		if err := c.Remove(within(t), "pod-1", path); err != nil {
			t.Error(err)
		}
	}
	if err := c.Check(within(t), "pod-1", ""); !cni.IsNotFound(err) {
		t.Error(err)
	}
	if _, isThere := w.links(t)["eth0"]; isThere {
		t.Error("eth0 is left inside")
	}
	if _, isThere := links()[host.Name]; isThere {
		t.Errorf("%s is left outside", host.Name)
	}
}

func TestTheOldSandboxOfALivePodGoesAlone(t *testing.T) {
	d := newDaemon(t)
	c, port := d.cni(t), greet(t)
	pod := cni.WithLabels(map[string]string{"K8S_POD_UID": "1b2c"})
	old, live := newInside(t), newInside(t)
	for id, w := range map[string]*inside{"sandbox-1": old, "sandbox-2": live} {
		if _, err := c.Setup(within(t), id, w.path(), pod); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Remove(within(t), "sandbox-1", "", pod); err != nil {
		t.Fatal(err)
	}
	if heard := live.hears(t, "169.254.77.1:"+port); !strings.HasPrefix(heard, "hello") {
		t.Error(heard)
	}
	if err := c.Check(within(t), "sandbox-2", live.path()); err != nil {
		t.Error(err)
	}
	if err := c.Check(within(t), "sandbox-2", old.path()); err == nil {
		t.Error("the old sandbox's namespace passes for the live one's")
	}
}

func TestADaemonThatIsKilledIsMissedByNobody(t *testing.T) {
	d := newDaemon(t)
	c, w, port := d.cni(t), newInside(t), greet(t)
	before, err := c.Setup(within(t), "pod-1", w.path())
	if err != nil {
		t.Fatal(err)
	}
	d.end(syscall.SIGKILL)
	began := time.Now()
	if err := c.Status(); !cni.IsCNINotInitialized(err) || time.Since(began) > time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if heard := w.hears(t, "169.254.77.1:"+port); !strings.HasPrefix(heard, "hello") {
		t.Error(heard)
	}
	type outcome struct {
		result *cni.Result
		err    error
	}
	done := make(chan outcome, 1)
	ctx := within(t)
	go func() {
		result, err := c.Setup(ctx, "pod-1", w.path())
		done <- outcome{result, err}
	}()
	d.start(t)
	after := <-done
	if after.err != nil || text(t, before) != text(t, after.result) {
		t.Errorf("%v\n%s\n%s", after.err, text(t, before), text(t, after.result))
	}
}

func TestARemovalWhileTheDaemonIsDownIsMadeUpFor(t *testing.T) {
	d := newDaemon(t)
	c, w := d.cni(t), newInside(t)
	if _, err := c.Setup(within(t), "pod-1", w.path()); err != nil {
		t.Fatal(err)
	}
	d.end(syscall.SIGKILL)
	if err := c.Remove(within(t), "pod-1", w.path()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(d.folder, "queue", "*"))
	if err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
	d.start(t)
	// Whoever comes first carries it out: the daemon, or the next call of the same key.
	other := newInside(t)
	result, err := c.Setup(within(t), "pod-1", other.path())
	if err != nil {
		t.Fatal(err)
	}
	if _, isThere := w.links(t)["eth0"]; isThere {
		t.Error("the old one is there still")
	}
	if err := c.Check(within(t), "pod-1", other.path()); err != nil || result.Interfaces["eth0"].Sandbox != other.path() {
		t.Error(err)
	}
	if files, _ := filepath.Glob(filepath.Join(d.folder, "queue", "*")); len(files) != 0 {
		t.Errorf("%v wait still", files)
	}
}

func TestRefusalsOfTheDaemonAreToldApart(t *testing.T) {
	d := newDaemon(t)
	c, w := d.cni(t), newInside(t)
	if _, err := c.Setup(within(t), "pod-1", "/run/netns/none"); !cni.IsNotFound(err) {
		t.Error(err)
	}
	var refused *cni.Error
	_, err := c.Setup(within(t), "pod-1", w.path(), cni.WithArgs("IP", "192.0.2.1"))
	if !errors.As(err, &refused) || refused.Field != "requested_ip" || !cni.IsInvalidConfig(err) {
		t.Error(err)
	}
	if _, err := c.Setup(within(t), "pod-1", w.path(), cni.WithArgs("IP", "10.77.0.9")); err != nil {
		t.Error(err)
	}
	_, err = c.Setup(within(t), "pod-2", newInside(t).path(), cni.WithCapability("ips", []string{"10.77.0.9/24"}))
	if !errors.As(err, &refused) || refused.Code != codes.ResourceExhausted || !strings.Contains(refused.Metadata["holder"], "pod-1") {
		t.Errorf("%v, %+v", err, refused)
	}
	if err := c.Remove(within(t), strings.Repeat("x", 129), ""); err != nil {
		t.Error(err)
	}
}

func text(t *testing.T, result *cni.Result) string {
	t.Helper()
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func without(list []string, prefix string) []string {
	var rest []string
	for _, one := range list {
		if !strings.HasPrefix(one, prefix) {
			rest = append(rest, one)
		}
	}
	return rest
}
