//! The seal on the audit log: a chain of keyed hashes, one per event, and signed checkpoints against cutting off its
//! tail (ASVS 16.4.2, requirement L7).
//!
//! Owns which bytes are sealed and how a chain is walked. Must not know where rows, keys or checkpoints are kept. The
//! key must be kept outside the database: whoever has only the database can neither alter a row nor seal it anew.

use aws_lc_rs::hmac;

use super::clock::Timestamp;
use super::id::{DeviceId, EventId, SessionId, UserId};

/// What the first seal covers in place of the one before it.
pub const BEGINNING: [u8; 32] = [0; 32];

/// A row of the log exactly as it is stored, even if no code of ours could have written it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of `audit::Event`, texts unparsed")]
pub struct AuditRow {
    pub id: EventId,
    pub at: Timestamp,
    pub kind: String,
    pub outcome: String,
    pub actor_id: Option<UserId>,
    pub subject_id: Option<UserId>,
    pub session_id: Option<SessionId>,
    pub device_id: Option<DeviceId>,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    pub reason: Option<String>,
    pub facts: String,
    pub changes: String,
}

impl AuditRow {
    /// The bytes that are sealed: every column, each with its presence and length before it, so that no two different
    /// rows have the same bytes.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256 + self.facts.len() + self.changes.len());
        let mut field = |value: Option<&[u8]>| match value {
            None => bytes.push(0),
            Some(value) => {
                bytes.push(1);
                bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
                bytes.extend_from_slice(value);
            }
        };
        field(Some(self.id.0.as_bytes()));
        field(Some(&self.at.as_millis().to_be_bytes()));
        field(Some(self.kind.as_bytes()));
        field(Some(self.outcome.as_bytes()));
        field(self.actor_id.as_ref().map(|id| id.0.as_bytes().as_slice()));
        field(self.subject_id.as_ref().map(|id| id.0.as_bytes().as_slice()));
        field(self.session_id.as_ref().map(|id| id.0.as_bytes().as_slice()));
        field(self.device_id.as_ref().map(|id| id.0.as_bytes().as_slice()));
        for text in [&self.address, &self.user_agent, &self.request_id, &self.reason] {
            field(text.as_deref().map(str::as_bytes));
        }
        field(Some(self.facts.as_bytes()));
        field(Some(self.changes.as_bytes()));
        bytes
    }
}

/// A link of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Its place, from 1 without gaps.
    pub seq: u64,
    /// The event it covers.
    pub event_id: EventId,
    /// HMAC-SHA256 over the hash before, place, time and event.
    pub hash: [u8; 32],
    /// When it was made.
    pub sealed_at: Timestamp,
}

/// A link with the row it covers; `None` if that is gone.
#[derive(Clone, Debug)]
pub struct SealedRow {
    /// The link.
    pub seal: Seal,
    /// The row.
    pub row: Option<AuditRow>,
}

/// The 256-bit key of the chain. Prints as redacted; the library wipes it.
pub struct SealKey(hmac::Key);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(redacted)")
    }
}

impl SealKey {
    /// From 32 secret bytes that serve no other purpose.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The next links of the chain after `last` (`None`: its beginning), in the order given.
    #[must_use]
    pub fn seal(&self, last: Option<&Seal>, rows: &[AuditRow], now: Timestamp) -> Vec<Seal> {
        let (mut seq, mut hash) = last.map_or((0, BEGINNING), |seal| (seal.seq, seal.hash));
        rows.iter()
            .map(|row| {
                seq += 1;
                hash = self.link(&hash, seq, now, row);
                Seal {
                    seq,
                    event_id: row.id,
                    hash,
                    sealed_at: now,
                }
            })
            .collect()
    }

    fn link(&self, previous: &[u8; 32], seq: u64, sealed_at: Timestamp, row: &AuditRow) -> [u8; 32] {
        let place = [seq.to_be_bytes(), sealed_at.as_millis().to_be_bytes()].concat();
        self.mac(b"mayfly audit seal 1", &[previous, &place, &row.canonical()])
    }

    fn mac(&self, purpose: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose);
        for part in parts {
            context.update(part);
        }
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    /// Signs where the chain stands now. Kept outside the database, it proves later that nothing was cut off.
    #[must_use]
    pub fn checkpoint(&self, last: &Seal, now: Timestamp) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            seq: last.seq,
            hash: last.hash,
            at: now,
            mac: [0; 32],
        };
        checkpoint.mac = self.checkpoint_mac(&checkpoint);
        checkpoint
    }

    /// Reads what [`Checkpoint`] prints.
    ///
    /// # Errors
    /// [`Tampering::CheckpointForged`]: it is no checkpoint, or one of another key.
    pub fn parse_checkpoint(&self, text: &str) -> Result<Checkpoint, Tampering> {
        let checkpoint: Option<Checkpoint> = text.trim().parse().ok();
        checkpoint
            .filter(|checkpoint| self.has_signed(checkpoint))
            .ok_or(Tampering::CheckpointForged)
    }

    fn has_signed(&self, checkpoint: &Checkpoint) -> bool {
        same(&self.checkpoint_mac(checkpoint), &checkpoint.mac)
    }

    fn checkpoint_mac(&self, checkpoint: &Checkpoint) -> [u8; 32] {
        let place = [checkpoint.seq.to_be_bytes(), checkpoint.at.as_millis().to_be_bytes()].concat();
        self.mac(b"mayfly audit checkpoint 1", &[&place, &checkpoint.hash])
    }
}

/// Where the chain stood at a moment, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Place of the last link then.
    pub seq: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// When.
    pub at: Timestamp,
    /// Signature over the three.
    pub mac: [u8; 32],
}

