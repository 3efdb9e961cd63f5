//! The sparse secret of bootstrapping ([`encapsulation`](crate::ckks::encapsulation)).

use crate::ckks::origin::KeyId;
use crate::ckks::sampler::{SecretVec, finish, sparse_ternary, stream};
use zeroize::Zeroizing;

/// The sparse secret: `weight` coefficients of -1 or 1, the others 0. Wiped when dropped, redacted in Debug, never on a
/// backend other than the host.
///
/// It is derived from the dense secret by a hash, so that keys to it and from it fit together whenever they are made, and there is
/// nothing more to store.
#[derive(Debug)]
pub(super) struct SparseSecret {
    pub(super) coefficients: SecretVec<i8>,
}

impl SparseSecret {
    /// The sparse secret that belongs to a dense one.
    pub(super) fn derive(key_id: &KeyId, dense: &[i8], weight: usize) -> Self {
        let mut hasher = Zeroizing::new(blake3::Hasher::new_derive_key("cipherlens sparse secret for encapsulation, version 1"));
        hasher.update(&key_id.0);
        hasher.update(&(weight as u64).to_le_bytes());
        let bytes = Zeroizing::new(dense.iter().map(|&c| c as u8).collect::<Vec<u8>>());
        hasher.update(&bytes);
        let seed = finish(&hasher);
        let mut coefficients = SecretVec(vec![0i8; dense.len()]);
        sparse_ternary(&mut stream(&seed, "sparse ternary", 0, 0), weight, &mut coefficients.0);
        Self { coefficients }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::presets;

    #[test]
    fn the_sparse_secret_has_its_weight_and_is_redacted() {
        let params = presets::by_name("insecure-boot").unwrap();
        let dense = vec![1i8; params.degree()];
        let derive = |id: u8, weight: usize| SparseSecret::derive(&KeyId([id; 16]), &dense, weight);
        for weight in [1, 32, 64, params.degree()] {
            let secret = derive(1, weight);
            assert_eq!(secret.coefficients.0.iter().filter(|&&c| c != 0).count(), weight);
            assert!(secret.coefficients.0.iter().all(|c| (-1..=1).contains(c)));
            assert_eq!(secret.coefficients.0, derive(1, weight).coefficients.0);
            assert_ne!(secret.coefficients.0, derive(2, weight).coefficients.0);
            assert!(!format!("{secret:?}").contains("-1") && format!("{secret:?}").contains("redacted"));
        }
    }
}
