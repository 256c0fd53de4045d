//! What ids and names are made of.

use sha2::{Digest as _, Sha256};

/// SHA-256 over texts, each ended by a 0, so that no two lists of texts run into one another.
pub(crate) fn of_texts(texts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}
