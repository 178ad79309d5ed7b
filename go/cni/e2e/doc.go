// Package e2e tests go/cni with the real daemon, in network namespaces. Its tests need the build tag e2e, and the
// environment's WORKLOADNETD to name the daemon's program: cargo xtask go builds and names it.
package e2e
