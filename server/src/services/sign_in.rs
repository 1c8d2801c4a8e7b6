//! Signing in: password, then the second factor, then a session. Which step follows which is
//! `domain::sign_in`'s to say; the state in between is the caller's to keep (in a tower-sessions session).

use std::net::IpAddr;
use std::pin::pin;

use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::sessions::{Issued, NewSession, Proof};
use super::{Backend, ServiceError, sha256};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::dpop::Thumbprint;
use crate::domain::id::{DeviceId, UserId};
use crate::domain::mfa::{self, TotpSecret};
use crate::domain::password::{Password, Verification};
use crate::domain::policy::Limits;
use crate::domain::random;
use crate::domain::session::Client;
use crate::domain::sign_in::{AfterPassword, Flow, MAX_WRONG_CODES, Step, after_password};
use crate::domain::user::{User, UserStatus, canonical};
use crate::storage::devices::Device;
use crate::storage::{StorageError, Tx, audit, authenticators, devices, users};

/// Who knocks: circumstances and what the browser brought along.
#[derive(Clone, Debug)]
pub struct Caller {
    /// For the audit log.
    pub from: Circumstances,
    /// Address, for the device list.
    pub address: IpAddr,
    /// Kind of client.
    pub client: Client,
    /// The device cookie, if there was one.
    pub device: Option<DeviceCookie>,
    /// The key that a program has proved to hold: its session is bound to it.
    pub key: Option<Thumbprint>,
}

/// The device cookie: an id and a secret.
#[derive(Clone, Debug)]
pub struct DeviceCookie {
    id: DeviceId,
    secret: SecretString,
}

impl DeviceCookie {
    /// `None` if the text is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once('.')?;
        let well_formed = secret.len() == 43 && BASE64URL_NOPAD.decode(secret.as_bytes()).is_ok();
        well_formed.then_some(())?;
        Some(Self {
            id: id.parse().ok()?,
            secret: SecretString::from(secret),
        })
    }

    /// The cookie's value.
    #[must_use]
    pub fn value(&self) -> SecretString {
        SecretString::from(format!("{}.{}", self.id, self.secret.expose_secret()))
    }

    /// Device it names.
    #[must_use]
    pub const fn id(&self) -> DeviceId {
        self.id
    }
}

/// A finished sign-in.
#[derive(Debug)]
pub struct SignedIn {
    /// Tokens.
    pub issued: Box<Issued>,
    /// The device, with a new secret.
    pub device: DeviceCookie,
}

/// What came of a name and a password.
#[derive(Debug)]
pub enum PasswordOutcome {
    /// Wrong, or no such account, or it cannot sign in: never says which.
    Wrong,
    /// Done.
    SignedIn(SignedIn),
    /// A second step is due; the flow says which.
    Continue(Flow),
}

/// What came of a second factor.
#[derive(Debug)]
pub enum CodeOutcome {
    /// Wrong, old or used; the flow goes on with this state.
    Wrong(Flow),
    /// The flow is over: begin again.
    FlowOver,
    /// Done.
    SignedIn(SignedIn),
}

/// What came of the first code of a new authenticator.
#[derive(Debug)]
pub enum EnrolOutcome {
    /// Wrong.
    Wrong,
    /// The flow is over: begin again.
    FlowOver,
    /// Done; these codes are shown once.
    SignedIn(SignedIn, Vec<SecretString>),
}

/// A second factor that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Factor {
    /// A code of the authenticator app.
    Totp,
    /// A recovery code.
    Recovery,
}

impl Factor {
    /// RFC 8176 methods together with the password.
    pub(super) const fn amr(self) -> &'static str {
        match self {
            Self::Totp => "pwd otp",
            Self::Recovery => "pwd recovery",
        }
    }
}

/// The device that this cookie proves; whose it is, the caller checks.
async fn find_device_of(tx: &mut Tx, cookie: &DeviceCookie) -> Result<Option<Device>, StorageError> {
    let presented = sha256(cookie.secret.expose_secret().as_bytes());
    let found = devices::find_device(tx, cookie.id).await?;
    Ok(found.filter(|device| device.secret_hash.ct_eq(&presented).into()))
}

impl Backend {
    /// First step.
    ///
    /// # Errors
    /// Infrastructure, and [`ServiceError::Busy`].
    pub async fn check_password(
        &self,
        identifier: &str,
        password: &str,
        return_to: String,
        caller: &Caller,
    ) -> Result<PasswordOutcome, ServiceError> {
        let decided = pin!(self.decide_password(identifier, password, return_to, caller));
        self.measure_sign_in("password", decided).await
    }

