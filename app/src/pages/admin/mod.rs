//! The pages of administrators and auditors.

pub mod audit;
pub mod audit_event;
pub mod people;
pub mod person;
pub mod role;
pub mod roles;
