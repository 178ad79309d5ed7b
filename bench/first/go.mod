// Below the path of go/cni, because only from there may the generated code of the contract be used.
module github.com/containerd/go-cni/first

go 1.26.0

require (
	github.com/containerd/go-cni v1.1.13
	github.com/vishvananda/netlink v1.3.1
	github.com/vishvananda/netns v0.0.5
	golang.org/x/sys v0.47.0
	google.golang.org/grpc v1.83.2
)

require (
	golang.org/x/net v0.58.0 // indirect
	golang.org/x/text v0.41.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260526163538-3dc84a4a5aaa // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)

replace github.com/containerd/go-cni => ../../go/cni
