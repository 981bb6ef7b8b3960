//! The operating system calls that need unsafe code.
