//! The command line: demo, status, list, get, check, attach, detach.
