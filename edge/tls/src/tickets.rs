//! How do workers, restarts and edges accept each other's session tickets?
//!
//! ```text
//! ticket = version (1) | epoch (8, big endian) | nonce (12) | AES-256-GCM-SIV(state) + tag (16)
//! key    = HKDF-SHA-256(installation secret, "wrenn session ticket" | epoch)
//! ```
//!
//! Everything follows from the secret and the time, so nothing is exchanged. Tickets of the
//! previous epoch are accepted, and of the next one, because clocks differ. GCM-SIV, because
//! nonces are random and a whole fleet draws them under one key.

use std::{
    fmt::{self, Write as _},
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, rand,
};
use rustls::server::ProducesTickets;

use crate::{
    error::TlsError,
    files::{read, write_new},
};

/// How long one key makes tickets, in seconds.
pub const EPOCH_SECONDS: u64 = 12 * 60 * 60;
/// Length of the secret in bytes.
const SECRET_BYTES: usize = 32;
/// First byte of a ticket; another format takes another.
const VERSION: u8 = 1;
/// Version and epoch: what is authenticated but not encrypted.
const HEAD_BYTES: usize = 9;
/// Largest ticket that is looked at, in bytes. It holds a client's chain at most, which we don't ask for.
const TICKET_MAX_BYTES: usize = 16 * 1024;

/// The secret of an installation. Whoever has it can read recorded sessions of 1.2; keep it 0600.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecret([u8; SECRET_BYTES]);

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

impl TicketSecret {
    /// A secret from its 32 bytes.
    #[must_use]
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// A secret that nobody shares: tickets are good for this process only.
    ///
    /// # Errors
    ///
    /// [`TlsError::Config`] if the system has no random numbers.
    pub fn random() -> Result<Self, TlsError> {
        let mut bytes = [0; SECRET_BYTES];
        rand::fill(&mut bytes).map_err(|_| TlsError::Config("no random numbers".to_owned()))?;
        Ok(Self(bytes))
    }

    /// Reads the secret (64 hexadecimal digits), or makes one with mode 0600. Processes that start
    /// at once end up with the same one: the file appears whole or not at all, and the first wins.
    ///
    /// # Errors
    ///
    /// [`TlsError::Io`] if the file can't be read or written, [`TlsError::Secret`] if it holds
    /// something else.
    pub fn load_or_create(path: &Path) -> Result<Self, TlsError> {
        if !path.exists() {
            let secret = Self::random()?;
            let text = secret.0.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}"); // writing to a string does not fail
                text
            });
            write_new(path, &format!("{text}\n"), 0o600)?;
        }
        if let Some(warning) = crate::files::loose_mode(path) {
            tracing::warn!("{warning}");
        }
        let text = read(path)?;
        Self::parse(text.trim()).ok_or_else(|| TlsError::Secret { path: path.to_owned() })
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != 2 * SECRET_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; SECRET_BYTES];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    fn key(&self, epoch: u64) -> Option<LessSafeKey> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"wrenn session ticket").extract(&self.0);
        let epoch = epoch.to_be_bytes();
        let info = [epoch.as_slice()];
        let okm = secret.expand(&info, &AES_256_GCM_SIV).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

/// Seconds since 1970, from wherever.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Makes and accepts session tickets.
pub struct Tickets {
    secret: TicketSecret,
    clock: Clock,
    keys: ArcSwap<Keys>,
}

/// The keys of the epoch before, the epoch and the one after.
struct Keys {
    epoch: u64,
    keys: [Option<LessSafeKey>; 3],
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("epoch", &self.keys.load().epoch).finish_non_exhaustive()
    }
}

impl Tickets {
    /// Tickets by the system's clock.
    #[must_use]
    pub fn new(secret: TicketSecret) -> Arc<Self> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        Self::with_clock(secret, now)
    }

    /// Tickets by a clock of the caller's, in seconds since 1970.
    #[must_use]
    pub fn with_clock(
        secret: TicketSecret,
        clock: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Arc<Self> {
        let keys = ArcSwap::from_pointee(Keys::new(&secret, clock() / EPOCH_SECONDS));
        Arc::new(Self { secret, clock: Arc::new(clock), keys })
    }

    fn keys(&self) -> Arc<Keys> {
        let epoch = (self.clock)() / EPOCH_SECONDS;
        let keys = self.keys.load_full();
        if keys.epoch == epoch {
            return keys;
        }
        let keys = Arc::new(Keys::new(&self.secret, epoch)); // two at once make the same ones
        self.keys.store(Arc::clone(&keys));
        keys
    }
}

