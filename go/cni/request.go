package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/containerd/go-cni/internal/workload"
)

// PortMapping is a port of the node that leads to one of the workload's.
type PortMapping struct {
	HostPort      int32
	ContainerPort int32
	Protocol      string
	HostIP        string
}

// IPRanges is a range to take addresses from.
type IPRanges struct {
	Subnet     string
	RangeStart string
	RangeEnd   string
	Gateway    string
}

// BandWidth is limits of a link, in bits per second and bits. Ingress is towards the workload.
type BandWidth struct {
	IngressRate  uint64
	IngressBurst uint64
	EgressRate   uint64
	EgressBurst  uint64
}

// DNS is what a workload's resolver is to be told.
type DNS struct {
	// Addresses of name servers.
	Servers []string
	// Domains that short names are looked up in.
	Searches []string
	// Options of the resolver.
	Options []string
}

// Names of capabilities in the CNI conventions.
const (
	portMappings = "portMappings"
	ipRanges     = "ipRanges"
	bandwidth    = "bandwidth"
	dnsNames     = "dns"
	cgroupPath   = "cgroupPath"
	ips          = "ips"
	mac          = "mac"
	aliases      = "aliases"
	// containerd passes these with every pod. They ask for nothing by themselves.
	podAnnotations = "io.kubernetes.cri.pod-annotations"
)

// asked is what a workload's runtime asks for, in the daemon's words.
type asked struct {
	request *workload.AttachRequest
	needs   []need
	dns     types.DNS
}

