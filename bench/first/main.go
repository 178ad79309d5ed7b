// Command first is what the daemon is measured beside: the sequence of calls of the service's first version, which was
// written in Go. One netlink message a call, each with an acknowledgement that is waited for; on the node a socket for each
// message. It serves Attach, Detach and Status of the contract, and keeps to nothing else that the contract says.
//
// One thing is left out: the first version named the IPv6 address as the source of the default route. The kernel refuses
// that for as long as duplicate address detection runs, so no attach with IPv6 would ever succeed.
package main

import (
	"flag"
	"log"
	"net"
	"net/netip"

	"google.golang.org/grpc"

	"github.com/containerd/go-cni/internal/workload"
)

func main() {
	log.SetFlags(0)
	socket := flag.String("socket", "", "where to listen")
	v4 := flag.String("v4", "10.96.0.0/14", "addresses of workloads")
	v6 := flag.String("v6", "fd96::/64", "addresses of workloads")
	flag.Parse()
	if err := serve(*socket, *v4, *v6); err != nil {
		log.Fatal(err)
	}
}

func serve(socket string, prefixes ...string) error {
	var pools []netip.Prefix
	for _, text := range prefixes {
		pool, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		pools = append(pools, pool)
	}
	if err := claimFirstHop(); err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	workload.RegisterWorkloadNetworkingServer(server, &service{ledger: newLedger(pools)})
	return server.Serve(listener)
}
