package cni

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// CNI attaches workloads to the node's network. All methods may be called at any time, from any number of goroutines.
type CNI interface {
	// Setup attaches a workload, known by its id, whose network namespace is at a path.
	Setup(ctx context.Context, id string, path string, opts ...NamespaceOpts) (*Result, error)
	// SetupSerially is as Setup; of several networks one is attached after the other.
	SetupSerially(ctx context.Context, id string, path string, opts ...NamespaceOpts) (*Result, error)
	// Remove takes a workload off. The path may be empty, and the workload unknown.
	Remove(ctx context.Context, id string, path string, opts ...NamespaceOpts) error
	// Check says what of a workload's attachment is not as it should be. A network whose configuration has disableCheck is
	// not looked at.
	Check(ctx context.Context, id string, path string, opts ...NamespaceOpts) error
	// Load takes other networks, and other settings. Where it fails, all stays as it was.
	Load(opts ...Opt) error
	// Status says whether a workload could be attached now, within 2 s.
	Status() error
	// GetConfig says what is configured. It asks nobody.
	GetConfig() *ConfigResult
}

// RWMutex is here because go-cni has it.
type RWMutex = sync.RWMutex

// CNIOpt is an older name.
//
// Deprecated: use Opt.
type CNIOpt = Opt

// CNIResult is an older name.
//
// Deprecated: use Result.
type CNIResult = Result

// instance is what New makes. Its state is a value that Load replaces as a whole, so nobody waits for a lock while a
// call is under way.
type instance struct {
	// load is held by Load alone.
	load  sync.Mutex
	state atomic.Pointer[state]
}

type state struct {
	settings
	networks []*Network
}

// New makes an instance. It connects to nothing; without options it attaches to the network of the daemon on the default
// socket.
func New(config ...Opt) (CNI, error) {
	state, err := newState(defaults(), config)
	if err != nil {
		return nil, err
	}
	made := &instance{}
	made.state.Store(state)
	return made, nil
}

func newState(from settings, opts []Opt) (*state, error) {
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("%w: option %d is nil", ErrInvalidConfig, i)
		}
		if err := opt(&from); err != nil {
			return nil, err
		}
	}
	networks, err := from.networks()
	if err != nil {
		return nil, err
	}
	return &state{settings: from, networks: networks}, nil
}

func (c *instance) Load(opts ...Opt) error {
	c.load.Lock()
	defer c.load.Unlock()
	from := c.state.Load().settings
	from.wanted = nil
	state, err := newState(from, opts)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLoad, err)
	}
	c.state.Store(state)
	return nil
}

func (c *instance) Status() error {
	var asked []*daemon
	var ask []*Network
	for _, network := range c.state.Load().networks {
		if slices.Contains(asked, network.daemon) {
			continue
		}
		asked = append(asked, network.daemon)
		ask = append(ask, network)
	}
	return together(len(ask), func(i int) error { return ask[i].status(context.Background()) })
}

// Networks are those that workloads are attached to.
func (c *instance) Networks() []*Network {
	return slices.Clone(c.state.Load().networks)
}

func (c *instance) Setup(ctx context.Context, id string, path string, opts ...NamespaceOpts) (*Result, error) {
	return c.setup(ctx, id, path, opts, together)
}

func (c *instance) SetupSerially(ctx context.Context, id string, path string, opts ...NamespaceOpts) (*Result, error) {
	return c.setup(ctx, id, path, opts, oneByOne)
}

func (c *instance) setup(ctx context.Context, id, path string, opts []NamespaceOpts, each eacher) (*Result, error) {
	ns, err := newNamespace(id, path, opts)
	if err != nil {
		return nil, err
	}
	state := c.state.Load()
	results := make([]*types100.Result, len(state.networks))
	err = each(len(results), func(i int) (err error) {
		results[i], err = state.networks[i].Attach(ctx, ns)
		return err
	})
	if err != nil {
		state.takeBack(ctx, ns, results)
		return nil, err
	}
	// Loopback is up now, and has what the families of the others give it.
	inside := loopbackResult(path, results)
	for i, network := range state.networks {
		if network.isLoopback() {
			results[i] = inside
		}
	}
	result, err := resultOf(state.interfaceName(0), results)
	if err == nil && result.Interfaces[loopback] == nil {
		alone, _ := resultOf(loopback, []*types100.Result{inside})
		result.Interfaces[loopback] = alone.Interfaces[loopback]
	}
	return result, err
}

// takeBack detaches what a setup of several networks attached before it failed. What the daemon refused it has undone by
// itself. The caller's time may be over, and is not to be prolonged by much: what takes longer is left in the queue.
func (s *state) takeBack(ctx context.Context, ns *Namespace, results []*types100.Result) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.questions)
	defer cancel()
	_ = together(len(results), func(i int) error {
		if results[i] == nil {
			return nil
		}
		return s.networks[i].Remove(ctx, ns)
	})
}

func (c *instance) Remove(ctx context.Context, id string, path string, opts ...NamespaceOpts) error {
	return c.each(id, path, opts, func(n *Network, ns *Namespace) error { return n.Remove(ctx, ns) })
}

func (c *instance) Check(ctx context.Context, id string, path string, opts ...NamespaceOpts) error {
	return c.each(id, path, opts, func(n *Network, ns *Namespace) error { return n.Check(ctx, ns) })
}

// each goes on past errors: one network that cannot be left must not keep a workload in the others.
func (c *instance) each(id, path string, opts []NamespaceOpts, act func(*Network, *Namespace) error) error {
	ns, err := newNamespace(id, path, opts)
	if err != nil {
		return err
	}
	networks := c.state.Load().networks
	return together(len(networks), func(i int) error { return act(networks[i], ns) })
}

func (c *instance) GetConfig() *ConfigResult {
	state := c.state.Load()
	config := &ConfigResult{
		PluginDirs:       slices.Clone(state.pluginDirs),
		PluginConfDir:    state.pluginConfDir,
		PluginMaxConfNum: state.maxConfNum,
		Prefix:           state.prefix,
	}
	for _, network := range state.networks {
		config.Networks = append(config.Networks, &ConfNetwork{Config: network.conf.copied(), IFName: network.ifName})
	}
	return config
}

// GetCNIResultFromResults arranges results by interface.
//
// Deprecated: Setup does it.
func (c *instance) GetCNIResultFromResults(results []*types100.Result) (*Result, error) {
	return resultOf(c.state.Load().interfaceName(0), results)
}
