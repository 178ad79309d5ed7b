package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/containerd/go-cni/internal/workload"
)

const (
	group    = 8
	loopback = 1
)

var (
	firstHops = map[bool]netip.Addr{
		true:  netip.AddrFrom4([4]byte{169, 254, 77, 1}),
		false: netip.MustParseAddr("fe80::1"),
	}
	firstHopMAC = net.HardwareAddr{0x02, 0x9c, 0x52, 0xfe, 0x6d, 0x0a}
)

// claimFirstHop lets the node answer for the first hop of IPv4.
func claimFirstHop() error {
	lo, err := netlink.LinkByIndex(loopback)
	if err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: alone(firstHops[true]), Scope: unix.RT_SCOPE_LINK}
	if err := netlink.AddrAdd(lo, address); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add the first hop: %w", err)
	}
	return nil
}

type service struct {
	workload.UnimplementedWorkloadNetworkingServer
	ledger *ledger
}

func (s *service) Status(context.Context, *workload.StatusRequest) (*workload.StatusResponse, error) {
	return &workload.StatusResponse{}, nil
}

func (s *service) Attach(_ context.Context, request *workload.AttachRequest) (*workload.AttachResponse, error) {
	name, addresses, err := s.ledger.take(request.GetWorkloadId())
	if err != nil {
		return nil, err
	}
	namespace, err := netns.GetFromPath(request.GetNetns().GetNetnsPath())
	if err != nil {
		return nil, fmt.Errorf("open the namespace: %w", err)
	}
	defer namespace.Close()
	inside, err := netlink.NewHandleAt(namespace, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a socket inside: %w", err)
	}
	defer inside.Close()

	host, err := addLinks(name, request, namespace)
	if err != nil {
		return nil, err
	}
	eth0, err := raise(inside, request.GetNetns().GetIfName())
	if err != nil {
		return nil, err
	}
	answer := &workload.AttachResponse{}
	for _, address := range addresses {
		if err := route(inside, host, eth0, address); err != nil {
			return nil, err
		}
		answer.Ip = append(answer.Ip, address.AsSlice())
	}
	return answer, nil
}

// addLinks makes both ends, and sets the node's up; its index.
func addLinks(name string, request *workload.AttachRequest, namespace netns.NsHandle) (int, error) {
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.Group, attributes.HardwareAddr = name, group, firstHopMAC
	link := &netlink.Veth{
		LinkAttrs:     attributes,
		PeerName:      request.GetNetns().GetIfName(),
		PeerNamespace: netlink.NsFd(namespace),
	}
	if err := netlink.LinkAdd(link); err != nil {
		return 0, fmt.Errorf("add the links: %w", err)
	}
	if err := netlink.LinkSetAlias(link, request.GetWorkloadId()); err != nil {
		return 0, fmt.Errorf("set the alias: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("set the node's end up: %w", err)
	}
	return link.Attrs().Index, nil
}

// raise sets loopback and the workload's end up, each of which it looks up first; the latter's index.
func raise(inside *netlink.Handle, name string) (int, error) {
	lo, err := inside.LinkByIndex(loopback)
	if err != nil {
		return 0, fmt.Errorf("look loopback up: %w", err)
	}
	if err := inside.LinkSetUp(lo); err != nil {
		return 0, fmt.Errorf("set loopback up: %w", err)
	}
	eth0, err := inside.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("look the workload's end up: %w", err)
	}
	if err := inside.LinkSetUp(eth0); err != nil {
		return 0, fmt.Errorf("set the workload's end up: %w", err)
	}
	return eth0.Attrs().Index, nil
}

// route makes an address reachable from the node, and the node from it.
func route(inside *netlink.Handle, host, eth0 int, address netip.Addr) error {
	toWorkload := &netlink.Route{Dst: alone(address), LinkIndex: host, Protocol: unix.RTPROT_STATIC}
	if err := netlink.RouteAdd(toWorkload); err != nil {
		return fmt.Errorf("add the route to %s: %w", address, err)
	}
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: eth0}}
	if err := inside.AddrAdd(link, &netlink.Addr{IPNet: alone(address)}); err != nil {
		return fmt.Errorf("add %s: %w", address, err)
	}
	hop := firstHops[address.Is4()]
	onLink := &netlink.Route{
		Dst: alone(hop), LinkIndex: eth0, Protocol: unix.RTPROT_STATIC, Scope: netlink.SCOPE_LINK,
	}
	if err := inside.RouteAdd(onLink); err != nil {
		return fmt.Errorf("add the route to the first hop %s: %w", hop, err)
	}
	everything := &net.IPNet{IP: make(net.IP, len(address.AsSlice())), Mask: net.CIDRMask(0, address.BitLen())}
	throughIt := &netlink.Route{
		Dst: everything, Gw: hop.AsSlice(), LinkIndex: eth0, Protocol: unix.RTPROT_STATIC,
	}
	if address.Is4() {
		throughIt.Src = address.AsSlice()
	}
	if err := inside.RouteAdd(throughIt); err != nil {
		return fmt.Errorf("add the default route over %s: %w", hop, err)
	}
	return nil
}

func (s *service) Detach(_ context.Context, request *workload.DetachRequest) (*workload.DetachResponse, error) {
	defer s.ledger.give(request.GetWorkloadId())
	name, known := s.ledger.link(request.GetWorkloadId())
	if !known {
		return &workload.DetachResponse{}, nil
	}
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return &workload.DetachResponse{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look %s up: %w", name, err)
	}
	if link.Attrs().Group != group {
		return nil, fmt.Errorf("%s is somebody else's", name)
	}
	if err := netlink.LinkDel(link); err != nil {
		return nil, fmt.Errorf("delete %s: %w", name, err)
	}
	return &workload.DetachResponse{}, nil
}

// alone is the network of one address.
func alone(address netip.Addr) *net.IPNet {
	bits := address.BitLen()
	return &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(bits, bits)}
}
