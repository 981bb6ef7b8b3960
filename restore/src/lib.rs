//! The restore plan, a value, and its application.
