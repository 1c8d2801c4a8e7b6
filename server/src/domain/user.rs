//! People: who may sign in, under which names, with which roles.

use super::clock::Timestamp;
use super::id::UserId;

/// Role that may do everything under `/admin`.
pub const ADMIN: &str = "admin";
/// Role that reads the audit log and changes nothing.
pub const AUDITOR: &str = "auditor";
/// Role that everybody can be given.
pub const MEMBER: &str = "member";

/// Whether an account can sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserStatus {
    /// Has not accepted the invitation: no password yet.
    Invited,
    /// Can sign in.
    Active,
    /// Cannot.
    Disabled,
}

impl UserStatus {
    /// The text in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
    }
}

/// An account. The password hash is deliberately not here: see `storage::users::find_password_hash`.
#[derive(Clone, Debug)]
pub struct User {
    /// Identifies the account for ever.
    pub id: UserId,
    /// Sign-in name as it was typed.
    pub username: String,
    /// E-mail address as it was typed.
    pub email: Option<String>,
    /// Name for people.
    pub display_name: String,
    /// Whether it can sign in.
    pub status: UserStatus,
    /// Last change of the password.
    pub password_changed_at: Option<Timestamp>,
    /// Raised by password change, reset and disabling: sessions of an older epoch are over.
    pub auth_epoch: i64,
    /// Raised by role changes: access tokens of an older epoch are refused.
    pub grant_epoch: i64,
    /// Made at.
    pub created_at: Timestamp,
    /// Role names, sorted.
    pub roles: Vec<String>,
}

impl User {
    /// Holds the role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held == role)
    }
}

/// What a name is compared by: NFKC, lower case, no surrounding space.
#[must_use]
pub fn canonical(name: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    name.trim().nfkc().collect::<String>().to_lowercase().nfkc().collect()
}

/// A sign-in name that may be given to a new account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Username(String);

/// What is wrong with a name or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameProblem {
    /// Nothing there.
    Missing,
    /// Shorter than this many characters.
    TooShort(u32),
    /// Longer than this many characters.
    TooLong(u32),
    /// Characters that are not allowed.
    BadCharacters,
}

impl Username {
    /// 2–64 of ASCII letters, digits, `.`, `_`, `-`, starting with a letter or digit: nothing that can be
    /// confused with an e-mail address, with another script's look-alike or with a UUID of another account.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NameProblem> {
        let text = text.trim();
        match text.chars().count() {
            0 => return Err(NameProblem::Missing),
            1 => return Err(NameProblem::TooShort(2)),
            2..=64 => {}
            _ => return Err(NameProblem::TooLong(64)),
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts_well || !text.chars().all(allowed) || uuid::Uuid::try_parse(text).is_ok() {
            return Err(NameProblem::BadCharacters);
        }
        Ok(Self(text.to_owned()))
    }

    /// As typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An e-mail address; only its shape is checked (RFC 5321, section 4.1.2, without quoted forms).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NameProblem> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NameProblem::Missing);
        }
        if text.chars().count() > 254 {
            return Err(NameProblem::TooLong(254));
        }
        let bad = |c: char| c.is_control() || c.is_whitespace() || !c.is_ascii() || "\"(),:;<>[\\]".contains(c);
        let (local, domain) = text.rsplit_once('@').ok_or(NameProblem::BadCharacters)?;
        let domain_fits = domain.contains('.') && domain.split('.').all(|label| !label.is_empty());
        if local.is_empty() || local.contains('@') || !domain_fits || text.chars().any(bad) {
            return Err(NameProblem::BadCharacters);
        }
        Ok(Self(text.to_owned()))
    }

    /// As typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
