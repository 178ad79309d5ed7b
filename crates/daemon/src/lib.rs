//! The daemon: one order per key, leases, recovery, the gRPC door.
