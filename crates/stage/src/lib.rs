//! Namespaces, a fake outside host, ping and TCP: what the demo and the tests play on.
