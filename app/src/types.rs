//! Plain data that pages and ports exchange, in the words of the user interface.
//!
//! Owns: what a page needs to be drawn. Must not know: SQL, HTTP, the server's domain types.
//! Times are Unix milliseconds (UTC); durations carry their unit in the name.

mod audit;

use serde::{Deserialize, Serialize};

pub use audit::{AuditDetail, AuditFilter, AuditOutcome, AuditPage, AuditRow};

use crate::error::{Field, Problem};

/// Why a session is over. The sentence for people is [`crate::words::ending`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The person signed out on that very device.
    SignedOut,
    /// The person ended it from another device.
    EndedByUser,
    /// An administrator ended it.
    EndedByAdmin,
    /// No activity for longer than the idle limit.
    Idle,
    /// The absolute limit of the session passed.
    Expired,
    /// The password was changed.
    PasswordChanged,
    /// A second factor was added, removed or reset.
    FactorChanged,
    /// The account was disabled.
    UserDisabled,
    /// A used refresh token came back: somebody holds a copy.
    TokenReused,
    /// A token from the future of this database: the database went back in time.
    DatabaseRolledBack,
    /// Step-up gave this sign-in a new session; not an alarm.
    Replaced,
    /// The most sessions at once were exceeded; the oldest made room.
    TooManySessions,
    /// A role now demands a second factor.
    FactorRequired,
}

/// The rule that set a limit, to be named in words ("role finance, policy 7").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Role the policy belongs to.
    pub role: String,
    /// Version of that role's policy.
    pub version: u32,
}

/// What ended and why, for the sign-in page and the list of ended sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Closed reason code.
    pub reason: EndReason,
    /// The rule behind it, where a limit was the reason.
    pub rule: Option<Rule>,
    /// That limit, seconds.
    pub limit_s: Option<i64>,
}

/// Who is looking at the page. Absent from the context for anonymous visitors.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// Account id.
    pub user_id: String,
    /// Sign-in name.
    pub username: String,
    /// Name as people read it.
    pub display_name: String,
    /// Names of the roles held.
    pub roles: Vec<String>,
    /// May open and change everything under `/admin`.
    pub is_admin: bool,
    /// May read the audit log (administrators may, too).
    pub may_read_audit: bool,
    /// This session's id.
    pub session_id: String,
    /// Seconds of inactivity after which this session ends.
    pub idle_limit_s: i64,
    /// Seconds before the idle end at which a warning is shown; 0 = none.
    pub idle_warning_s: i64,
    /// When the session ends whatever happens.
    pub absolute_end_at: i64,
}

/// What every page knows about the request it answers.
#[derive(Clone, Debug)]
pub struct PageContext {
    /// The server's time, for relative times.
    pub now: i64,
    /// Shown on error pages so that a person can quote it.
    pub request_id: String,
    /// Synchroniser token that every form carries in the hidden field `form_token`.
    pub form_token: String,
    /// Content-hashed file names of this build.
    pub assets: Assets,
    /// Theme chosen by the person (`light` or `dark`, from the cookie `theme`), if any.
    pub theme: Option<String>,
    /// News kept over one redirect for a page whose own data carries none (`FormExpired`, `PolicySaved`).
    pub notice: Option<Notice>,
}

/// Paths of the style sheet and of the islands' code.
#[derive(Clone, Debug, Default)]
pub struct Assets {
    /// Absolute path of the style sheet, e.g. `/pkg/main-1f2e.css`.
    pub style: String,
    /// `output_name` of the islands: `/pkg/{name}.js` and `/pkg/{name}_bg.wasm`; `None` if the build has none.
    pub islands: Option<String>,
}

/// Where a flow goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Ask for a code of the authenticator app.
    Code,
    /// Set up the authenticator app first.
    Enrol,
    /// Show the recovery codes once.
    RecoveryCodes,
    /// Prove it is you once more, then come back.
    StepUp {
        /// Same-origin path to come back to.
        return_to: String,
    },
    /// Finished: go to this same-origin path.
    Done {
        /// Same-origin path.
        path: String,
    },
}

/// What the sign-in page says above its form.
#[derive(Clone, Debug, Default)]
pub struct SignInPrompt {
    /// Why the person has to sign in again, if they were signed in before.
    pub ending: Option<Ending>,
    /// The person's session is bound to a browser, and this one could not show that it is the one.
    pub other_browser: bool,
    /// Neutral news, e.g. that the password was changed.
    pub signed_out: bool,
    /// No account exists yet: tell the operator to use the one-time link.
    pub needs_setup: bool,
}

/// A sign-in that waits for its second factor.
#[derive(Clone, Debug)]
pub struct PendingSignIn {
    /// Step the flow stands at.
    pub step: NextStep,
    /// Whose sign-in it is.
    pub username: String,
}

