package cni

import (
	"fmt"
	"maps"
)

// Namespace is one workload: its id, its network namespace, and what its runtime asks for.
type Namespace struct {
	id           string
	path         string
	capabilities map[string]any
	args         map[string]string
}

// NamespaceOpts asks for something on behalf of one workload.
type NamespaceOpts func(s *Namespace) error

func newNamespace(id, path string, opts []NamespaceOpts) (*Namespace, error) {
	ns := &Namespace{id: id, path: path}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("%w: option %d of workload %q is nil", ErrInvalidConfig, i, id)
		}
		if err := opt(ns); err != nil {
			return nil, err
		}
	}
	return ns, nil
}

// WithCapabilityPortMap asks for ports of the node that lead to the workload.
func WithCapabilityPortMap(portMapping []PortMapping) NamespaceOpts {
	return WithCapability(portMappings, portMapping)
}

// WithCapabilityIPRanges asks for addresses from ranges, which the daemon refuses: its prefixes are the node's.
func WithCapabilityIPRanges(ranges []IPRanges) NamespaceOpts {
	return WithCapability(ipRanges, ranges)
}

// WithCapabilityBandWidth asks for limits of the link.
func WithCapabilityBandWidth(bandWidth BandWidth) NamespaceOpts {
	return WithCapability(bandwidth, bandWidth)
}

// WithCapabilityDNS names the workload's name servers. They are not the daemon's matter, and come back in the Result.
func WithCapabilityDNS(dns DNS) NamespaceOpts {
	return WithCapability(dnsNames, dns)
}

// WithCapabilityCgroupPath tells where the workload's processes are, which the daemon needs not know.
func WithCapabilityCgroupPath(path string) NamespaceOpts {
	return WithCapability(cgroupPath, path)
}

// WithCapability asks for something by the name that the CNI conventions give it. A value that asks for nothing, as an
// empty list, is none. What cannot be had is refused by Setup.
func WithCapability(name string, capability interface{}) NamespaceOpts {
	return func(ns *Namespace) error {
		if ns.capabilities == nil {
			ns.capabilities = map[string]any{}
		}
		ns.capabilities[name] = capability
		return nil
	}
}

// WithLabels adds arguments, as WithArgs does.
func WithLabels(labels map[string]string) NamespaceOpts {
	return func(ns *Namespace) error {
		if ns.args == nil {
			ns.args = map[string]string{}
		}
		maps.Copy(ns.args, labels)
		return nil
	}
}

// WithArgs adds an argument. IP and MAC ask for addresses; all others become labels, which people see when they list
// attachments.
func WithArgs(k, v string) NamespaceOpts {
	return WithLabels(map[string]string{k: v})
}