    async fn decide_password(
        &self,
        identifier: &str,
        password: &str,
        return_to: String,
        caller: &Caller,
    ) -> Result<PasswordOutcome, ServiceError> {
        // Longer than any account may have: the same answer, without work that an attacker could choose.
        let given = Password::parse(password).ok();
        let name = canonical(identifier);
        let mut tx = self.store.read().await?;
        let user = if name.chars().count() <= 254 {
            users::find_user_by_identifier(&mut tx, &name).await?
        } else {
            None
        };
        let stored = match &user {
            Some(user) => users::find_password_hash(&mut tx, user.id).await?,
            None => None,
        };
        drop(tx);
        let Some(given) = given else {
            return self.refuse_password(user.as_ref(), "password_too_long", caller).await;
        };
        let verification = self.hasher.verify(given, stored.clone()).await?;
        let (Some(user), Some(stored)) = (user, stored) else {
            return self.refuse_password(None, "unknown_account", caller).await;
        };
        if verification == Verification::Wrong {
            return self.refuse_password(Some(&user), "wrong_password", caller).await;
        }
        if user.status != UserStatus::Active {
            return self.refuse_password(Some(&user), "account_disabled", caller).await;
        }
        let rehashed = if verification == Verification::RightButOutdated {
            let again = Password::parse(password).map_err(|_| ServiceError::Contradiction("password parsed before"))?;
            Some(self.hasher.hash(again, self.random.clone()).await?)
        } else {
            None
        };

        let mut tx = self.store.write().await?;
        if let Some(new) = rehashed
            && users::update_password_hash_only(&mut tx, user.id, &stored, &new).await?
        {
            let event = self.event(Kind::PasswordRehashed, &caller.from).by_subject(user.id);
            audit::append_events(&mut tx, &[event]).await?;
        }
        let Some(limits) = self.limits_of(&mut tx, &user).await? else {
            tx.commit().await?;
            return self.refuse_password(Some(&user), "no_role", caller).await;
        };
        let has_authenticator = authenticators::find_authenticator(&mut tx, user.id).await?.is_some();
        let now = self.now();
        let flow = |step| Flow {
            user_id: user.id,
            auth_epoch: user.auth_epoch,
            password_at: now,
            return_to: return_to.clone(),
            step,
            key: caller.key,
        };
        let accepted = self.event(Kind::PasswordAccepted, &caller.from).by_subject(user.id);
        audit::append_events(&mut tx, &[accepted]).await?;
        let outcome = match after_password(&limits, has_authenticator) {
            AfterPassword::SignedIn => {
                let proof = Proof { amr: "pwd", at: now };
                PasswordOutcome::SignedIn(self.finish(&mut tx, &user, &limits, proof, caller).await?)
            }
            AfterPassword::Code => PasswordOutcome::Continue(flow(Step::Code { wrong: 0 })),
            AfterPassword::Enrol => PasswordOutcome::Continue(flow(Step::Enrol { secret: None })),
        };
        tx.commit().await?;
        Ok(outcome)
    }

    /// Signs in a person who needs no second factor, the password step passed over: for the demo realm only.
    pub(super) async fn sign_in_after_password(
        &self,
        user: UserId,
        caller: &Caller,
    ) -> Result<Option<SignedIn>, ServiceError> {
        let mut tx = self.store.write().await?;
        let Some(user) = users::find_user(&mut tx, user).await? else {
            return Ok(None);
        };
        let Some(limits) = self.limits_of(&mut tx, &user).await? else {
            return Ok(None);
        };
        let proof = Proof {
            amr: "pwd",
            at: self.now(),
        };
        let signed_in = self.finish(&mut tx, &user, &limits, proof, caller).await?;
        tx.commit().await?;
        Ok(Some(signed_in))
    }

    async fn refuse_password(
        &self,
        user: Option<&User>,
        reason: &str,
        caller: &Caller,
    ) -> Result<PasswordOutcome, ServiceError> {
        // What was typed as a name is not recorded: people type passwords there.
        let event = self
            .event(Kind::SignInFailed, &caller.from)
            .outcome(Outcome::Failure)
            .subject(user.map(|user| user.id))
            .reason(reason);
        self.record(event).await?;
        Ok(PasswordOutcome::Wrong)
    }

