//! Tests only: a fake datapath that prints itself, the daemon under test, witnesses, scenarios.
