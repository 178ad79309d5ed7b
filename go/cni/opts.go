package cni

import "strconv"

const (
	CNIPluginName     = "cni"
	DefaultMaxConfNum = 1
	// DefaultPrefix is what the names of interfaces begin with; a number follows.
	DefaultPrefix = "eth"

	DefaultNetDir        = "/etc/cni/net.d"
	DefaultCNIDir        = "/opt/cni/bin"
	VendorCNIDirTemplate = "%s/opt/%s/bin"

	// DefaultOwner is the owner of what is attached for an instance that names none, by WithOwner or by its
	// configuration: see WithOwner.
	DefaultOwner = "containerd"
)

// Opt is a setting of an instance.
type Opt func(c *settings) error

// settings are collected by options and then turned into networks at once, so that their order says nothing.
type settings struct {
	pluginDirs    []string
	pluginConfDir string
	maxConfNum    int
	prefix        string
	socket        string
	owner         *string
	limits        limits
	wanted        []wanted
}

// wanted is a network that an option asks for.
type wanted struct {
	ifName string
	// Nothing for the daemon's own network, and for loopback.
	given *NetworkConfList
}

func defaults() settings {
	return settings{
		pluginDirs: []string{DefaultCNIDir}, pluginConfDir: DefaultNetDir, maxConfNum: DefaultMaxConfNum,
		prefix: DefaultPrefix, limits: defaultLimits,
	}
}

func (s *settings) interfaceName(index int) string { return s.prefix + strconv.Itoa(index) }

func (s *settings) want(index int, given *NetworkConfList, err error) error {
	if err == nil {
		s.wanted = append(s.wanted, wanted{ifName: s.interfaceName(index), given: given})
	}
	return err
}

// WithSocket names the daemon's socket, which is otherwise the one that a configuration names, or the environment
// (WORKLOADNET_SOCKET), or /run/workloadnet/workloadnet.sock.
func WithSocket(path string) Opt {
	return func(s *settings) error {
		s.socket = path
		return nil
	}
}

// WithOwner names the owner of all that is attached: the namespace that workloads' ids belong to. Together with the id
// and the interface's name it is what an attachment is known by, so an owner must not change while workloads live.
// Without it the owner is that of a configuration that was given (its "owner", or the network's name), and "containerd"
// where there is none.
func WithOwner(owner string) Opt {
	return func(s *settings) error {
		s.owner = &owner
		return nil
	}
}

// WithInterfacePrefix sets what the names of interfaces begin with, for the networks that are loaded after it.
func WithInterfacePrefix(prefix string) Opt {
	return func(s *settings) error {
		s.prefix = prefix
		return nil
	}
}

// WithPluginDir is shown by GetConfig and otherwise means nothing: no plugin is executed.
func WithPluginDir(dirs []string) Opt {
	return func(s *settings) error {
		s.pluginDirs = dirs
		return nil
	}
}

// WithPluginConfDir is shown by GetConfig and otherwise means nothing: no folder is read.
func WithPluginConfDir(dir string) Opt {
	return func(s *settings) error {
		s.pluginConfDir = dir
		return nil
	}
}

// WithPluginMaxConfNum is shown by GetConfig and otherwise means nothing.
func WithPluginMaxConfNum(maxConfigs int) Opt {
	return func(s *settings) error {
		s.maxConfNum = maxConfigs
		return nil
	}
}

// WithMinNetworkCount means nothing: whether workloads can be attached is what the daemon says.
func WithMinNetworkCount(count int) Opt {
	return func(*settings) error { return nil }
}

// WithLoNetwork shows loopback as a network of its own, first in Raw. It is up in every namespace that the daemon has
// attached, with and without this.
func WithLoNetwork(s *settings) error {
	s.wanted = append(s.wanted, wanted{ifName: loopback})
	return nil
}

// WithDefaultConf attaches to the daemon's network. No file is read: what a workload was attached by must not change
// with a file.
func WithDefaultConf(s *settings) error { return s.want(0, nil, nil) }

// WithAllConf is as WithDefaultConf: the daemon has one network.
func WithAllConf(s *settings) error { return s.want(0, nil, nil) }

// WithConf names a network by its configuration. Of an entry of type workloadnet-cni, socket, owner and mtu are read; of
// any other nothing, and the workload is attached to the daemon's network all the same.
func WithConf(bytes []byte) Opt { return WithConfIndex(bytes, 0) }

// WithConfIndex is as WithConf, with the number of the interface.
func WithConfIndex(bytes []byte, index int) Opt {
	return func(s *settings) error {
		given, err := parseConf(bytes)
		return s.want(index, given, err)
	}
}

// WithConfFile is as WithConf, from a file.
func WithConfFile(fileName string) Opt {
	return func(s *settings) error {
		given, err := readFile(fileName, parseConf)
		return s.want(0, given, err)
	}
}

// WithConfListBytes is as WithConf for a list of entries. The interface's number is how many networks there are already.
func WithConfListBytes(bytes []byte) Opt {
	return func(s *settings) error {
		given, err := parseList(bytes)
		return s.want(len(s.wanted), given, err)
	}
}

// WithConfListFile is as WithConfListBytes, from a file.
func WithConfListFile(fileName string) Opt {
	return func(s *settings) error {
		given, err := readFile(fileName, parseList)
		return s.want(len(s.wanted), given, err)
	}
}
