//! Rust client: connect, deadline, typed error.
