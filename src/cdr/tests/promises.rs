//! What the fold promises of any rows.
