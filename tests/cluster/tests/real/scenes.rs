//! What happens to the cluster, one file a scene. Each leaves the cluster as it found it, but for the pods `each`, one on
//! every node, which are there from `traffic` on; the last one, `chart`, takes the daemons away.

pub(crate) mod again;
pub(crate) mod away;
pub(crate) mod chart;
pub(crate) mod down;
pub(crate) mod drift;
pub(crate) mod kills;
pub(crate) mod ports;
pub(crate) mod ready;
pub(crate) mod rollout;
pub(crate) mod services;
pub(crate) mod traffic;
