//! Which address a workload gets.
