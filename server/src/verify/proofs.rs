//! Proofs of possession that were used in this process: each is good once, and too old after a minute.

use std::collections::HashMap;

use super::Denied;
use crate::domain::clock::Timestamp;
use crate::domain::dpop::{Proof, Refusal};

/// Most proofs in memory, about 10 MB: a thousand requests a second.
const CAPACITY: usize = 100_000;

/// What is remembered.
#[derive(Debug, Default)]
pub(super) struct UsedProofs(HashMap<[u8; 32], Timestamp>);

impl UsedProofs {
    /// Uses up a proof. Only holders of a good token get here.
    ///
    /// # Errors
    /// Used before; or too many at once: what cannot be remembered is not accepted.
    pub(super) fn consume(&mut self, proof: &Proof, now: Timestamp) -> Result<(), Denied> {
        if self.0.len() >= CAPACITY {
            self.0.retain(|_, until| now < *until);
        }
        if self.0.contains_key(&proof.id) {
            return Err(Denied::Unproven(Refusal::Replayed));
        }
        if self.0.len() >= CAPACITY {
            return Err(Denied::Unknown("too many proofs of possession at once"));
        }
        self.0.insert(proof.id, proof.until);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
