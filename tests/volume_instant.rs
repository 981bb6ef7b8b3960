//! `stillpoint volume backup` at one instant: real writers on real filesystems, stopped by the very binary that is
//! tested, and what is restored compared with what was written.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod instant {
    mod full;
    mod killed;
    mod misses;
    mod order;
    mod turns;
    mod user;
}
