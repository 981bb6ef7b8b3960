//! An embedded Kubernetes API server, in-process, on loopback.
