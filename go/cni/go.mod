// The path is that of the module which this one replaces: a package inside it can only be found by that path.
module github.com/containerd/go-cni

go 1.23.0

require (
	github.com/containernetworking/cni v1.3.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20241021214115-324edc3d5d38
	google.golang.org/grpc v1.68.1
	google.golang.org/protobuf v1.35.2
)

require (
	golang.org/x/net v0.29.0 // indirect
	golang.org/x/sys v0.25.0 // indirect
	golang.org/x/text v0.18.0 // indirect
)
