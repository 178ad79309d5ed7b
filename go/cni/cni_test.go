package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/containerd/go-cni/internal/inspection"
	"github.com/containerd/go-cni/internal/workload"
)

var update = flag.Bool("update", false, "write the golden files anew")

const path = "/run/netns/pod-1"

func TestSetupAttachesTheSandboxUnderItsID(t *testing.T) {
	f := newFake(t)
	_, err := f.cni(t).Setup(context.Background(), "pod-1", path,
		WithLabels(map[string]string{
			"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": "web-0", "K8S_POD_UID": "1b2", "IgnoreUnknown": "1",
		}),
		WithCapability("io.kubernetes.cri.pod-annotations", map[string]string{"a": "b"}),
		WithCapabilityCgroupPath("/kubepods/pod1b2"),
		WithCapabilityPortMap([]PortMapping{
			{HostPort: 8080, ContainerPort: 80, Protocol: "tcp", HostIP: "192.0.2.1"},
			{HostPort: 53, ContainerPort: 5353, Protocol: "UDP"},
		}),
		WithCapabilityBandWidth(BandWidth{IngressRate: 10_000_000, IngressBurst: 4294967295}),
		WithCapabilityDNS(DNS{Servers: []string{"10.96.0.10"}}),
		WithArgs("IP", "10.77.0.9"),
		WithArgs("MAC", "0a:58:0a:4d:00:09"),
		WithCapability("ips", []string{"fd77:77:77::9/64", "10.77.0.9"}),
		WithCapability("aliases", []string{"web"}),
	)
	if err != nil {
		t.Fatal(err)
	}
	expected := &workload.AttachRequest{
		WorkloadId:   "pod-1",
		Owner:        "containerd",
		Netns:        &workload.NetNSAttachment{NetnsPath: path, IfName: "eth0"},
		Labels:       map[string]string{"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": "web-0", "K8S_POD_UID": "1b2"},
		RequestedIp:  [][]byte{{0xfd, 0x77, 0, 0x77, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}, {10, 77, 0, 9}},
		RequestedMac: []byte{0x0a, 0x58, 0x0a, 0x4d, 0, 9},
		PortMapping: []*workload.PortMapping{
			{HostPort: 8080, ContainerPort: 80, Protocol: workload.PortMapping_PROTOCOL_TCP, HostIp: []byte{192, 0, 2, 1}},
			{HostPort: 53, ContainerPort: 5353, Protocol: workload.PortMapping_PROTOCOL_UDP},
		},
		Bandwidth: &workload.Bandwidth{IngressRate: 10_000_000, IngressBurst: 4294967295},
		Alias:     []string{"web"},
	}
	if sent := f.lastAttach(t); !proto.Equal(sent, expected) {
		t.Errorf("sent      %v\nexpected  %v", sent, expected)
	}
	if f.authority != "localhost" {
		t.Errorf("the authority is %q", f.authority)
	}
}

func TestTheResultIsThatOfGoCNI(t *testing.T) {
	f := newFake(t)
	result, err := f.cni(t).Setup(context.Background(), "pod-1", path,
		WithCapabilityDNS(DNS{Servers: []string{"10.96.0.10"}, Searches: []string{"shop.svc"}, Options: []string{"ndots:5"}}))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "result.json", result)
	golden(t, "raw.json", result.Raw())

	again, err := f.cni(t).SetupSerially(context.Background(), "pod-1", path,
		WithCapabilityDNS(DNS{Servers: []string{"10.96.0.10"}, Searches: []string{"shop.svc"}, Options: []string{"ndots:5"}}))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "result.json", again)

	// containerd keeps the JSON over its restarts.
	var kept Result
	if err := json.Unmarshal(marshal(t, result), &kept); err != nil {
		t.Fatal(err)
	}
	golden(t, "result.json", &kept)
}

func golden(t *testing.T, name string, value any) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, marshal(t, value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expected, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if found := marshal(t, value); !bytes.Equal(found, expected) {
		t.Errorf("%s is not\n%s", file, found)
	}
}

