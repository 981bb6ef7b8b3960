//! Writer and reader of restic's repository format on any object store.
