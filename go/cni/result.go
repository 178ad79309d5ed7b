package cni

import (
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/containerd/go-cni/internal/workload"
)

// Result is what Setup made: every interface by name, the host's end and loopback too. It is one and the same for one
// and the same attachment, and so is its JSON, which runtimes keep.
type Result struct {
	Interfaces map[string]*Config
	DNS        []types.DNS
	Routes     []*types.Route
	raw        []*types100.Result
}

// Config is one interface. One on the host has no Sandbox.
type Config struct {
	IPConfigs  []*IPConfig
	Mac        string
	Sandbox    string
	PciID      string
	SocketPath string
}

// IPConfig is an address, and the first hop by which it is left.
type IPConfig struct {
	IP      net.IP
	Gateway net.IP
}

// Raw has a result for each network in the order in which they were loaded, with MTU and prefix lengths.
func (r *Result) Raw() []*types100.Result {
	return r.raw
}

// loopback is the name of that interface, in every namespace.
const loopback = "lo"

// rawResult reads the daemon's answer.
func rawResult(a *asked, response *workload.AttachResponse) (*types100.Result, error) {
	inside := a.request.GetNetns()
	raw := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: response.GetHostLink(), Mac: macText(response.GetHostMac()), Mtu: int(response.GetMtu())},
			{
				Name: inside.GetIfName(), Mac: macText(response.GetWorkloadMac()), Mtu: int(response.GetMtu()),
				Sandbox: inside.GetNetnsPath(),
			},
		},
		DNS: a.dns,
	}
	invalid := func(what string, bytes []byte) error {
		return fmt.Errorf("%w: workloadnetd answered with %s %x", ErrInvalidResult, what, bytes)
	}
	for i, bytes := range response.GetIp() {
		address := addressOf(bytes)
		if address == nil {
			return nil, invalid("the address", bytes)
		}
		ip := &types100.IPConfig{
			Interface: types100.Int(1),
			Address:   net.IPNet{IP: address, Mask: net.CIDRMask(len(address)*8, len(address)*8)},
		}
		if gateways := response.GetGateway(); i < len(gateways) {
			if ip.Gateway = addressOf(gateways[i]); ip.Gateway == nil {
				return nil, invalid("the gateway", gateways[i])
			}
		}
		raw.IPs = append(raw.IPs, ip)
	}
	for _, route := range response.GetRoute() {
		to := addressOf(route.GetDestination())
		mask := net.CIDRMask(int(route.GetPrefixLength()), len(to)*8)
		if to == nil || mask == nil {
			return nil, invalid("the route to", route.GetDestination())
		}
		made := &types.Route{Dst: net.IPNet{IP: to, Mask: mask}}
		if by := route.GetGateway(); len(by) > 0 {
			if made.GW = addressOf(by); made.GW == nil {
				return nil, invalid("the route by", by)
			}
		}
		raw.Routes = append(raw.Routes, made)
	}
	return raw, nil
}

// loopbackResult is that of a namespace whose loopback is up, as it is wherever the daemon has attached a link: with ::1
// where there is IPv6.
func loopbackResult(path string, others []*types100.Result) *types100.Result {
	raw := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{{Name: loopback, Mac: "00:00:00:00:00:00", Sandbox: path}},
	}
	add := func(address net.IP, ones int) {
		raw.IPs = append(raw.IPs, &types100.IPConfig{
			Interface: types100.Int(0),
			Address:   net.IPNet{IP: address, Mask: net.CIDRMask(ones, len(address)*8)},
		})
	}
	add(net.IPv4(127, 0, 0, 1).To4(), 8)
	for _, other := range others {
		for _, ip := range other.IPs {
			if len(ip.Address.IP) == net.IPv6len {
				add(net.IPv6loopback, 128)
				return raw
			}
		}
	}
	return raw
}

// resultOf arranges raw results by interface. What names no interface belongs to the first.
func resultOf(first string, results []*types100.Result) (*Result, error) {
	r := &Result{Interfaces: map[string]*Config{first: {}}, raw: results}
	for _, raw := range results {
		if raw == nil {
			return nil, fmt.Errorf("%w: it is missing", ErrInvalidResult)
		}
		for _, made := range raw.Interfaces {
			if made == nil {
				return nil, fmt.Errorf("%w: an interface is missing", ErrInvalidResult)
			}
			r.Interfaces[made.Name] = &Config{
				Mac: made.Mac, Sandbox: made.Sandbox, PciID: made.PciID, SocketPath: made.SocketPath,
			}
		}
		for _, ip := range raw.IPs {
			if ip == nil {
				return nil, fmt.Errorf("%w: an address is missing", ErrInvalidResult)
			}
			name := first
			if ip.Interface != nil {
				if *ip.Interface < 0 || *ip.Interface >= len(raw.Interfaces) {
					return nil, fmt.Errorf("%w: %v is on interface %d of %d",
						ErrInvalidResult, ip.Address.IP, *ip.Interface, len(raw.Interfaces))
				}
				name = raw.Interfaces[*ip.Interface].Name
			}
			on := r.Interfaces[name]
			on.IPConfigs = append(on.IPConfigs, &IPConfig{IP: ip.Address.IP, Gateway: ip.Gateway})
		}
		r.DNS = append(r.DNS, raw.DNS)
		r.Routes = append(r.Routes, raw.Routes...)
	}
	return r, nil
}

func macText(bytes []byte) string { return net.HardwareAddr(bytes).String() }

// addressOf is nil for what is no address.
func addressOf(bytes []byte) net.IP {
	if len(bytes) == net.IPv4len || len(bytes) == net.IPv6len {
		return net.IP(bytes)
	}
	return nil
}