// ask reads a workload's options. What makes no sense, and what has no words in the contract, is an error by name.
func (ns *Namespace) ask(key *workload.DetachRequest, mtu uint32) (*asked, error) {
	a := &asked{
		request: &workload.AttachRequest{
			WorkloadId: key.GetWorkloadId(), Owner: key.GetOwner(), Netns: key.GetNetns(), Mtu: mtu,
			Labels: map[string]string{},
		},
		needs: []need{{"result", "Result"}},
	}
	if key.GetOwner() != "" {
		a.need("owner", "the owner "+key.GetOwner())
	}
	if mtu != 0 {
		a.need("mtu", "mtu")
	}
	for _, name := range slices.Sorted(maps.Keys(ns.capabilities)) {
		if err := a.capability(name, ns.capabilities[name]); err != nil {
			return nil, fmt.Errorf("%w: capability %s of workload %q: %w", ErrInvalidConfig, name, ns.id, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ns.args)) {
		if err := a.arg(name, ns.args[name]); err != nil {
			return nil, fmt.Errorf("%w: argument %s of workload %q: %w", ErrInvalidConfig, name, ns.id, err)
		}
	}
	if len(a.request.Labels) > 0 {
		a.need("labels", "labels")
	}
	return a, nil
}

func (a *asked) need(feature, by string) { a.needs = append(a.needs, need{feature, by}) }

func (a *asked) arg(name, value string) error {
	switch name {
	// It is for programs that would choke on what they do not know.
	case "IgnoreUnknown":
		return nil
	case "IP":
		if value == "" {
			return nil
		}
		return a.addresses(strings.Split(value, ","), "the argument IP")
	case "MAC":
		if value == "" {
			return nil
		}
		return a.mac(value, "the argument MAC")
	}
	if !utf8.ValidString(name) || !utf8.ValidString(value) {
		return fmt.Errorf("%q=%q is not UTF-8", name, value)
	}
	a.request.Labels[name] = value
	return nil
}

func (a *asked) capability(name string, value any) error {
	by := "the capability " + name
	switch name {
	case cgroupPath, podAnnotations:
		return nil
	case dnsNames:
		var dns DNS
		err := decode(value, &dns)
		a.dns = types.DNS{Nameservers: dns.Servers, Search: dns.Searches, Options: dns.Options}
		return err
	case portMappings:
		var mappings []PortMapping
		if err := decode(value, &mappings); err != nil {
			return err
		}
		for _, mapping := range mappings {
			port, err := mapping.wire()
			if err != nil {
				return err
			}
			a.request.PortMapping = append(a.request.PortMapping, port)
		}
		if len(mappings) > 0 {
			a.need("port-mapping", by)
		}
		return nil
	case bandwidth:
		var limits BandWidth
		if err := decode(value, &limits); err != nil || limits == (BandWidth{}) {
			return err
		}
		a.request.Bandwidth = &workload.Bandwidth{
			IngressRate: limits.IngressRate, IngressBurst: limits.IngressBurst,
			EgressRate: limits.EgressRate, EgressBurst: limits.EgressBurst,
		}
		a.need("bandwidth", by)
		return nil
	case ips:
		var list []string
		if err := decode(value, &list); err != nil {
			return err
		}
		return a.addresses(list, by)
	case mac:
		var text string
		if err := decode(value, &text); err != nil || text == "" {
			return err
		}
		return a.mac(text, by)
	case aliases:
		if err := decode(value, &a.request.Alias); err != nil {
			return err
		}
		if len(a.request.Alias) > 0 {
			a.need("alias", by)
		}
		return nil
	}
	// ipRanges, and whatever else a network may be asked for.
	if asksForNothing(value) {
		return nil
	}
	return fmt.Errorf("workloadnet has no such thing")
}

// addresses asks for addresses, with or without a prefix length: a workload's own is always that of one address.
func (a *asked) addresses(list []string, by string) error {
	for _, text := range list {
		bare, _, _ := strings.Cut(strings.TrimSpace(text), "/")
		address, err := netip.ParseAddr(bare)
		if err != nil || address.Zone() != "" {
			return fmt.Errorf("%q is no address", text)
		}
		octets := address.Unmap().AsSlice()
		isKnown := func(other []byte) bool { return bytes.Equal(other, octets) }
		// nerdctl may name one twice: as an argument, and as a capability.
		if !slices.ContainsFunc(a.request.RequestedIp, isKnown) {
			a.request.RequestedIp = append(a.request.RequestedIp, octets)
		}
		a.need("requested-ip", by)
	}
	return nil
}

func (a *asked) mac(text, by string) error {
	address, err := net.ParseMAC(text)
	if err != nil || len(address) != 6 {
		return fmt.Errorf("%q is no MAC of 6 bytes", text)
	}
	if other := a.request.GetRequestedMac(); other != nil && !bytes.Equal(other, address) {
		return fmt.Errorf("%s is another MAC than %s, which is asked for as well", address, net.HardwareAddr(other))
	}
	a.request.RequestedMac = address
	a.need("requested-mac", by)
	return nil
}

func (m PortMapping) wire() (*workload.PortMapping, error) {
	for _, port := range []int32{m.HostPort, m.ContainerPort} {
		if port < 1 || port > 65535 {
			return nil, fmt.Errorf("%d is no port, in %+v", port, m)
		}
	}
	wire := &workload.PortMapping{HostPort: uint32(m.HostPort), ContainerPort: uint32(m.ContainerPort)}
	switch strings.ToLower(m.Protocol) {
	case "tcp", "":
		wire.Protocol = workload.PortMapping_PROTOCOL_TCP
	case "udp":
		wire.Protocol = workload.PortMapping_PROTOCOL_UDP
	case "sctp":
		wire.Protocol = workload.PortMapping_PROTOCOL_SCTP
	default:
		return nil, fmt.Errorf("%q is no protocol that has ports, in %+v", m.Protocol, m)
	}
	if m.HostIP != "" {
		address, err := netip.ParseAddr(m.HostIP)
		if err != nil || address.Zone() != "" {
			return nil, fmt.Errorf("%q is no address, in %+v", m.HostIP, m)
		}
		wire.HostIp = address.Unmap().AsSlice()
	}
	return wire, nil
}

// decode reads a capability's value by way of JSON, which is what a plugin would have got: names in any case, and any Go
// type that looks the same.
func decode(value, into any) error {
	text, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	return err
}

func asksForNothing(value any) bool {
	text, err := json.Marshal(value)
	if err != nil {
		return false
	}
	switch string(text) {
	case "null", "[]", "{}", `""`, "false", "0":
		return true
	}
	return false
}
