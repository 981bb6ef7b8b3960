//! The checks of a restore test, one module each.
//!
//! A check is a plain function or value that is told what was seen and says what it makes of it; who reads the backup
//! or asks the cluster is elsewhere, so that judging is tested without either. Each damage has one check that names
//! it, and the others keep silent about it: who reads a report should see causes, not echoes.

pub(crate) mod accepted;
pub(crate) mod counts;
pub(crate) mod equal;
pub(crate) mod integrity;
pub(crate) mod references;
pub(crate) mod signature;
pub(crate) mod still_there;
pub(crate) mod user;
pub(crate) mod volumes;