/// A new authenticator, shown until it is confirmed.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// Complete `<svg>` element with the `otpauth` address as a QR code.
    pub qr_svg: String,
    /// The same secret as base32 text in groups of four.
    pub text_key: String,
    /// Account name as it will appear in the authenticator app.
    pub account: String,
}

/// What the step-up page asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepUpPrompt {
    /// A code of the authenticator app or a recovery code.
    Code,
    /// The password, for people without a second factor.
    Password,
}

/// An invitation or first-run link, opened.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The first administrator of a fresh server.
    pub first_admin: bool,
    /// Sign-in name, if the inviting administrator chose it; else the person does.
    pub username: Option<String>,
    /// E-mail address, if known.
    pub email: Option<String>,
    /// Roles that the account will have.
    pub roles: Vec<String>,
    /// The shortest password accepted, in characters.
    pub min_password_length: u32,
}

/// Kind of device, for its icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Desktop or laptop computer.
    Computer,
    /// Telephone.
    Phone,
    /// Tablet.
    Tablet,
    /// A program without a browser.
    Program,
}

/// One living session as its owner sees it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Session id.
    pub id: String,
    /// It is the one that asks.
    pub current: bool,
    /// For the icon.
    pub kind: DeviceKind,
    /// "Firefox on Windows".
    pub device: String,
    /// Coarse network in words: "198.51.100.x", "this computer", "private network".
    pub network: String,
    /// First seen.
    pub started_at: i64,
    /// Last activity of the person's own.
    pub last_active_at: i64,
    /// "password and code", "password".
    pub signed_in_with: String,
    /// Its tokens are worth nothing without the key of its app, or of its browser.
    pub bound_to_key: bool,
    /// When it ends by itself: the earlier of the idle and the absolute end.
    pub ends_at: i64,
    /// Whether that end is the idle one.
    pub ends_idle: bool,
    /// Idle limit, seconds.
    pub idle_limit_s: i64,
    /// Rule that set the idle limit.
    pub idle_rule: Rule,
    /// Absolute end.
    pub absolute_end_at: i64,
    /// Rule that set the absolute limit.
    pub absolute_rule: Rule,
}

/// A session that is over.
#[derive(Clone, Debug)]
pub struct EndedSessionView {
    /// Session id.
    pub id: String,
    /// For the icon.
    pub kind: DeviceKind,
    /// "Firefox on Windows".
    pub device: String,
    /// Coarse network in words.
    pub network: String,
    /// First seen.
    pub started_at: i64,
    /// Ended at.
    pub ended_at: i64,
    /// Why.
    pub ending: Ending,
}

/// The devices page: this session first, then the others by last activity.
#[derive(Clone, Debug)]
pub struct DeviceList {
    /// Living sessions.
    pub living: Vec<SessionView>,
    /// Ended in the last 30 days, newest first, at most 50.
    pub ended: Vec<EndedSessionView>,
    /// One good piece of news after an action ("Session ended").
    pub notice: Option<Notice>,
}

/// Good news after an action, kept over one redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// One session was ended.
    SessionEnded,
    /// So many other sessions were ended.
    SessionsEnded {
        /// How many.
        count: u32,
    },
    /// The password was changed.
    PasswordChanged {
        /// Sessions ended with it.
        ended: u32,
    },
    /// An authenticator was added.
    AuthenticatorAdded,
    /// The authenticator was removed.
    AuthenticatorRemoved,
    /// A role's lifetimes were saved.
    PolicySaved {
        /// The new version.
        version: u32,
    },
    /// A person was disabled.
    PersonDisabled {
        /// Sessions ended with it.
        ended: u32,
    },
    /// A person was enabled.
    PersonEnabled,
    /// A person's roles were changed.
    RolesChanged,
    /// The form was not sent because the page was too old; try again.
    FormExpired,
}

/// The security page.
#[derive(Clone, Debug)]
pub struct SecurityView {
    /// When the password was last changed.
    pub password_changed_at: i64,
    /// When the authenticator was set up; `None` if there is none.
    pub authenticator_since: Option<i64>,
    /// A role of this person requires a second factor.
    pub factor_required: bool,
    /// Unused recovery codes.
    pub recovery_codes_left: u32,
    /// The shortest password accepted, in characters.
    pub min_password_length: u32,
    /// Living sessions other than this one.
    pub other_sessions: u32,
    /// After an action.
    pub notice: Option<Notice>,
}

/// Second factor demanded by a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MfaRule {
    /// Cannot be used.
    Off,
    /// Used if the person set one up.
    Optional,
    /// No sign-in without it.
    Required,
}