impl Keys {
    fn new(secret: &TicketSecret, epoch: u64) -> Self {
        let around = [epoch.checked_sub(1), Some(epoch), epoch.checked_add(1)];
        Self { epoch, keys: around.map(|epoch| epoch.and_then(|epoch| secret.key(epoch))) }
    }

    fn of(&self, epoch: u64) -> Option<&LessSafeKey> {
        let index = match epoch.checked_sub(self.epoch) {
            None if epoch + 1 == self.epoch => 0,
            Some(0) => 1,
            Some(1) => 2,
            _ => return None,
        };
        self.keys[index].as_ref()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// A ticket made at the end of an epoch is good for one more.
    fn lifetime(&self) -> u32 {
        u32::try_from(EPOCH_SECONDS).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = vec![VERSION];
        ticket.extend_from_slice(&keys.epoch.to_be_bytes());
        let head = Aad::from(<[u8; HEAD_BYTES]>::try_from(ticket.as_slice()).ok()?);
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        keys.of(keys.epoch)?.seal_in_place_append_tag(nonce, head, &mut sealed).ok()?;
        ticket.extend_from_slice(&sealed);
        (ticket.len() <= TICKET_MAX_BYTES).then_some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_MAX_BYTES {
            return None;
        }
        let (head, rest) = ticket.split_first_chunk::<HEAD_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (&version, epoch) = head.split_first()?;
        if version != VERSION {
            return None;
        }
        let epoch = u64::from_be_bytes(epoch.try_into().ok()?);
        let keys = self.keys();
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = keys.of(epoch)?.open_in_place(nonce, Aad::from(*head), &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt as _,
        sync::atomic::{AtomicU64, Ordering},
        thread,
    };

    use super::*;

    fn at(secret: u8, clock: &Arc<AtomicU64>) -> Arc<Tickets> {
        let clock = Arc::clone(clock);
        Tickets::with_clock(TicketSecret::new([secret; 32]), move || clock.load(Ordering::Relaxed))
    }

    #[test]
    fn same_secret_opens_and_another_does_not() {
        let clock = Arc::new(AtomicU64::new(1_000_000_000));
        let ticket = at(1, &clock).encrypt(b"state").unwrap();
        assert_eq!(at(1, &clock).decrypt(&ticket).unwrap(), b"state");
        assert_eq!(at(2, &clock).decrypt(&ticket), None);
    }

    #[test]
    fn ticket_lives_through_the_next_epoch_and_no_longer() {
        let start = 1_000_000 * EPOCH_SECONDS;
        let clock = Arc::new(AtomicU64::new(start + EPOCH_SECONDS - 1));
        let (ours, ticket) = (at(1, &clock), at(1, &clock).encrypt(b"state").unwrap());
        for (seconds, good) in [
            (start + EPOCH_SECONDS, true),
            (start + 2 * EPOCH_SECONDS - 1, true),
            (start + 2 * EPOCH_SECONDS, false),
            (start - 1, true), // our clock is behind
            (start - EPOCH_SECONDS - 1, false),
            (start, true),
        ] {
            clock.store(seconds, Ordering::Relaxed);
            assert_eq!(ours.decrypt(&ticket).is_some(), good, "at {seconds}");
        }
    }

    #[test]
    fn bent_and_cut_tickets_are_refused() {
        let tickets = at(1, &Arc::new(AtomicU64::new(1_000_000_000)));
        let ticket = tickets.encrypt(b"state").unwrap();
        for index in 0..ticket.len() {
            let mut bent = ticket.clone();
            bent[index] ^= 1;
            assert_eq!(tickets.decrypt(&bent), None, "byte {index}");
            assert_eq!(tickets.decrypt(&ticket[..index]), None, "cut at {index}");
        }
        assert_eq!(tickets.decrypt(&[0xff; 64]), None, "the last epoch of all");
        assert_eq!(tickets.decrypt(&vec![VERSION; TICKET_MAX_BYTES + 1]), None);
    }

    #[test]
    fn starting_at_once_yields_one_secret_that_only_the_owner_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tickets.key");
        let made = thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| TicketSecret::load_or_create(&path).unwrap()))
                .collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(made.iter().all(|secret| *secret == made[0]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(TicketSecret::load_or_create(&path).unwrap(), made[0], "kept");
    }

    #[test]
    fn file_with_something_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tickets.key");
        for text in ["", "abc", &"g".repeat(64), &"0".repeat(65)] {
            std::fs::write(&path, text).unwrap();
            let error = TicketSecret::load_or_create(&path).unwrap_err();
            assert!(matches!(error, TlsError::Secret { .. }), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
