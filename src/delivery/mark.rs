//! Mark of a destination's settings, by which a change is noticed even after a restart. Pure.

use sha2::{Digest, Sha256};

/// Returns the mark of settings and secrets that is kept in the store. Sixteen bits miss one change
/// in 65,536, and are too few to test guesses of a secret against the store.
pub(super) fn mark(settings: &[u8; 32], secrets: &[u8; 32]) -> u16 {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(settings);
    hash.update(secrets);
    let digest: [u8; 32] = hash.finalize().into();
    let [first, second, ..] = digest;
    u16::from_be_bytes([first, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_settings_or_secrets_have_another_mark() {
        let before = mark(&[1; 32], &[2; 32]);
        assert_eq!(mark(&[1; 32], &[2; 32]), before);
        assert_ne!(mark(&[3; 32], &[2; 32]), before);
        assert_ne!(mark(&[1; 32], &[3; 32]), before);
    }
}
