//! The rules: pure, without HTTP, SQL or user interface. Time and random bytes come in as values.

pub mod audit;
pub mod audit_seal;
pub mod backchannel_logout;
pub mod client;
pub mod clock;
pub mod cohort;
pub mod dbsc;
pub mod device;
pub mod dpop;
pub mod id;
pub mod jwt;
pub mod keys;
pub mod mail;
pub mod mfa;
pub mod notice;
pub mod outage;
pub mod password;
pub mod policy;
pub mod random;
pub mod refresh;
pub mod return_path;
pub mod revocation;
pub mod security_event;
pub mod session;
pub mod sign_in;
pub mod user;
