//! Whether what happened can have happened to an honest daemon. Pure: histories in, complaints out.

pub mod addresses;
pub mod honesty;
pub mod key;
pub mod steps;
