//! Compiles the protocol between coordinator and agents.
//!
//! By a compiler that is a crate: whoever builds Stillpoint needs nothing but Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/node.proto");
    let files = protox::compile(["node.proto"], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
