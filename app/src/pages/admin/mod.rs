//! The pages of administrators and auditors.

pub mod audit;
pub mod audit_event;
pub mod people;
pub mod person;
pub mod role;
pub mod roles;

use leptos::prelude::*;

use crate::request::{Access, Entry, Frame, Sheet, page, see_other};

/// `/admin`: opens the first page that the roles allow.
#[component]
pub fn Start() -> impl IntoView {
    page(Access::Auditors, |visit| async move {
        let is_admin = visit.viewer.is_some_and(|viewer| viewer.is_admin);
        see_other(if is_admin { "/admin/roles" } else { "/admin/audit" });
        Ok(Sheet::new("Administration", Frame::Console(Entry::Elsewhere), ()))
    })
}
