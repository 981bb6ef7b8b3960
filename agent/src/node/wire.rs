//! The protocol's messages, as they are compiled from `proto/node.proto`.
#![allow(missing_docs, clippy::all, unreachable_pub)]
tonic::include_proto!("stillpoint.node.v1");
