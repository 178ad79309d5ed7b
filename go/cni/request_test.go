package cni

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/containerd/go-cni/internal/workload"
)

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
		"two MACs": {func(ns *Namespace) error {
			return errors.Join(WithArgs("MAC", "02:00:00:00:00:01")(ns), WithCapability("mac", "02:00:00:00:00:02")(ns))
		}, "02:00:00:00:00:01 is another MAC than 02:00:00:00:00:02"},
		"nil": {nil, "option 0 of workload"},
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
		WithCapability("mac", ""), WithCapabilityPortMap(nil), WithCapabilityBandWidth(BandWidth{}), WithLabels(nil),
		WithArgs("IP", ""), WithArgs("MAC", ""))
	if err != nil {
		t.Fatal(err)
	}
	if sent := f.lastAttach(t); sent.Bandwidth != nil || len(sent.PortMapping) > 0 || len(sent.RequestedIp) > 0 {
		t.Errorf("%v", sent)
	}
}

func TestTextsThatAreNotUTF8AreRefusedByName(t *testing.T) {
	f := newFake(t)
	setup := func(id, path string, opts ...NamespaceOpts) error {
		_, err := f.cni(t).Setup(context.Background(), id, path, opts...)
		return err
	}
	for says, err := range map[string]error{
		`the id "\xff" is not UTF-8`:     setup("\xff", path),
		`the path "/\xff" is not UTF-8`:  setup("pod-1", "/\xff"),
		`"app"="\xff" is not UTF-8`:      setup("pod-1", path, WithArgs("app", "\xff")),
		`"\xff"="" is not UTF-8`:         setup("pod-1", path, WithArgs("\xff", "")),
		`the id "\xff\xfe" is not UTF-8`: f.cni(t).Check(context.Background(), "\xff\xfe", ""),
	} {
		if err == nil || !strings.Contains(err.Error(), says) || !IsInvalidConfig(err) {
			t.Errorf("%s: %v", says, err)
		}
	}
}