impl std::fmt::Display for Checkpoint {
    /// One line of text: `mayfly-audit-1 <seq> <Unix ms> <hash> <mac>`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        write!(
            f,
            "mayfly-audit-1 {} {} {} {}",
            self.seq,
            self.at.as_millis(),
            hex(&self.hash),
            hex(&self.mac)
        )
    }
}

/// The text is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a checkpoint of the audit log")]
pub struct NotACheckpoint;

impl std::str::FromStr for Checkpoint {
    type Err = NotACheckpoint;

    fn from_str(text: &str) -> Result<Self, NotACheckpoint> {
        let hash = |hex: &str| {
            let bytes = data_encoding::HEXLOWER
                .decode(hex.as_bytes())
                .map_err(|_| NotACheckpoint)?;
            <[u8; 32]>::try_from(bytes).map_err(|_| NotACheckpoint)
        };
        let ["mayfly-audit-1", seq, at, last, mac] = text.split_whitespace().collect::<Vec<_>>()[..] else {
            return Err(NotACheckpoint);
        };
        Ok(Self {
            seq: seq.parse().map_err(|_| NotACheckpoint)?,
            hash: hash(last)?,
            at: Timestamp::from_millis(at.parse().map_err(|_| NotACheckpoint)?),
            mac: hash(mac)?,
        })
    }
}

/// The first thing that is wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Tampering {
    #[error("event {event} (seal {seq}) was altered")]
    Modified { seq: u64, event: EventId },
    #[error("event {event} (seal {seq}) stands at a place that is not its own: the log was reordered")]
    Reordered { seq: u64, event: EventId },
    #[error("event {event} (seal {seq}) is missing")]
    EventMissing { seq: u64, event: EventId },
    #[error("seal {seq} is missing")]
    SealMissing { seq: u64 },
    #[error(
        "event {event} has no seal: it was slipped in, or the server ended before it could seal it and has not run since"
    )]
    Unsealed { event: EventId },
    #[error("the log ends with seal {found}, but had {expected} at the checkpoint: its tail was cut off")]
    Truncated { found: u64, expected: u64 },
    #[error("seal {seq} is not the one of the checkpoint: the log was replaced")]
    Replaced { seq: u64 },
    #[error("the checkpoint itself was altered or belongs to another key")]
    CheckpointForged,
}

/// A walk along the chain from its beginning, in as many parts as suits the reader.
#[derive(Debug)]
pub struct Walk<'k> {
    key: &'k SealKey,
    seq: u64,
    hash: [u8; 32],
    checkpoint: Option<Checkpoint>,
}

impl<'k> Walk<'k> {
    /// Begins; a checkpoint from outside the database, if there is one, has to be met on the way.
    ///
    /// # Errors
    /// [`Tampering::CheckpointForged`].
    pub fn begin(key: &'k SealKey, checkpoint: Option<Checkpoint>) -> Result<Self, Tampering> {
        if let Some(checkpoint) = &checkpoint
            && !key.has_signed(checkpoint)
        {
            return Err(Tampering::CheckpointForged);
        }
        Ok(Self {
            key,
            seq: 0,
            hash: BEGINNING,
            checkpoint,
        })
    }

    /// The place of the last link that was right; ask storage for the ones after it.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.seq
    }

    /// Checks the next links, in the order of their places.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&mut self, links: &[SealedRow]) -> Result<(), Tampering> {
        for (index, link) in links.iter().enumerate() {
            let seal = &link.seal;
            if seal.seq != self.seq + 1 {
                return Err(Tampering::SealMissing { seq: self.seq + 1 });
            }
            let Some(row) = &link.row else {
                return Err(Tampering::EventMissing {
                    seq: seal.seq,
                    event: seal.event_id,
                });
            };
            if !same(&self.key.link(&self.hash, seal.seq, seal.sealed_at, row), &seal.hash) {
                return Err(self.what_is_wrong(seal, row, &links[index + 1..]));
            }
            if let Some(checkpoint) = &self.checkpoint
                && checkpoint.seq == seal.seq
                && !same(&checkpoint.hash, &seal.hash)
            {
                return Err(Tampering::Replaced { seq: seal.seq });
            }
            self.seq = seal.seq;
            self.hash = seal.hash;
        }
        Ok(())
    }

    /// If a later row of this part fits here, rows changed places; else this one was altered.
    fn what_is_wrong(&self, seal: &Seal, row: &AuditRow, later: &[SealedRow]) -> Tampering {
        let fits = |other: &SealedRow| {
            other.row.as_ref().is_some_and(|moved| {
                [seal, &other.seal].iter().any(|given| {
                    let hash = self.key.link(&self.hash, seal.seq, given.sealed_at, moved);
                    same(&hash, &seal.hash) || same(&hash, &other.seal.hash)
                })
            })
        };
        if later.iter().any(fits) {
            Tampering::Reordered {
                seq: seal.seq,
                event: row.id,
            }
        } else {
            Tampering::Modified {
                seq: seal.seq,
                event: row.id,
            }
        }
    }

    /// The chain has no more links. `unsealed`: an event old enough to have one, but without, if there is any.
    ///
    /// # Errors
    /// The chain is shorter than the checkpoint says, or an event was slipped in beside it.
    pub fn finish(self, unsealed: Option<EventId>) -> Result<(), Tampering> {
        if let Some(checkpoint) = &self.checkpoint
            && checkpoint.seq > self.seq
        {
            return Err(Tampering::Truncated {
                found: self.seq,
                expected: checkpoint.seq,
            });
        }
        unsealed.map_or(Ok(()), |event| Err(Tampering::Unsealed { event }))
    }
}

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests;
