package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/containerd/go-cni/internal/inspection"
	"github.com/containerd/go-cni/internal/workload"
)

// limits are how long calls may take. A caller's deadline that is nearer goes before.
type limits struct {
	// orders: Attach and Detach.
	orders time.Duration
	// questions: everything else.
	questions time.Duration
	// business is how long a Detach waits for a daemon that is busy before it is written into the queue.
	business time.Duration
}

var defaultLimits = limits{orders: 30 * time.Second, questions: 2 * time.Second, business: 5 * time.Second}

// Network is one that workloads are attached to, by an interface of a certain name.
type Network struct {
	ifName string
	conf   *NetworkConfList
	owner  string
	mtu    uint32
	daemon *daemon
	limits limits
}

// networks turns what was asked for into networks. There is always one that attaches; loopback comes with it.
func (s *settings) networks() ([]*Network, error) {
	all := s.wanted
	attaches := false
	for _, wanted := range all {
		attaches = attaches || wanted.ifName != loopback
	}
	if !attaches {
		if len(all) == 0 {
			all = []wanted{{ifName: loopback}}
		}
		all = append(all[:len(all):len(all)], wanted{ifName: s.interfaceName(0)})
	}
	var networks []*Network
	for _, wanted := range all {
		network, err := s.network(wanted)
		if err != nil {
			return nil, err
		}
		networks = append(networks, network)
	}
	return networks, nil
}

func (s *settings) network(wanted wanted) (*Network, error) {
	network := &Network{ifName: wanted.ifName, conf: wanted.given, owner: DefaultOwner, limits: s.limits}
	var says ours
	if wanted.given != nil {
		var err error
		if says, err = wanted.given.ours(); err != nil {
			return nil, err
		}
		if wanted.given.Name != "" {
			network.owner = wanted.given.Name
		}
	}
	for _, owner := range []*string{says.Owner, s.owner} {
		if owner != nil {
			network.owner = *owner
		}
	}
	network.mtu = says.MTU
	socket := defaultSocket()
	for _, named := range []string{says.Socket, s.socket} {
		if named != "" {
			socket = named
		}
	}
	var err error
	if network.daemon, err = daemonAt(socket); err != nil {
		return nil, err
	}
	switch {
	case wanted.given != nil:
	case network.isLoopback():
		network.conf, err = madeUp("loopback", "loopback", ours{})
	default:
		network.conf, err = madeUp("workloadnet", PluginType, ours{Socket: socket, Owner: &network.owner})
	}
	return network, err
}

func (n *Network) isLoopback() bool { return n.ifName == loopback }

// ready fills in what a Network that was not made by New or Load does not have.
func (n *Network) ready() (*Network, error) {
	if n.daemon != nil {
		return n, nil
	}
	s := defaults()
	return s.network(wanted{ifName: s.interfaceName(0)})
}

// words says whether the contract has words for a workload: protobuf's texts are UTF-8.
func (n *Network) words(ns *Namespace) error {
	for what, text := range map[string]string{"owner": n.owner, "id": ns.id, "path": ns.path, "interface": n.ifName} {
		if !utf8.ValidString(text) {
			return fmt.Errorf("%w: the %s %q is not UTF-8", ErrInvalidConfig, what, text)
		}
	}
	return nil
}

func (n *Network) key(ns *Namespace) *workload.DetachRequest {
	return &workload.DetachRequest{
		WorkloadId: ns.id, Owner: n.owner,
		Netns: &workload.NetNSAttachment{NetnsPath: ns.path, IfName: n.ifName},
	}
}

// Attach attaches a workload. The same again, while the workload lives, gives the same result again.
func (n *Network) Attach(ctx context.Context, ns *Namespace) (*types100.Result, error) {
	n, err := n.ready()
	if err != nil {
		return nil, err
	}
	if n.isLoopback() {
		return loopbackResult(ns.path, nil), nil
	}
	if err := n.words(ns); err != nil {
		return nil, err
	}
	key := n.key(ns)
	asked, err := ns.ask(key, n.mtu)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.limits.orders)
	defer cancel()
	bears := patience{limit: n.limits.orders, absence: true, business: n.limits.orders}
	var response *workload.AttachResponse
	err = n.daemon.settle(ctx, bears, deletionOf(key))
	if err == nil {
		err = n.daemon.ask(ctx, bears, func(ctx context.Context) error {
			response, err = n.daemon.attach(ctx, asked)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", n.name(ns), err)
	}
	result, err := rawResult(asked, response)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", n.name(ns), err)
	}
	return result, nil
}