func marshal(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func TestWhatCannotBeHadIsRefusedByName(t *testing.T) {
	f := newFake(t)
	for name, c := range map[string]struct {
		opt  NamespaceOpts
		says string
	}{
		"ranges":    {WithCapabilityIPRanges([]IPRanges{{Subnet: "10.0.0.0/8"}}), "capability ipRanges"},
		"unknown":   {WithCapability("deviceID", "0000:00:1f.6"), "capability deviceID"},
		"wrongType": {WithCapability("portMappings", "80"), "capability portMappings"},
		"annotate":  {WithCapability("dns", 7), "capability dns"},
		"port":      {WithCapabilityPortMap([]PortMapping{{HostPort: 80}}), "0 is no port"},
		"protocol":  {WithCapabilityPortMap([]PortMapping{{1, 1, "icmp", ""}}), `"icmp" is no protocol`},
		"hostIP":    {WithCapabilityPortMap([]PortMapping{{1, 1, "tcp", "all"}}), `"all" is no address`},
		"ip":        {WithArgs("IP", "10.77"), `argument IP of workload "pod-1": "10.77" is no address`},
		"mac":       {WithArgs("MAC", "02:00"), `"02:00" is no MAC`},
		"ips":       {WithCapability("ips", []any{"x"}), `"x" is no address`},
		"channel":   {WithCapability("aliases", make(chan int)), "capability aliases"},
		"nil":       {nil, "option 0 of workload"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.cni(t).Setup(context.Background(), "pod-1", path, c.opt)
			if err == nil || !strings.Contains(err.Error(), c.says) || !IsInvalidConfig(err) {
				t.Errorf("%v", err)
			}
		})
	}
	if f.times("Attach") > 0 {
		t.Error("something was attached")
	}
}

func TestWhatAsksForNothingIsNotRefused(t *testing.T) {
	f := newFake(t)
	_, err := f.cni(t).Setup(context.Background(), "pod-1", path,
		WithCapabilityIPRanges(nil), WithCapability("infinibandGUID", ""), WithCapability("ips", nil),
		WithCapability("mac", ""), WithCapabilityPortMap(nil), WithCapabilityBandWidth(BandWidth{}), WithLabels(nil))
	if err != nil {
		t.Fatal(err)
	}
	if sent := f.lastAttach(t); sent.Bandwidth != nil || len(sent.PortMapping) > 0 || len(sent.RequestedIp) > 0 {
		t.Errorf("%v", sent)
	}
}

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

func TestAnOlderDaemonIsNamed(t *testing.T) {
	f := newFake(t)
	f.set(func() { f.features = []string{"owner", "result", "labels"} })
	_, err := f.cni(t).Setup(context.Background(), "pod-1", path, WithArgs("MAC", "0a:58:0a:4d:00:09"))
	says := fmt.Sprintf("workloadnetd 0.1.0 on %s cannot do \"requested-mac\", which the argument MAC asks for", f.socket)
	if err == nil || !strings.Contains(err.Error(), says) || !IsInvalidConfig(err) {
		t.Error(err)
	}
	if _, err := f.cni(t).Setup(context.Background(), "pod-1", path); err != nil {
		t.Error(err)
	}

	reference := newFake(t)
	reference.answerWith("GetNode", refuse(codes.Unimplemented, "", "unknown service workloadnet.v1.Inspection"))
	_, err = reference.cni(t).Setup(context.Background(), "pod-1", path)
	if err == nil || !strings.Contains(err.Error(), `cannot do "result"`) {
		t.Error(err)
	}
}

func TestADaemonIsAskedOnceForEachConnectionWhatItCanDo(t *testing.T) {
	f := newFake(t)
	c := f.cni(t)
	setup := func() {
		t.Helper()
		if _, err := c.Setup(context.Background(), "pod-1", path); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		setup()
	}
	// The first may have been asked before the connection stood.
	if asked := f.times("GetNode"); asked > 2 {
		t.Errorf("asked %d times", asked)
	}
	f.stop()
	f.set(func() { f.features = []string{"owner"} })
	f.start(t)
	if _, err := c.Setup(context.Background(), "pod-1", path); !IsInvalidConfig(err) {
		t.Errorf("an older daemon took over, and: %v", err)
	}
}

