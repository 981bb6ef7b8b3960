//! The `stillpoint` command line.
fn main() {}
