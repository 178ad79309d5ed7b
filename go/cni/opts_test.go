package cni

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestAnOptionsErrorIsReturned(t *testing.T) {
	wrong := errors.New("wrong")
	f := newFake(t)
	if _, err := New(func(*settings) error { return wrong }); !errors.Is(err, wrong) {
		t.Error(err)
	}
	if _, err := New(nil); !IsInvalidConfig(err) {
		t.Error(err)
	}
	c := f.cni(t)
	bad := func(*Namespace) error { return wrong }
	_, setup := c.Setup(context.Background(), "pod-1", path, bad)
	for _, err := range []error{
		setup, c.Remove(context.Background(), "pod-1", path, bad), c.Check(context.Background(), "pod-1", path, bad),
	} {
		if !errors.Is(err, wrong) {
			t.Error(err)
		}
	}
	if err := c.Load(func(*settings) error { return wrong }); !errors.Is(err, wrong) || !errors.Is(err, ErrLoad) {
		t.Error(err)
	}
}

func TestTheSocketIsTheOptionsThenTheEnvironmentsThenTheDefault(t *testing.T) {
	socket := func(opts ...Opt) string {
		c, err := New(opts...)
		if err != nil {
			t.Fatal(err)
		}
		return c.(*instance).Networks()[0].daemon.socket
	}
	t.Setenv(SocketVariable, "")
	if found := socket(); found != "/run/workloadnet/workloadnet.sock" {
		t.Error(found)
	}
	t.Setenv(SocketVariable, "/env.sock")
	if found := socket(); found != "/env.sock" {
		t.Error(found)
	}
	ours := WithConf([]byte(`{"name": "n", "type": "workloadnet-cni", "socket": "/conf.sock"}`))
	if found := socket(ours); found != "/conf.sock" {
		t.Error(found)
	}
	if found := socket(ours, WithSocket("/option.sock")); found != "/option.sock" {
		t.Error(found)
	}
}

func TestTheOwnerIsTheOptionsThenTheNetworksThenContainerd(t *testing.T) {
	bridge := WithConfListBytes([]byte(`{"name": "blue", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}`))
	ours := WithConfListBytes([]byte(
		`{"name": "blue", "plugins": [{"type": "tuning"}, {"type": "workloadnet-cni", "owner": "shop", "mtu": 1300}]}`))
	for expected, opts := range map[string][]Opt{
		"containerd": nil,
		"blue":       {bridge},
		"shop":       {ours},
		"mine":       {WithOwner("mine"), ours},
		"":           {ours, WithOwner("")},
	} {
		c, err := New(opts...)
		if err != nil {
			t.Fatal(err)
		}
		networks := c.(*instance).Networks()
		if owner := networks[len(networks)-1].owner; owner != expected {
			t.Errorf("%q is not %q", owner, expected)
		}
	}
}

func TestGetConfigSaysWhatIsDone(t *testing.T) {
	c, err := New(WithSocket("/w.sock"), WithPluginConfDir("/conf"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "config.json", c.GetConfig())
	file := filepath.Join(t.TempDir(), "a.conflist")
	source := `{"name": "blue", "cniVersion": "1.0.0", "plugins": [{"type": "bridge", "bridge": "b0"}]}`
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Load(WithConf([]byte(`{"name": "red", "cniVersion": "0.4.0", "type": "bridge"}`))); err != nil {
		t.Fatal(err)
	}
	list := `{"cniVersion":"0.4.0","name":"red","plugins":[{"name":"red","cniVersion":"0.4.0","type":"bridge"}]}`
	if made := c.GetConfig().Networks[0].Config.Source; made != list {
		t.Error(made)
	}
	if err := c.Load(WithConfListFile(file)); err != nil {
		t.Fatal(err)
	}
	network := c.GetConfig().Networks[0]
	if network.Config.Source != source || network.Config.Plugins[0].Source != `{"type": "bridge", "bridge": "b0"}` ||
		network.Config.Plugins[0].Network.Type != "bridge" || network.IFName != "eth0" {
		t.Errorf("%s", marshal(t, network))
	}
}
