package cni

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/containerd/go-cni/internal/inspection"
	"github.com/containerd/go-cni/internal/workload"
)

// fake is a daemon that writes down what it is asked and answers as it is told.
type fake struct {
	workload.UnimplementedWorkloadNetworkingServer
	inspection.UnimplementedInspectionServer

	socket string

	mu        sync.Mutex
	server    *grpc.Server
	attached  []*workload.AttachRequest
	detached  []*workload.DetachRequest
	authority string
	features  []string
	// Called before a call is answered; an error is the answer.
	before func(method string) error
	calls  map[string]int
	node   error
	got    *inspection.Attachment
	found  []string
}

// everything is what a daemon that can do all of the contract says of itself.
var everything = []string{
	"owner", "mtu", "labels", "requested-ip", "result", "gc", "requested-mac", "port-mapping", "bandwidth", "alias",
}

// newFake listens in a folder of its own.
func newFake(t *testing.T) *fake {
	f := absentFake(t)
	f.start(t)
	return f
}

// absentFake does not listen before it is started.
func absentFake(t *testing.T) *fake {
	// Shorter than t.TempDir, whose paths do not fit into a socket's.
	folder, err := os.MkdirTemp("", "wn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return &fake{
		socket: filepath.Join(folder, "run", "w.sock"), features: everything, calls: map[string]int{},
	}
}

func (f *fake) start(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(f.note))
	workload.RegisterWorkloadNetworkingServer(server, f)
	inspection.RegisterInspectionServer(server, f)
	f.mu.Lock()
	f.server = server
	f.mu.Unlock()
	go server.Serve(listener)
	t.Cleanup(server.Stop)
}

func (f *fake) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server.Stop()
}

// cni is an instance on the fake's socket.
func (f *fake) cni(t *testing.T, opts ...Opt) CNI {
	t.Helper()
	made, err := New(append([]Opt{WithSocket(f.socket)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (f *fake) note(ctx context.Context, call any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	f.mu.Lock()
	method := filepath.Base(info.FullMethod)
	f.calls[method]++
	if headers, ok := metadata.FromIncomingContext(ctx); ok {
		f.authority = headers.Get(":authority")[0]
	}
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(method); err != nil {
			return nil, err
		}
	}
	return handle(ctx, call)
}

func (f *fake) Attach(_ context.Context, request *workload.AttachRequest) (*workload.AttachResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attached = append(f.attached, request)
	return answer(), nil
}

func (f *fake) Detach(_ context.Context, request *workload.DetachRequest) (*workload.DetachResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.detached = append(f.detached, request)
	return &workload.DetachResponse{}, nil
}

func (f *fake) Status(context.Context, *workload.StatusRequest) (*workload.StatusResponse, error) {
	return &workload.StatusResponse{}, nil
}

func (f *fake) GetNode(context.Context, *inspection.GetNodeRequest) (*inspection.GetNodeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &inspection.GetNodeResponse{Version: "0.1.0", Feature: f.features}, f.node
}

func (f *fake) Get(context.Context, *inspection.GetRequest) (*inspection.GetResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.got == nil {
		return nil, refuse(codes.NotFound, "NOT_ATTACHED", "containerd/pod-1/eth0 is not attached")
	}
	return &inspection.GetResponse{Attachment: f.got}, nil
}

func (f *fake) Check(context.Context, *inspection.CheckRequest) (*inspection.CheckResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &inspection.CheckResponse{}
	for _, text := range f.found {
		answer.Finding = append(answer.Finding, &inspection.Finding{Text: text})
	}
	return answer, nil
}

func (f *fake) times(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// answerWith makes every call of a method fail from now on; nil makes it succeed.
func (f *fake) answerWith(method string, err error) {
	f.set(func() {
		f.before = func(called string) error {
			if called == method {
				return err
			}
			return nil
		}
	})
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) lastAttach(t *testing.T) *workload.AttachRequest {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.attached) == 0 {
		t.Fatal("nothing was attached")
	}
	return f.attached[len(f.attached)-1]
}

func (f *fake) detaches() []*workload.DetachRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*workload.DetachRequest(nil), f.detached...)
}

// answer is that of a dual-stack daemon.
func answer() *workload.AttachResponse {
	v4, v6 := []byte{10, 77, 0, 5}, net.ParseIP("fd77:77:77::5")
	hop4, hop6 := []byte{169, 254, 77, 1}, net.ParseIP("fe80::1")
	return &workload.AttachResponse{
		Ip:          [][]byte{v4, v6},
		HostLink:    "wk0123456789abc",
		HostMac:     []byte{0x02, 0x9c, 0x52, 0xfe, 0x6d, 0x0a},
		WorkloadMac: []byte{0x0a, 0x58, 0x0a, 0x4d, 0x00, 0x05},
		Mtu:         1400,
		Gateway:     [][]byte{hop4, hop6},
		Route: []*workload.Route{
			{Destination: hop4, PrefixLength: 32},
			{Destination: []byte{0, 0, 0, 0}, Gateway: hop4},
			{Destination: hop6, PrefixLength: 128},
			{Destination: net.IPv6zero, Gateway: hop6},
		},
		Namespace: &workload.NamespaceIdentity{Device: 4, Inode: 4026532000},
	}
}

// refuse is a status as the daemon makes it.
func refuse(code codes.Code, reason, text string, metadata ...string) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "workloadnet.v1", Metadata: map[string]string{}}
	for i := 0; i+1 < len(metadata); i += 2 {
		info.Metadata[metadata[i]] = metadata[i+1]
	}
	return with(status.New(code, text), info)
}

// refuseFor is a refusal that says when to come back.
func refuseFor(after time.Duration, reason, text string) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "workloadnet.v1"}
	return with(status.New(codes.Unavailable, text), info, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
}

func with(bare *status.Status, details ...protoadapt.MessageV1) error {
	made, err := bare.WithDetails(details...)
	if err != nil {
		return errors.Join(errors.New("the test's own status"), err)
	}
	return made.Err()
}
