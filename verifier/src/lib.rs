//! Scratch clusters, restore tests, checks and the report.
