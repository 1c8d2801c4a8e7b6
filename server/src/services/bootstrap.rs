//! First run: the keys and the built-in roles that everything else needs. Safe to run at every start and on
//! several nodes at once.

use std::time::Duration;

use super::keys::{LostKeys, make_missing_keys};
use super::{Backend, Parts, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind};
use crate::domain::clock::Timestamp;
use crate::domain::id::EventId;
use crate::domain::keys::{Algorithm, KeyRing};
use crate::domain::policy::{Lifetimes, Mfa, Policy, presets};
use crate::domain::random::Random;
use crate::domain::user::{ADMIN, AUDITOR, MEMBER};
use crate::storage::{Tx, audit, keys, policies, users};

impl Backend {
    /// Opens the services on a migrated database, making keys and roles if it is new.
    ///
    /// # Errors
    /// Infrastructure, a key that the key-encryption key does not open, or a lost one.
    pub async fn start(parts: Parts, algorithm: Algorithm) -> Result<Self, ServiceError> {
        let (backend, tx) = Self::open(parts, algorithm, LostKeys::Refuse).await?;
        tx.commit().await?;
        Ok(backend)
    }

    /// Opens them for [`Self::recover`], which is to be given the transaction: lost keys are replaced in it.
    ///
    /// # Errors
    /// Infrastructure, or no proof that the key-encryption key is the right one.
    pub async fn start_to_recover(parts: Parts, algorithm: Algorithm) -> Result<(Self, Tx), ServiceError> {
        Self::open(parts, algorithm, LostKeys::Replace).await
    }

    async fn open(parts: Parts, algorithm: Algorithm, lost: LostKeys) -> Result<(Self, Tx), ServiceError> {
        let mut tx = parts.store.write().await?;
        // One node at a time: whoever comes second finds everything there.
        users::lock_bootstrap(&mut tx).await?;
        make_missing_keys(&mut tx, &parts, algorithm, lost).await?;
        for (name, description, lifetimes) in built_in_roles() {
            create_role(
                &mut tx,
                parts.clock.now(),
                parts.random.as_ref(),
                name,
                description,
                lifetimes,
            )
            .await?;
        }
        let ring = KeyRing::open(keys::list_keys(&mut tx).await?, &parts.kek)?;
        Ok((Self::new(parts, ring), tx))
    }

    /// Makes a role with its first policy; leaves an existing one alone.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn add_role(&self, name: &str, description: &str, lifetimes: Lifetimes) -> Result<(), ServiceError> {
        let mut tx = self.store.write().await?;
        create_role(&mut tx, self.now(), self.random(), name, description, lifetimes).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Records that the server started.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn record_start(&self) -> Result<(), ServiceError> {
        let event = self
            .event(Kind::ServerStarted, &Circumstances::default())
            .fact("version", env!("CARGO_PKG_VERSION"));
        self.record(event).await
    }
}

/// Makes a role with the first version of its policy, if it does not exist.
async fn create_role(
    tx: &mut Tx,
    now: Timestamp,
    random: &dyn Random,
    name: &str,
    description: &str,
    lifetimes: Lifetimes,
) -> Result<(), ServiceError> {
    if policies::find_policy(tx, name).await?.is_some() {
        return Ok(());
    }
    users::insert_role(tx, name, description, now).await?;
    let policy = Policy {
        role: name.to_owned(),
        version: 1,
        lifetimes,
        review_at: None,
        reason: "Made with the server".to_owned(),
        justification: None,
        author_id: None,
        created_at: now,
    };
    policies::insert_policy(tx, &policy).await?;
    let event = Event::new(
        EventId::new(now, random),
        now,
        Kind::RoleCreated,
        &Circumstances::default(),
    )
    .fact("role", name)
    .fact("policy", 1);
    audit::append_events(tx, &[event]).await?;
    Ok(())
}

fn built_in_roles() -> [(&'static str, &'static str, Lifetimes); 3] {
    let [consumer, _, admin, ..] = presets().map(|preset| preset.lifetimes);
    let auditor = Lifetimes {
        idle: Duration::from_mins(30),
        mfa: Mfa::Required,
        ..admin.clone()
    };
    [
        (ADMIN, "Runs this server: people, roles, lifetimes", admin),
        (AUDITOR, "Reads the audit log and changes nothing", auditor),
        (MEMBER, "Signs in and looks after their own devices", consumer),
    ]
}
