//! Whose connection does a connection id belong to?
//!
//! An id is one AES-256 block: generation, worker, check bytes and random bytes, encrypted. On the wire it looks random
//! (RFC 9000 section 5.1 wants that); with the key, one decryption says who made it, or that none of us did.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey,
};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::RngCore;

/// Length of every connection id we give out, in bytes: one AES block.
pub const CID_LEN: usize = 16;

/// What stands in bytes 3 to 8 of a decrypted id. Random bytes match it once in 2^40.
const CHECK: [u8; 5] = *b"wrenn";

/// Who made a connection id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Generation of the process, counted up by each hand-over.
    pub generation: u16,
    /// Index of the worker in that process.
    pub worker: u8,
}

/// The key that seals and opens connection ids. Cheap to clone.
#[derive(Clone)]
pub struct CidKey(Arc<Pair>);

struct Pair {
    seal: EncryptingKey,
    open: DecryptingKey,
}

impl CidKey {
    /// A key of 32 secret bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let key = || UnboundCipherKey::new(&AES_256, secret).expect("an AES-256 key has 32 bytes");
        Self(Arc::new(Pair {
            seal: EncryptingKey::ecb(key()).expect("AES has the mode that encrypts one block"),
            open: DecryptingKey::ecb(key()).expect("AES has the mode that decrypts one block"),
        }))
    }

    /// A new id of `owner`, different each time.
    #[must_use]
    pub fn seal(&self, owner: Owner) -> [u8; CID_LEN] {
        let mut block = [0; CID_LEN];
        block[..2].copy_from_slice(&owner.generation.to_be_bytes());
        block[2] = owner.worker;
        block[3..8].copy_from_slice(&CHECK);
        rand::rng().fill_bytes(&mut block[8..]);
        self.0.seal.encrypt(&mut block).expect("one whole block can be encrypted");
        block
    }

    /// Who made `id`; `None` if none of us did. Neither allocates nor locks.
    #[must_use]
    pub fn decode(&self, id: &[u8]) -> Option<Owner> {
        let mut block: [u8; CID_LEN] = id.try_into().ok()?;
        self.0.open.decrypt(&mut block, DecryptionContext::None).ok()?;
        if block[3..8] != CHECK {
            return None;
        }
        Some(Owner { generation: u16::from_be_bytes([block[0], block[1]]), worker: block[2] })
    }
}

impl fmt::Debug for CidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CidKey(..)")
    }
}

/// Makes the connection ids of one worker.
///
/// The trait's own `validate` stays at its default, since quinn does not let its error be named: foreign ids never get
/// that far, [`SteeredSocket`](crate::SteeredSocket) drops short packets whose id [`CidKey::decode`] does not know.
#[derive(Debug, Clone)]
pub struct CidGenerator {
    key: CidKey,
    owner: Owner,
}

impl CidGenerator {
    /// Ids of `owner` under `key`.
    #[must_use]
    pub fn new(key: CidKey, owner: Owner) -> Self {
        Self { key, owner }
    }
}

impl ConnectionIdGenerator for CidGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.key.seal(self.owner))
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_names_the_worker_that_made_it(secret: [u8; 32], generation: u16, worker: u8) {
            let key = CidKey::new(&secret);
            let owner = Owner { generation, worker };
            let id = key.seal(owner);
            prop_assert_eq!(key.decode(&id), Some(owner));
            prop_assert_ne!(&id[3..8], &CHECK);
        }

        #[test]
        fn an_id_with_one_bit_changed_is_nobodys(bit in 0..CID_LEN * 8) {
            let key = CidKey::new(&[7; 32]);
            let mut id = key.seal(Owner { generation: 1, worker: 2 });
            id[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(key.decode(&id), None);
        }

        #[test]
        fn bytes_of_another_length_are_nobodys(id in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assume!(id.len() != CID_LEN);
            prop_assert_eq!(CidKey::new(&[7; 32]).decode(&id), None);
        }
    }

    #[test]
    fn random_bytes_are_nobodys() {
        let key = CidKey::new(&[9; 32]);
        let mut rng = rand::rng();
        let taken = (0..200_000)
            .filter(|_| {
                let mut id = [0; CID_LEN];
                rand::RngCore::fill_bytes(&mut rng, &mut id);
                key.decode(&id).is_some()
            })
            .count();
        assert_eq!(taken, 0);
    }

    #[test]
    fn ids_of_one_worker_never_repeat() {
        let mut generator =
            CidGenerator::new(CidKey::new(&[1; 32]), Owner { generation: 1, worker: 0 });
        let ids: HashSet<_> = (0..10_000).map(|_| generator.generate_cid().to_vec()).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn ids_of_another_key_are_nobodys_and_those_of_other_generations_are_known() {
        let ours = CidKey::new(&[1; 32]);
        let sister = Owner { generation: 9, worker: 5 };
        let mut known = CidGenerator::new(ours.clone(), sister);
        let mut foreign = CidGenerator::new(CidKey::new(&[2; 32]), sister);
        assert_eq!(ours.decode(&known.generate_cid()), Some(sister));
        assert_eq!(ours.decode(&foreign.generate_cid()), None);
        assert_eq!(known.generate_cid().len(), known.cid_len());
    }
}