/// The limits of a role, editable. All durations in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetimes {
    /// Lifetime of an access token.
    pub access_s: i64,
    /// Idle limit.
    pub idle_s: i64,
    /// Absolute limit.
    pub absolute_s: i64,
    /// Warning before the idle end; 0 = none.
    pub idle_warning_s: i64,
    /// Remember-device period; 0 = never.
    pub remember_device_s: i64,
    /// Second factor.
    pub mfa: MfaRule,
    /// Age of the last factor above which sensitive acts ask again.
    pub step_up_s: i64,
    /// Most sessions at once.
    pub max_sessions: u32,
}

/// A use case to start from (M16), with the values it fills in.
#[derive(Clone, Debug)]
pub struct Preset {
    /// Stable key, e.g. `consumer_web`.
    pub key: String,
    /// Name for people.
    pub name: String,
    /// The ranges it comes from, in words.
    pub describes: String,
    /// Values filled in.
    pub lifetimes: Lifetimes,
}

/// A role and the policy in force.
#[derive(Clone, Debug)]
pub struct RoleView {
    /// Stable name, e.g. `finance`.
    pub name: String,
    /// For people.
    pub description: String,
    /// People who hold it.
    pub people: u32,
    /// Version in force.
    pub version: u32,
    /// Limits in force.
    pub lifetimes: Lifetimes,
    /// Who saved this version, and when, and why.
    pub changed_by: String,
    /// When.
    pub changed_at: i64,
    /// Why.
    pub reason: String,
    /// Written reason to go beyond NIST SP 800-63B-4, if any.
    pub justification: Option<String>,
}

/// What a policy change would do to the living sessions, before it is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPreview {
    /// Sessions that would end at their next use.
    pub sessions_ended: u32,
    /// Of so many people.
    pub people: u32,
    /// People who would have to set up a second factor.
    pub must_enrol: u32,
    /// What keeps these limits from being saved, to be shown at its field. With
    /// [`Problem::NeedsJustification`] they can be saved once the justification is written.
    pub refusal: Option<(Field, Problem)>,
}

/// A saved version of a role's policy.
#[derive(Clone, Debug)]
pub struct PolicyVersionView {
    /// Version.
    pub version: u32,
    /// Limits.
    pub lifetimes: Lifetimes,
    /// Author.
    pub changed_by: String,
    /// When.
    pub changed_at: i64,
    /// Why.
    pub reason: String,
}

/// The edit page of one role.
#[derive(Clone, Debug)]
pub struct RoleEditor {
    /// The role.
    pub role: RoleView,
    /// The six presets.
    pub presets: Vec<Preset>,
    /// Versions, newest first.
    pub history: Vec<PolicyVersionView>,
}

/// The policy form as it was sent: minutes and the like already turned into seconds by the page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Role to change.
    pub role: String,
    /// Version the form was made from; another one in force is a conflict.
    pub based_on: u32,
    /// New limits.
    pub lifetimes: Lifetimes,
    /// Why; required.
    pub reason: String,
    /// Written reason to go beyond NIST SP 800-63B-4; empty if none.
    pub justification: String,
}

/// One person in the admin's list.
#[derive(Clone, Debug)]
pub struct PersonRow {
    /// Account id.
    pub id: String,
    /// Sign-in name.
    pub username: String,
    /// Name as people read it.
    pub display_name: String,
    /// E-mail address.
    pub email: String,
    /// Roles.
    pub roles: Vec<String>,
    /// Disabled accounts cannot sign in.
    pub disabled: bool,
    /// Invited, has not set a password yet.
    pub invited: bool,
    /// Has an authenticator.
    pub has_factor: bool,
    /// Living sessions.
    pub sessions: u32,
    /// Last activity, if ever.
    pub last_active_at: Option<i64>,
}

/// The list of people, one page of it.
#[derive(Clone, Debug)]
pub struct PeopleList {
    /// Rows, by sign-in name.
    pub people: Vec<PersonRow>,
    /// Cursor for the next page.
    pub next: Option<String>,
    /// The search text as it was understood.
    pub search: String,
    /// After an action.
    pub notice: Option<Notice>,
}

/// A person to be invited, as typed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Invitee {
    /// Sign-in name.
    pub username: String,
    /// E-mail address.
    pub email: String,
    /// Name as people read it.
    pub display_name: String,
    /// Roles ticked.
    pub roles: Vec<String>,
}

/// One person's page for admins.
#[derive(Clone, Debug)]
pub struct PersonView {
    /// The row.
    pub person: PersonRow,
    /// It is the administrator who looks.
    pub is_viewer: bool,
    /// Living sessions.
    pub sessions: Vec<SessionView>,
    /// Sessions ended in the last 30 days, at most 50.
    pub ended: Vec<EndedSessionView>,
    /// Every role there is.
    pub all_roles: Vec<String>,
    /// A link made for this person just now, shown once.
    pub invitation_link: Option<String>,
    /// After an action.
    pub notice: Option<Notice>,
}
