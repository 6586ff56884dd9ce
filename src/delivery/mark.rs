//! Marks of a destination's settings, by which a change is noticed, also over a restart. Pure.

use sha2::{Digest, Sha256};

/// A mark of settings and secrets, kept in the store. Sixteen bits find a change in all but one of
/// 65,536 cases, and let nobody who reads the store try out what the secrets may be.
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
