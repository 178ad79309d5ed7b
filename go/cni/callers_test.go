package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// What containerd's CRI, ctr and nerdctl do, in their order.

func TestWhatContainerdDoesWithAPodWorks(t *testing.T) {
	f := newFake(t)
	byRuntime := map[string]CNI{}
	for _, runtime := range []string{"", "gvisor"} {
		byRuntime[runtime] = f.cni(t, WithMinNetworkCount(2), WithPluginConfDir("/etc/cni/net.d"),
			WithPluginMaxConfNum(1), WithPluginDir([]string{"/opt/cni/bin"}))
	}
	c := byRuntime[""]
	if err := c.Status(); err != nil {
		if err := c.Load([]Opt{WithLoNetwork, WithDefaultConf}...); err != nil {
			t.Fatal(err)
		}
	}
	opts := []NamespaceOpts{
		WithLabels(map[string]string{"K8S_POD_NAME": "web-0", "K8S_POD_UID": "1b2", "IgnoreUnknown": "1"}),
		WithCapability("io.kubernetes.cri.pod-annotations", map[string]string(nil)),
		WithCapabilityDNS(DNS{}),
		WithCapabilityCgroupPath("/kubepods"),
	}
	result, err := c.Setup(context.Background(), "sandbox-1", path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	pod := result.Interfaces[DefaultPrefix+"0"]
	if pod == nil || len(pod.IPConfigs) != 2 || pod.IPConfigs[0].IP.String() != "10.77.0.5" {
		t.Errorf("%+v", pod)
	}
	if _, err := json.Marshal(c.GetConfig()); err != nil {
		t.Error(err)
	}
	// StopPodSandbox, once more by RemovePodSandbox, and hours later.
	for _, netns := range []string{path, "", ""} {
		if err := c.Remove(context.Background(), "sandbox-1", netns, opts...); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatCtrDoesWorks(t *testing.T) {
	f := newFake(t)
	t.Setenv(SocketVariable, f.socket)
	c, err := New(WithDefaultConf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Setup(context.Background(), "default-web", "/proc/4711/ns/net"); err != nil {
		t.Error(err)
	}
	if err := c.Remove(context.Background(), "default-web", ""); err != nil {
		t.Error(err)
	}
}

func TestWhatNerdctlDoesWorks(t *testing.T) {
	f := newFake(t)
	t.Setenv(SocketVariable, f.socket)
	names := []string{"bridge", "shop"}
	config := []Opt{WithPluginDir([]string{"/opt/cni/bin"})}
	for _, name := range names {
		config = append(config, WithConfListBytes(fmt.Appendf(nil,
			`{"cniVersion":"1.0.0","name":%q,"nerdctlID":"17","plugins":[{"type":"bridge","ipam":{"type":"host-local"}},{"type":"portmap"}]}`, name)))
	}
	c, err := New(config...)
	if err != nil {
		t.Fatal(err)
	}
	opts := []NamespaceOpts{
		WithCapabilityPortMap([]PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp", HostIP: "0.0.0.0"}}),
		WithLabels(map[string]string{"IgnoreUnknown": "1"}),
		WithArgs("IP", "10.77.0.5"),
		WithArgs("MAC", "0a:58:0a:4d:00:05"),
		WithCapability("ips", []string{"fd77:77:77::5"}),
		WithArgs("NERDCTL_CNI_DHCP_HOSTNAME", "web"),
	}
	// Before anything else, and without looking at the outcome.
	_ = c.Remove(context.Background(), "default-web", "", opts...)
	result, err := c.Setup(context.Background(), "default-web", "/proc/4711/ns/net", opts...)
	if err != nil {
		t.Fatal(err)
	}
	networks := map[string]*types100.Result{}
	for i, name := range names {
		networks[name] = result.Raw()[i]
	}
	for name, network := range networks {
		// It writes these into the container's hosts file: loopback must not be among them.
		if len(network.IPs) != 2 || network.IPs[0].Address.IP.String() != "10.77.0.5" {
			t.Errorf("%s: %+v", name, network.IPs)
		}
	}
}
