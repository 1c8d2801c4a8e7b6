//! The clients themselves: added, listed and disabled by the operator.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::domain::audit::{Circumstances, Kind};
use crate::domain::backchannel_logout::LogoutUri;
use crate::domain::client::{
    Authentication, ClientId, ClientName, ClientStatus, PublicKey, Scopes, ServiceClient, new_client_secret,
};
use crate::services::{Backend, ServiceError, sha256};
use crate::storage::{audit, clients, logout_receivers};

/// A client that is to be added.
#[derive(Debug)]
pub struct NewClient {
    /// For people.
    pub name: ClientName,
    /// What it may ask for.
    pub scopes: Scopes,
    /// Its public keys; with none it gets a secret.
    pub keys: Option<Vec<PublicKey>>,
    /// Life of its access tokens, checked by `domain::client::check_access`.
    pub access: Duration,
    /// It may ask whether other tokens are good.
    pub may_introspect: bool,
    /// Where it is told of ended sessions, if it is.
    pub logout_uri: Option<LogoutUri>,
}

/// A client that was added.
#[derive(Debug)]
pub struct AddedClient {
    /// Its id.
    pub id: ClientId,
    /// Its secret, shown once, unless it has keys.
    pub secret: Option<SecretString>,
}

/// What came of adding a client.
#[derive(Debug)]
pub enum AddClientOutcome {
    /// It is there.
    Added(AddedClient),
    /// Another client has that name.
    NameTaken,
}

impl Backend {
    /// Adds a client.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn add_client(&self, new: NewClient) -> Result<AddClientOutcome, ServiceError> {
        let now = self.now();
        let (authentication, secret) = if let Some(keys) = new.keys {
            (Authentication::Keys(keys), None)
        } else {
            let secret = new_client_secret(self.random());
            let hash = sha256(secret.expose_secret().as_bytes());
            (Authentication::Secret(hash), Some(secret))
        };
        let client = ServiceClient {
            id: ClientId::new(now, self.random()),
            name: new.name,
            authentication,
            scopes: new.scopes,
            access: new.access,
            may_introspect: new.may_introspect,
            status: ClientStatus::Active,
            created_at: now,
        };
        let event = self
            .event(Kind::ClientAdded, &Circumstances::default())
            .fact("client_id", client.id.as_str())
            .fact("authentication", client.authentication.as_str())
            .fact("scopes", client.scopes.to_string())
            .fact("access_s", client.access.as_secs())
            .fact("may_introspect", client.may_introspect)
            .fact("logout_uri", new.logout_uri.as_ref().map(LogoutUri::to_string));
        let mut tx = self.store.write().await?;
        match clients::insert_client(&mut tx, &client).await {
            Err(error) if error.is_unique_violation() => return Ok(AddClientOutcome::NameTaken),
            inserted => inserted?,
        }
        if let Some(uri) = &new.logout_uri {
            let last = audit::last_seal(&mut tx).await?.map_or(0, |seal| seal.seq);
            logout_receivers::put_logout_receiver(&mut tx, &client.id, uri, last, now).await?;
        }
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(AddClientOutcome::Added(AddedClient { id: client.id, secret }))
    }

    /// All clients, oldest first.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn list_clients(&self) -> Result<Vec<ServiceClient>, ServiceError> {
        let mut tx = self.store.read().await?;
        Ok(clients::list_clients(&mut tx).await?)
    }

    /// Has a client be told of ended sessions at another address, or nowhere. Whether there is such a client, active.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn set_logout_uri(&self, id: &ClientId, uri: Option<&LogoutUri>) -> Result<bool, ServiceError> {
        let mut tx = self.store.write().await?;
        if !clients::is_active(&mut tx, id).await? {
            return Ok(false);
        }
        let before = logout_receivers::find_logout_uri(&mut tx, id).await?;
        if before.as_ref() == uri {
            return Ok(true);
        }
        if let Some(uri) = uri {
            let last = audit::last_seal(&mut tx).await?.map_or(0, |seal| seal.seq);
            logout_receivers::put_logout_receiver(&mut tx, id, uri, last, self.now()).await?;
        } else {
            logout_receivers::delete_logout_receiver(&mut tx, id).await?;
        }
        let shown = |uri: Option<&LogoutUri>| uri.map(LogoutUri::to_string);
        let (before, after) = (shown(before.as_ref()), shown(uri));
        let event = self
            .event(Kind::ClientChanged, &Circumstances::default())
            .fact("client_id", id.as_str())
            // Which is not shown.
            .fact("only_query_changed", before == after)
            .change("logout_uri", before, after);
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Disables a client for good: it gets no more tokens, and those it has are refused from now on. Whether it was
    /// there and active.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn disable_client(&self, id: &ClientId) -> Result<bool, ServiceError> {
        let mut tx = self.store.write().await?;
        if !clients::disable_client(&mut tx, id, self.now()).await? {
            return Ok(false);
        }
        let event = self
            .event(Kind::ClientDisabled, &Circumstances::default())
            .fact("client_id", id.as_str());
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(true)
    }
}