// attach sends an Attach to a daemon that can do what it asks for. Where another daemon took over meanwhile, that is known
// only afterwards.
func (d *daemon) attach(ctx context.Context, asked *asked) (*workload.AttachResponse, error) {
	with, err := d.require(ctx, asked.needs)
	if err != nil {
		return nil, err
	}
	response, err := d.workloads.Attach(ctx, asked.request)
	if err != nil || d.isCurrent(with) {
		return response, err
	}
	_, err = d.require(ctx, asked.needs)
	switch {
	case err == nil:
		return response, nil
	case asError(err) == nil:
		// It could not be asked. The same call again gives the same answer, so nothing is undone: it may have been there before.
		return nil, err
	default:
		key := &workload.DetachRequest{
			WorkloadId: asked.request.GetWorkloadId(), Owner: asked.request.GetOwner(), Netns: asked.request.GetNetns(),
		}
		_, undone := d.workloads.Detach(ctx, key)
		return nil, errors.Join(err, undone)
	}
}

// Remove takes a workload off. What is not there is a success. While the daemon is not able to answer, the order is
// written into its queue, which is a success, too: it does so when it starts, and a namespace that ends takes its link
// along anyway.
func (n *Network) Remove(ctx context.Context, ns *Namespace) error {
	n, err := n.ready()
	if err != nil || n.isLoopback() {
		return err
	}
	key := n.key(ns)
	bears := patience{limit: n.limits.orders, business: n.limits.business}
	err = n.daemon.detach(ctx, bears, key)
	if err == nil {
		// One of the same key that waits is about an older namespace.
		_ = n.daemon.settle(ctx, bears, deletionOf(key))
		return nil
	}
	if refused := asError(err); refused == nil || !refused.mayPass() {
		return fmt.Errorf("detach %s: %w", n.name(ns), err)
	}
	if queued := n.daemon.queue().put(deletionOf(key)); queued != nil {
		return fmt.Errorf("detach %s: %w; and it cannot be kept for later: %w", n.name(ns), err, queued)
	}
	// One that does not answer in time has no second chance: its caller has waited long enough.
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	// The daemon may have read the folder just before.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.limits.questions)
	defer cancel()
	_ = n.daemon.settle(ctx, patience{limit: n.limits.questions}, deletionOf(key))
	return nil
}

// Check says whether a workload is attached, to the namespace at its path where it has one, and whether the kernel holds
// all that belongs to it.
func (n *Network) Check(ctx context.Context, ns *Namespace) error {
	n, err := n.ready()
	if err != nil || n.isLoopback() || n.conf.isUnchecked() {
		return err
	}
	if err := n.words(ns); err != nil {
		return err
	}
	key := &inspection.Key{Owner: n.owner, WorkloadId: ns.id, IfName: n.ifName}
	var attached *inspection.Attachment
	var findings []*inspection.Finding
	err = n.daemon.ask(ctx, patience{limit: n.limits.questions}, func(ctx context.Context) error {
		got, err := n.daemon.inspection.Get(ctx, &inspection.GetRequest{Key: key})
		if err != nil {
			return err
		}
		attached = got.GetAttachment()
		checked, err := n.daemon.inspection.Check(ctx, &inspection.CheckRequest{Key: key})
		findings = checked.GetFinding()
		return err
	})
	if err == nil {
		err = attachmentErrors(attached, ns.path, findings)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", n.name(ns), err)
	}
	return nil
}

func attachmentErrors(attached *inspection.Attachment, path string, findings []*inspection.Finding) error {
	var errs []error
	if attached.GetState() == inspection.Attachment_STATE_DETACHING {
		errs = append(errs, errors.New("it is being detached"))
	}
	if path != "" {
		device, inode, err := identity(path)
		if err != nil {
			errs = append(errs, err)
		} else if device != attached.GetNamespaceDevice() || inode != attached.GetNamespaceInode() {
			errs = append(errs, fmt.Errorf("it is attached to another namespace than %s (inode %d, not %d)",
				path, attached.GetNamespaceInode(), inode))
		}
	}
	for _, finding := range findings {
		errs = append(errs, errors.New(finding.GetText()))
	}
	return errors.Join(errs...)
}

// identity is that of a network namespace, stat(2).
func identity(path string) (device, inode uint64, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return 0, 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("%s has no identity", path)
	}
	return stat.Dev, stat.Ino, nil
}

// name is a workload's interface for people.
func (n *Network) name(ns *Namespace) string {
	return strings.Join([]string{n.owner, ns.id, n.ifName}, "/")
}

// status says whether a workload could be attached now.
func (n *Network) status(ctx context.Context) error {
	return n.daemon.ask(ctx, patience{limit: n.limits.questions}, func(ctx context.Context) error {
		_, err := n.daemon.workloads.Status(ctx, &workload.StatusRequest{})
		return err
	})
}
