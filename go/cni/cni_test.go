package cni

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

func TestStatusIsForPeopleAndDoesNotHang(t *testing.T) {
	f := absentFake(t)
	c := f.cni(t)
	began := time.Now()
	err := c.Status()
	says := fmt.Sprintf("cni plugin not initialized: workloadnetd cannot be reached on %s: no such file or directory", f.socket)
	if err == nil || err.Error() != says || !IsCNINotInitialized(err) {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v to see that nobody is there", took)
	}

	f.start(t)
	if err := c.Status(); err != nil {
		t.Errorf("the daemon is there at once, and: %v", err)
	}

	f.answerWith("Status", refuseFor(time.Millisecond, "NOT_READY", "not ready: no prefix; no uplink"))
	err = c.Status()
	if text := "cni plugin not initialized: workloadnetd: not ready: no prefix; no uplink"; err == nil || err.Error() != text {
		t.Error(err)
	}

	hang := make(chan struct{})
	defer close(hang)
	f.set(func() { f.before = func(string) error { <-hang; return nil } })
	began = time.Now()
	err = c.Status()
	if took := time.Since(began); took < 1900*time.Millisecond || took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
	says = fmt.Sprintf("cni plugin not initialized: workloadnetd on %s did not answer within 2s", f.socket)
	if err == nil || err.Error() != says {
		t.Error(err)
	}
}

func TestEachNetworkGetsAnInterface(t *testing.T) {
	f := newFake(t)
	list := func(name string) Opt {
		return WithConfListBytes(fmt.Appendf(nil, `{"name": %q, "plugins": [{"type": "bridge"}]}`, name))
	}
	c := f.cni(t, WithInterfacePrefix("net"), list("blue"), list("red"))
	result, err := c.Setup(context.Background(), "pod-1", path)
	if err != nil {
		t.Fatal(err)
	}
	if raw := result.Raw(); len(raw) != 2 || raw[0].Interfaces[1].Name != "net0" || raw[1].Interfaces[1].Name != "net1" {
		t.Errorf("%s", marshal(t, raw))
	}
	var keys []string
	for _, sent := range f.attached {
		keys = append(keys, sent.Owner+"/"+sent.Netns.IfName)
	}
	slices.Sort(keys)
	if !slices.Equal(keys, []string{"blue/net0", "red/net1"}) {
		t.Errorf("%v", keys)
	}
	if err := c.Remove(context.Background(), "pod-1", ""); err != nil || f.times("Detach") != 2 {
		t.Error(err)
	}
}

func TestASetupOfSeveralNetworksThatFailsLeavesNone(t *testing.T) {
	f := newFake(t)
	list := func(name string) Opt {
		return WithConfListBytes(fmt.Appendf(nil, `{"name": %q, "plugins": [{"type": "bridge"}]}`, name))
	}
	c := f.cni(t, list("blue"), list("red"))
	f.set(func() {
		f.before = func(method string) error {
			if method == "Attach" && f.times("Attach") > 1 {
				return refuse(codes.ResourceExhausted, "ADDRESSES_EXHAUSTED", "no address is left")
			}
			return nil
		}
	})
	if _, err := c.SetupSerially(context.Background(), "pod-1", path); err == nil {
		t.Error("it succeeded")
	}
	if sent := f.detaches(); len(sent) != 1 || sent[0].Owner != "blue" || sent[0].Netns.NetnsPath != path {
		t.Errorf("%v", sent)
	}
}

func TestALoadThatFailsLeavesAllAsItWas(t *testing.T) {
	f := newFake(t)
	c := f.cni(t, WithConf([]byte(`{"name": "blue", "type": "bridge"}`)))
	for name, c2 := range map[string]struct {
		opt   Opt
		class error
	}{
		"no JSON":    {WithConf([]byte("{")), ErrInvalidConfig},
		"no type":    {WithConf([]byte(`{"name": "x"}`)), ErrInvalidConfig},
		"no name":    {WithConfListBytes([]byte(`{"plugins": [{"type": "x"}]}`)), ErrInvalidConfig},
		"no plugins": {WithConfListBytes([]byte(`{"name": "x"}`)), ErrInvalidConfig},
		"no file":    {WithConfListFile("/none"), ErrRead},
		"bad ours":   {WithConf([]byte(`{"type": "workloadnet-cni", "mtu": "much"}`)), ErrInvalidConfig},
	} {
		if err := c.Load(c2.opt); !errors.Is(err, c2.class) || !errors.Is(err, ErrLoad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if name := c.GetConfig().Networks[0].Config.Name; name != "blue" {
		t.Error(name)
	}
}

func TestLoadMayBeCalledAtAnyTime(t *testing.T) {
	f := newFake(t)
	c := f.cni(t)
	var group sync.WaitGroup
	for i := range 8 {
		group.Add(3)
		go func() {
			defer group.Done()
			if err := c.Load(WithLoNetwork, WithDefaultConf); err != nil {
				t.Error(err)
			}
		}()
		go func() {
			defer group.Done()
			if _, err := c.Setup(context.Background(), fmt.Sprint("pod-", i), path); err != nil {
				t.Error(err)
			}
		}()
		go func() {
			defer group.Done()
			if err := c.Status(); err != nil {
				t.Error(err)
			}
			marshal(t, c.GetConfig())
		}()
	}
	group.Wait()
}

func TestStatusOfSeveralDaemonsTakesNoLonger(t *testing.T) {
	var opts []Opt
	for range 3 {
		f := newFake(t)
		f.set(func() { f.before = func(string) error { time.Sleep(time.Second); return nil } })
		opts = append(opts, WithConf(fmt.Appendf(nil, `{"type": "workloadnet-cni", "socket": %q}`, f.socket)))
	}
	c, err := New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := c.Status(); err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestASetupThatFailsIsNotProlongedByADaemonThatHangs(t *testing.T) {
	f := newFake(t)
	list := func(name string) Opt {
		return WithConfListBytes(fmt.Appendf(nil, `{"name": %q, "plugins": [{"type": "bridge"}]}`, name))
	}
	c := f.cni(t, list("blue"), list("green"), list("red"))
	hang := make(chan struct{})
	defer close(hang)
	f.set(func() {
		f.before = func(method string) error {
			if method == "Detach" {
				<-hang
			}
			if method == "Attach" && f.times("Attach") > 2 {
				return refuse(codes.ResourceExhausted, "ADDRESSES_EXHAUSTED", "no address is left")
			}
			return nil
		}
	})
	began := time.Now()
	if _, err := c.SetupSerially(context.Background(), "pod-1", path); err == nil {
		t.Error("it succeeded")
	}
	if took := time.Since(began); took > 4*time.Second || len(queued(t, f)) != 2 {
		t.Errorf("%v wait after %v", queued(t, f), took)
	}
}
