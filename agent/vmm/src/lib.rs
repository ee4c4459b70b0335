//! Placeholder replaced by this crate's first commit.
