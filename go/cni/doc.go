// Package cni takes the place of github.com/containerd/go-cni: a container runtime that is built with it attaches its
// workloads by asking workloadnetd over gRPC, and starts no CNI plugin. README.md says how to build one.
//
//	runtime -> New -> instance -> Network -> request -> daemon (one connection per socket) -> result
//	                                    '-> queue, while no daemon answers
//
// Every call has a deadline: 30 s for Setup and Remove, 2 s for everything else, or the caller's where that is nearer.
// Setup waits for a daemon that is absent, starting or busy. Nothing panics, and nothing connects before the first call.
package cni
