//! The addresses of the pages.
//!
//! Owns: which address shows which page. Must not know: how a page gets its data.

use leptos::prelude::*;
use leptos_meta::provide_meta_context;
use leptos_router::components::{Route, Router, Routes};
use leptos_router::{SsrMode, path};

use crate::pages::admin::Start;
use crate::pages::admin::audit::Audit;
use crate::pages::admin::audit_event::AuditEvent;
use crate::pages::admin::people::{Invite, People};
use crate::pages::admin::person::{Disable, EndSessions, Person};
use crate::pages::admin::role::Role;
use crate::pages::admin::roles::Roles;
use crate::pages::code::Code;
use crate::pages::devices::{Devices, EndOthers, EndSession};
use crate::pages::enrol::Enrol;
use crate::pages::recovery_codes::RecoveryCodes;
use crate::pages::security::{RemoveAuthenticator, Security, SetUpAuthenticator};
use crate::pages::sign_in::SignIn;
use crate::pages::step_up::StepUp;
use crate::pages::welcome::Welcome;
use crate::request::missing_page;

/// All pages. Each is rendered whole before the first byte leaves (`SsrMode::Async`), because pages
/// redirect, set their status and work without JavaScript.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    view! {
        <Router>
            <Routes fallback=missing_page>
                <Route path=path!("/") view=Devices ssr=SsrMode::Async/>
                <Route path=path!("/devices/end") view=EndSession ssr=SsrMode::Async/>
                <Route path=path!("/devices/end-others") view=EndOthers ssr=SsrMode::Async/>
                <Route path=path!("/security") view=Security ssr=SsrMode::Async/>
                <Route path=path!("/security/authenticator") view=SetUpAuthenticator ssr=SsrMode::Async/>
                <Route path=path!("/security/remove-authenticator") view=RemoveAuthenticator ssr=SsrMode::Async/>
                <Route path=path!("/recovery-codes") view=RecoveryCodes ssr=SsrMode::Async/>
                <Route path=path!("/sign-in") view=SignIn ssr=SsrMode::Async/>
                <Route path=path!("/sign-in/code") view=Code ssr=SsrMode::Async/>
                <Route path=path!("/sign-in/enrol") view=Enrol ssr=SsrMode::Async/>
                <Route path=path!("/step-up") view=StepUp ssr=SsrMode::Async/>
                <Route path=path!("/welcome") view=Welcome ssr=SsrMode::Async/>
                <Route path=path!("/admin") view=Start ssr=SsrMode::Async/>
                <Route path=path!("/admin/roles") view=Roles ssr=SsrMode::Async/>
                <Route path=path!("/admin/roles/:role") view=Role ssr=SsrMode::Async/>
                <Route path=path!("/admin/people") view=People ssr=SsrMode::Async/>
                <Route path=path!("/admin/people/new") view=Invite ssr=SsrMode::Async/>
                <Route path=path!("/admin/people/:id") view=Person ssr=SsrMode::Async/>
                <Route path=path!("/admin/people/:id/disable") view=Disable ssr=SsrMode::Async/>
                <Route path=path!("/admin/people/:id/end-sessions") view=EndSessions ssr=SsrMode::Async/>
                <Route path=path!("/admin/audit") view=Audit ssr=SsrMode::Async/>
                <Route path=path!("/admin/audit/:id") view=AuditEvent ssr=SsrMode::Async/>
            </Routes>
        </Router>
    }
}
