//! All Kubernetes knowledge: discovery, exact lists, references, order, sanitising, normalising, diff.
