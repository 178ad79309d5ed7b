package cni

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/containerd/go-cni/internal/inspection"
	"github.com/containerd/go-cni/internal/workload"
)

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

func TestANetworkThatForbidsChecksIsNotChecked(t *testing.T) {
	f := newFake(t)
	for value, isChecked := range map[string]bool{"true": false, `"true"`: false, "false": true, "null": true} {
		c := f.cni(t, WithConfListBytes(fmt.Appendf(nil,
			`{"name": "blue", "disableCheck": %s, "plugins": [{"type": "bridge"}]}`, value)))
		if err := c.Check(context.Background(), "pod-1", ""); IsNotFound(err) != isChecked {
			t.Errorf("%s: %v", value, err)
		}
	}
}
