//! Commands that bring an application to rest and back: what they are, where they are written down, how they run.
//!
//! Data flows one way: annotations → [`model`] → [`plan`] → [`run`] → [`report`]. Only `run` and the executors below
//! [`exec`] touch a process; everything else is values, so that a plan can be shown, and linted, before anything runs.

pub mod annotations;
pub mod duration;
pub mod exec;
pub mod journal;
pub mod lint;
pub mod manifest;
pub mod model;
pub mod output;
pub mod plan;
pub mod pod;
pub mod preset;
pub mod report;
pub mod run;
pub mod session;