func TestSetupWaitsForADaemonThatIsNotThereYet(t *testing.T) {
	f := absentFake(t)
	c := f.cni(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.Setup(context.Background(), "pod-1", path)
		done <- err
	}()
	time.Sleep(200 * time.Millisecond)
	f.start(t)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits still")
	}
}

func TestSetupComesBackWhenTheDaemonSays(t *testing.T) {
	f := newFake(t)
	f.answerWith("Attach", refuseFor(50*time.Millisecond, "NOT_READY", "not ready: recovering"))
	time.AfterFunc(200*time.Millisecond, func() { f.answerWith("", nil) })
	if _, err := f.cni(t).Setup(context.Background(), "pod-1", path); err != nil {
		t.Error(err)
	}
	if tried := f.times("Attach"); tried < 3 || tried > 8 {
		t.Errorf("tried %d times", tried)
	}
}

func TestSetupEndsWithItsContext(t *testing.T) {
	for name, f := range map[string]*fake{"absent": absentFake(t), "unready": newFake(t)} {
		f.answerWith("Attach", refuseFor(20*time.Millisecond, "NOT_READY", "not ready: no prefix"))
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err := f.cni(t).Setup(ctx, "pod-1", path)
		if !IsCNINotInitialized(err) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		says := map[string]string{"absent": "cannot be reached on " + f.socket, "unready": "not ready: no prefix"}[name]
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := absentFake(t).cni(t).Setup(ctx, "pod-1", path); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestARefusalIsPassedOnWithWhatItSays(t *testing.T) {
	f := newFake(t)
	f.answerWith("Attach", refuse(codes.NotFound, "NAMESPACE_NOT_FOUND", "netns.netns_path: nothing is there",
		"field", "netns.netns_path", "value", path))
	_, err := f.cni(t).Setup(context.Background(), "pod-1", path)
	var refused *Error
	if !errors.As(err, &refused) || refused.Reason != "NAMESPACE_NOT_FOUND" || refused.Field != "netns.netns_path" ||
		refused.Metadata["value"] != path || refused.Code != codes.NotFound || !IsNotFound(err) {
		t.Errorf("%+v", err)
	}
	if text := "attach containerd/pod-1/eth0: workloadnetd: netns.netns_path: nothing is there"; err.Error() != text {
		t.Error(err)
	}
}

func TestACallWhoseConnectionIsLostIsMadeAgain(t *testing.T) {
	f := newFake(t)
	c := f.cni(t)
	if err := c.Status(); err != nil {
		t.Fatal(err)
	}
	once := sync.OnceFunc(func() {
		go f.stop()
		time.Sleep(100 * time.Millisecond)
	})
	f.set(func() {
		f.before = func(method string) error {
			if method == "Attach" {
				once()
			}
			return nil
		}
	})
	time.AfterFunc(300*time.Millisecond, func() { f.start(t) })
	if _, err := c.Setup(context.Background(), "pod-1", path); err != nil {
		t.Error(err)
	}
}

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

func TestAListenerThatSaysNothingDoesNotHang(t *testing.T) {
	f := absentFake(t)
	silent(t, f.socket)
	began := time.Now()
	if err := f.cni(t).Status(); !IsCNINotInitialized(err) || time.Since(began) > 4*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestRemoveSucceedsWhateverIsMissing(t *testing.T) {
	f := newFake(t)
	c := f.cni(t)
	for range 3 {
		if err := c.Remove(context.Background(), "pod-1", ""); err != nil {
			t.Error(err)
		}
	}
	expected := &workload.DetachRequest{
		WorkloadId: "pod-1", Owner: "containerd", Netns: &workload.NetNSAttachment{IfName: "eth0"},
	}
	if sent := f.detaches(); len(sent) != 3 || !proto.Equal(sent[0], expected) {
		t.Errorf("%v", sent)
	}
	for _, refused := range []error{
		refuse(codes.NotFound, "NOT_ATTACHED", "it is not attached"),
		refuse(codes.InvalidArgument, "INVALID_FIELD", "workload_id \"\": must not be empty", "field", "workload_id"),
	} {
		f.answerWith("Detach", refused)
		if err := c.Remove(context.Background(), "", ""); err != nil {
			t.Error(err)
		}
	}
	if err := c.Remove(context.Background(), "\xff", ""); err != nil {
		t.Error(err)
	}
	// What it may have asked for is of no matter any more.
	f.answerWith("", nil)
	if err := c.Remove(context.Background(), "pod-1", path, WithCapabilityIPRanges([]IPRanges{{Subnet: "x"}})); err != nil {
		t.Error(err)
	}
	f.answerWith("Detach", refuse(codes.Internal, "KERNEL", "ip link delete: Device or resource busy (errno 16)"))
	if err := c.Remove(context.Background(), "pod-1", path); err == nil || !strings.Contains(err.Error(), "errno 16") {
		t.Error(err)
	}
}

func TestCheckComparesWithTheKernelAndTheNamespace(t *testing.T) {
	f := newFake(t)
	c := f.cni(t)
	if err := c.Check(context.Background(), "pod-1", ""); !IsNotFound(err) {
		t.Error(err)
	}
	device, inode, err := identity("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.got = &inspection.Attachment{NamespaceDevice: device, NamespaceInode: inode} })
	for _, own := range []string{"", "/proc/self/ns/net"} {
		if err := c.Check(context.Background(), "pod-1", own); err != nil {
			t.Error(err)
		}
	}
	if err := c.Check(context.Background(), "pod-1", "/proc/self/ns/mnt"); err == nil ||
		!strings.Contains(err.Error(), "another namespace than /proc/self/ns/mnt") {
		t.Error(err)
	}
	if err := c.Check(context.Background(), "pod-1", "/run/netns/gone"); !IsNotFound(err) {
		t.Error(err)
	}
	f.set(func() { f.found = []string{"host route 10.77.0.5/32 is missing", "the host end is down"} })
	err = c.Check(context.Background(), "pod-1", "")
	if text := "check containerd/pod-1/eth0: host route 10.77.0.5/32 is missing\nthe host end is down"; err == nil || err.Error() != text {
		t.Error(err)
	}
}

func TestInstancesShareOneConnection(t *testing.T) {
	f := newFake(t)
	var group sync.WaitGroup
	for i := range 20 {
		c := f.cni(t)
		group.Add(1)
		go func() {
			defer group.Done()
			if _, err := c.Setup(context.Background(), fmt.Sprint("pod-", i), path); err != nil {
				t.Error(err)
			}
		}()
	}
	group.Wait()
	d, err := daemonAt(f.socket)
	if err != nil || d.connections.Load() != 1 {
		t.Errorf("%d connections were made, %v", d.connections.Load(), err)
	}
}

func TestNewAndLoadAskNobody(t *testing.T) {
	f := absentFake(t)
	c := f.cni(t, WithMinNetworkCount(2), WithPluginConfDir("/none"), WithPluginDir([]string{"/none"}))
	if err := c.Load(WithLoNetwork, WithDefaultConf); err != nil {
		t.Error(err)
	}
	if d, err := daemonAt(f.socket); err != nil || d.connections.Load() != 0 {
		t.Error("it connected")
	}
	for _, bad := range []string{"run/w.sock", "/" + strings.Repeat("x", 107), "/a\x00b"} {
		if _, err := New(WithSocket(bad)); !IsInvalidConfig(err) {
			t.Errorf("%q: %v", bad, err)
		}
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
	if err := c.Load(WithConfListFile(file)); err != nil {
		t.Fatal(err)
	}
	network := c.GetConfig().Networks[0]
	if network.Config.Source != source || network.Config.Plugins[0].Source != `{"type": "bridge", "bridge": "b0"}` ||
		network.Config.Plugins[0].Network.Type != "bridge" || network.IFName != "eth0" {
		t.Errorf("%s", marshal(t, network))
	}
}

func TestZeroValuesDoNotPanic(t *testing.T) {
	f := newFake(t)
	t.Setenv(SocketVariable, f.socket)
	var n Network
	var ns Namespace
	if _, err := n.Attach(context.Background(), &ns); err != nil {
		t.Error(err)
	}
	if err := n.Remove(context.Background(), &ns); err != nil {
		t.Error(err)
	}
	if err := n.Check(context.Background(), &ns); !IsNotFound(err) {
		t.Error(err)
	}
	if raw := new(Result).Raw(); raw != nil {
		t.Error(raw)
	}
}