    /// Second step: a code of the authenticator app, or a recovery code.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn check_code(&self, flow: Flow, code: &str, caller: &Caller) -> Result<CodeOutcome, ServiceError> {
        let decided = pin!(self.decide_code(flow, code, caller));
        self.measure_sign_in("code", decided).await
    }

    async fn decide_code(&self, mut flow: Flow, code: &str, caller: &Caller) -> Result<CodeOutcome, ServiceError> {
        let Step::Code { wrong } = flow.step else {
            return Ok(CodeOutcome::FlowOver);
        };
        let mut tx = self.store.write().await?;
        let Some((user, limits)) = self.flow_user(&mut tx, &flow, caller).await? else {
            return Ok(CodeOutcome::FlowOver);
        };
        let Some(factor) = self.accept_factor(&mut tx, user.id, code, &caller.from).await? else {
            tx.commit().await?;
            flow.step = Step::Code { wrong: wrong + 1 };
            return Ok(if wrong + 1 >= MAX_WRONG_CODES {
                CodeOutcome::FlowOver
            } else {
                CodeOutcome::Wrong(flow)
            });
        };
        let proof = Proof {
            amr: factor.amr(),
            at: self.now(),
        };
        let signed_in = self.finish(&mut tx, &user, &limits, proof, caller).await?;
        tx.commit().await?;
        Ok(CodeOutcome::SignedIn(signed_in))
    }

    /// Second step for a person whose role requires a factor and who has none yet.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn enrol_in_flow(&self, flow: &Flow, code: &str, caller: &Caller) -> Result<EnrolOutcome, ServiceError> {
        let Step::Enrol { secret: Some(secret) } = &flow.step else {
            return Ok(EnrolOutcome::FlowOver);
        };
        let Some(secret) = TotpSecret::from_base32(secret) else {
            return Ok(EnrolOutcome::FlowOver);
        };
        let mut tx = self.store.write().await?;
        let Some((user, limits)) = self.flow_user(&mut tx, flow, caller).await? else {
            return Ok(EnrolOutcome::FlowOver);
        };
        // Enrolled meanwhile in another tab: that factor has to be shown, not replaced.
        if authenticators::find_authenticator(&mut tx, user.id).await?.is_some() {
            return Ok(EnrolOutcome::FlowOver);
        }
        let Some(codes) = self.enrol(&mut tx, user.id, &secret, code, &caller.from).await? else {
            tx.commit().await?;
            return Ok(EnrolOutcome::Wrong);
        };
        let proof = Proof {
            amr: Factor::Totp.amr(),
            at: self.now(),
        };
        let signed_in = self.finish(&mut tx, &user, &limits, proof, caller).await?;
        tx.commit().await?;
        Ok(EnrolOutcome::SignedIn(signed_in, codes))
    }

    /// The person of a flow, if it may still be continued, and by this caller.
    async fn flow_user(
        &self,
        tx: &mut Tx,
        flow: &Flow,
        caller: &Caller,
    ) -> Result<Option<(User, Limits)>, ServiceError> {
        if !flow.is_open(self.now()) || flow.key != caller.key {
            return Ok(None);
        }
        let Some(user) = users::find_user(tx, flow.user_id).await? else {
            return Ok(None);
        };
        if user.status != UserStatus::Active || user.auth_epoch != flow.auth_epoch {
            return Ok(None);
        }
        Ok(self.limits_of(tx, &user).await?.map(|limits| (user, limits)))
    }

    /// Accepts a second factor once, by one conditional UPDATE; a refusal is audited. `None`: refused.
    pub(super) async fn accept_factor(
        &self,
        tx: &mut Tx,
        user: UserId,
        code: &str,
        from: &Circumstances,
    ) -> Result<Option<Factor>, ServiceError> {
        let now = self.now();
        let typed: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let mut reason = "wrong_code";
        if typed.len() == 6 && typed.bytes().all(|b| b.is_ascii_digit()) {
            if let Some(authenticator) = authenticators::find_authenticator(tx, user).await? {
                let opened = self.kek.open("totp", user.0.as_bytes(), &authenticator.secret_sealed)?;
                let secret = TotpSecret::from_bytes(&opened)
                    .ok_or(ServiceError::Contradiction("TOTP secret of a wrong length"))?;
                if let Some(step) = mfa::check(&secret, &typed, now, authenticator.last_step)
                    && authenticators::accept_step(tx, user, step).await?
                {
                    return Ok(Some(Factor::Totp));
                }
                if mfa::check(&secret, &typed, now, i64::MIN).is_some() {
                    reason = "code_replayed";
                }
            }
        } else if let Some(code) = mfa::normalise_recovery_code(code) {
            let hash = mfa::hash_recovery_code(&self.kek.derive("recovery codes"), user, &code);
            if authenticators::consume_recovery_code(tx, user, &hash, now).await? {
                let left = authenticators::count_recovery_codes(tx, user).await?;
                let event = self
                    .event(Kind::RecoveryCodeUsed, from)
                    .by_subject(user)
                    .fact("left", left);
                audit::append_events(tx, &[event]).await?;
                return Ok(Some(Factor::Recovery));
            }
            reason = "wrong_recovery_code";
        }
        let event = self
            .event(Kind::CodeRefused, from)
            .outcome(Outcome::Failure)
            .subject(user)
            .reason(reason);
        audit::append_events(tx, &[event]).await?;
        Ok(None)
    }

    /// Stores a new authenticator after its first code, with ten fresh recovery codes. `None`: wrong code.
    pub(super) async fn enrol(
        &self,
        tx: &mut Tx,
        user: UserId,
        secret: &TotpSecret,
        code: &str,
        from: &Circumstances,
    ) -> Result<Option<Vec<SecretString>>, ServiceError> {
        let typed: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let Some(step) = mfa::check(secret, &typed, self.now(), i64::MIN) else {
            let event = self
                .event(Kind::CodeRefused, from)
                .outcome(Outcome::Failure)
                .subject(user)
                .reason("wrong_first_code");
            audit::append_events(tx, &[event]).await?;
            return Ok(None);
        };
        let sealed = self
            .kek
            .seal("totp", user.0.as_bytes(), secret.as_bytes(), self.random());
        authenticators::put_authenticator(tx, user, &sealed, step, self.now()).await?;
        let codes = self.renew_codes(tx, user).await?;
        let event = self
            .event(Kind::AuthenticatorAdded, from)
            .by_subject(user)
            .fact("method", "totp");
        audit::append_events(tx, &[event]).await?;
        Ok(Some(codes))
    }

    /// Ten new recovery codes in place of all older ones.
    pub(super) async fn renew_codes(&self, tx: &mut Tx, user: UserId) -> Result<Vec<SecretString>, ServiceError> {
        let key = self.kek.derive("recovery codes");
        let codes = mfa::generate_recovery_codes(self.random());
        let hashes: Vec<[u8; 32]> = codes
            .iter()
            .filter_map(|code| mfa::normalise_recovery_code(code.expose_secret()))
            .map(|code| mfa::hash_recovery_code(&key, user, &code))
            .collect();
        authenticators::replace_recovery_codes(tx, user, &hashes, self.now()).await?;
        Ok(codes)
    }

    /// Recognises or makes the device, then makes the session.
    async fn finish(
        &self,
        tx: &mut Tx,
        user: &User,
        limits: &Limits,
        proof: Proof,
        caller: &Caller,
    ) -> Result<SignedIn, ServiceError> {
        let device = self.recognise_device(tx, user.id, caller.device.as_ref()).await?;
        let amr = proof.amr;
        let new = NewSession {
            user,
            limits,
            proof,
            client: caller.client,
            key: caller.key,
            device: Some(device.id),
            replaces: None,
        };
        let issued = self.create_session(tx, new, &caller.from).await?;
        let event = self
            .event(Kind::SignedIn, &caller.from)
            .by_subject(user.id)
            .session(issued.live.session.id)
            .device(Some(device.id))
            .fact("amr", amr);
        audit::append_events(tx, &[event]).await?;
        Ok(SignedIn {
            issued: Box::new(issued),
            device,
        })
    }

    /// Whether this is a cookie that a sign-in to this account left: such a browser is spared the one limit that
    /// strangers can exhaust for the owner (M13). `account` is a user's id, or a canonical name or e-mail address.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn knows_device(&self, cookie: Option<&DeviceCookie>, account: &str) -> Result<bool, ServiceError> {
        let Some(cookie) = cookie else { return Ok(false) };
        let mut tx = self.store.read().await?;
        let Some(device) = find_device_of(&mut tx, cookie).await? else {
            return Ok(false);
        };
        if device.user_id.to_string() == account {
            return Ok(true);
        }
        let named = users::find_user_by_identifier(&mut tx, account).await?;
        Ok(named.is_some_and(|user| user.id == device.user_id))
    }

    /// The device of the cookie if it is this person's, with a new secret (fixation); else a new device.
    async fn recognise_device(
        &self,
        tx: &mut Tx,
        user: UserId,
        cookie: Option<&DeviceCookie>,
    ) -> Result<DeviceCookie, ServiceError> {
        let now = self.now();
        let text = BASE64URL_NOPAD.encode(random::secret::<32>(self.random()).as_slice());
        let hash = sha256(text.as_bytes());
        let secret = SecretString::from(text);
        if let Some(cookie) = cookie
            && let Some(device) = find_device_of(tx, cookie).await?
            && device.user_id == user
        {
            devices::renew_device(tx, device.id, &hash, now).await?;
            return Ok(DeviceCookie { id: device.id, secret });
        }
        let id = DeviceId::new(now, self.random());
        let device = Device {
            id,
            user_id: user,
            secret_hash: hash,
            created_at: now,
            last_seen_at: now,
            trusted_until: None,
        };
        devices::insert_device(tx, &device).await?;
        Ok(DeviceCookie { id, secret })
    }
}
