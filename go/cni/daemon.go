package cni

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/containerd/go-cni/internal/inspection"
	"github.com/containerd/go-cni/internal/workload"
)

const (
	// DefaultSocket is where the daemon listens unless told otherwise.
	DefaultSocket = "/run/workloadnet/workloadnet.sock"
	// SocketVariable names another socket in the environment.
	SocketVariable = "WORKLOADNET_SOCKET"

	// socketPathBytes is the length of sun_path without its NUL, unix(7).
	socketPathBytes = 107
	firstPause      = 10 * time.Millisecond
	longestPause    = time.Second
	// earliness is by how much a server's timer may go before ours.
	earliness = 100 * time.Millisecond
	// losses of the connection that a call bears which does not wait for a daemon: gRPC says for a short while that there is
	// none when there is one again.
	losses = 5
)

// daemon is the way to the daemon on one socket. All that use the socket share it, and it is never closed: it connects
// when it is needed, and again when the connection was lost.
type daemon struct {
	socket     string
	conn       *grpc.ClientConn
	workloads  workload.WorkloadNetworkingClient
	inspection inspection.InspectionClient

	// Connections that were made so far.
	connections atomic.Uint64
	mu          sync.Mutex
	met         *introduction
}

// introduction is what the daemon at the other end of one connection can do. After an upgrade it is another one.
type introduction struct {
	connection uint64
	version    string
	features   map[string]bool
}

var daemons = struct {
	sync.Mutex
	at map[string]*daemon
}{at: map[string]*daemon{}}

// defaultSocket is the environment's socket, or the default one.
func defaultSocket() string {
	if socket := os.Getenv(SocketVariable); socket != "" {
		return socket
	}
	return DefaultSocket
}

// daemonAt is the way to a socket. It connects to nothing.
func daemonAt(socket string) (*daemon, error) {
	if !filepath.IsAbs(socket) || len(socket) > socketPathBytes || strings.ContainsRune(socket, 0) {
		return nil, fmt.Errorf("%w: %q cannot be a socket's path", ErrInvalidConfig, socket)
	}
	daemons.Lock()
	defer daemons.Unlock()
	if known := daemons.at[socket]; known != nil {
		return known, nil
	}
	d := &daemon{socket: socket}
	var err error
	// With a dialer of our own any path will do, and the words for it are ours.
	d.conn, err = grpc.NewClient("passthrough:///workloadnetd",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := d.dial(ctx)
			if err == nil {
				d.connections.Add(1)
			}
			return conn, err
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: longestPause},
			MinConnectTimeout: 2 * time.Second,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalidConfig, socket, err)
	}
	d.workloads = workload.NewWorkloadNetworkingClient(d.conn)
	d.inspection = inspection.NewInspectionClient(d.conn)
	daemons.at[socket] = d
	return d, nil
}

func (d *daemon) dial(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
}

// patience is what a call bears.
type patience struct {
	// limit is how long it may take in all.
	limit time.Duration
	// absence: whether it waits for a daemon that is not there.
	absence bool
	// business is how long it comes back to a daemon that says when to come back.
	business time.Duration
}

// ask makes a call until it is answered, refused, or out of patience. Every call can be repeated without harm, so one
// whose connection was lost under it, as by an upgrade of the daemon, is made again. gRPC itself is not told to wait until
// there is a connection: it would not see that nobody is there any more.
func (d *daemon) ask(ctx context.Context, bears patience, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, bears.limit)
	defer cancel()
	began := time.Now()
	pause := firstPause
	var last *Error
	for lost := 0; ; {
		refused := d.listens(ctx)
		if refused == nil {
			err := call(ctx)
			if err == nil {
				return nil
			}
			if refused = asError(err); refused == nil {
				refused = refusal(d.socket, err)
			}
		}
		if ctx.Err() != nil || refused.isTimer(ctx) {
			return late(ctx, d.socket, time.Since(began), last)
		}
		wait := pause
		switch {
		case refused.hasNoOutcomeYet():
			// The daemon has less patience than the caller, or is a little early. The same call again waits for it.
		case refused.wasHeard():
			if refused.Code != codes.Unavailable || refused.RetryAfter <= 0 ||
				time.Since(began)+refused.RetryAfter > bears.business {
				return refused
			}
			wait = refused.RetryAfter
		case isAbsence(refused.source):
			if !bears.absence {
				return refused
			}
		case refused.wasLost():
			refused.Code = codes.Unavailable
			if lost++; lost > losses && !bears.absence {
				return refused
			}
		default:
			return refused
		}
		last = refused
		pause = min(pause*2, longestPause)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return late(ctx, d.socket, time.Since(began), last)
		}
	}
}

// listens finds out at once whether anybody is there, which gRPC would take a back-off to find out. That no call is made
// before somebody is also keeps gRPC's back-off short: it is never told by ResetConnectBackoff, which reads a map that
// others write (seen by the race detector, with grpc 1.68).
func (d *daemon) listens(ctx context.Context) *Error {
	if d.conn.GetState() == connectivity.Ready {
		return nil
	}
	conn, err := d.dial(ctx)
	if err != nil {
		return unreachable(d.socket, err)
	}
	conn.Close()
	return nil
}

// isAbsence says whether a start of the daemon mends it. EAGAIN is a full queue of the listener, connect(2).
func isAbsence(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
}

// asError is an error that is ours already.
func asError(err error) *Error {
	var refused *Error
	if errors.As(err, &refused) {
		return refused
	}
	return nil
}

// need is a feature of the daemon and what asked for it.
type need struct{ feature, by string }

// require makes sure that the daemon can do what a request asks for: an older one would drop in silence what it does not
// know.
func (d *daemon) require(ctx context.Context, needs []need) (*introduction, error) {
	with, err := d.introduced(ctx)
	if err != nil {
		return nil, err
	}
	for _, need := range needs {
		if !with.features[need.feature] {
			return nil, &Error{
				Socket: d.socket, Code: codes.Unimplemented, Reason: "UNSUPPORTED", Field: need.feature,
				Message: fmt.Sprintf("workloadnetd %s on %s cannot do %q, which %s asks for",
					with.version, d.socket, need.feature, need.by),
			}
		}
	}
	return with, nil
}

// isCurrent says whether the connection is still the one over which a daemon introduced itself.
func (d *daemon) isCurrent(with *introduction) bool { return with.connection == d.connections.Load() }

func (d *daemon) introduced(ctx context.Context) (*introduction, error) {
	d.mu.Lock()
	met := d.met
	d.mu.Unlock()
	if met != nil && d.isCurrent(met) {
		return met, nil
	}
	before := d.connections.Load()
	node, err := d.inspection.GetNode(ctx, &inspection.GetNodeRequest{})
	met = &introduction{connection: before, version: node.GetVersion(), features: map[string]bool{}}
	if err != nil {
		// A daemon without Inspection is one of the reference's, which can do nothing beyond the reference.
		if refusal(d.socket, err).Code != codes.Unimplemented {
			return nil, err
		}
		met.version = "(of a release before 0.1)"
	}
	for _, feature := range node.GetFeature() {
		met.features[feature] = true
	}
	// An answer that may have come over an earlier connection is not kept: `connection` never comes again.
	d.mu.Lock()
	d.met = met
	d.mu.Unlock()
	return met, nil
}
