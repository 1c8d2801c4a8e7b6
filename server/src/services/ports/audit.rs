//! The audit log.

use std::collections::HashMap;

use app::error::PageError;
use app::services::Audit;
use app::types::{AuditDetail, AuditFilter, AuditOutcome, AuditPage, AuditRow};
use async_trait::async_trait;
use serde_json::{Map, Value};
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::{Visit, page_fault};
use crate::domain::audit::{Event, Kind, Outcome};
use crate::domain::clock::Timestamp;
use crate::domain::device::describe;
use crate::domain::id::{EventId, UserId};
use crate::services::audit::Search;

#[async_trait]
impl Audit for Visit {
    async fn list(&self, filter: AuditFilter, cursor: String) -> Result<AuditPage, PageError> {
        let live = self.signed_in_for_page()?;
        let search = search(&filter).ok_or(PageError::BadQuery)?;
        let before = match cursor.as_str() {
            "" => None,
            text => Some(parse_cursor(text).ok_or(PageError::BadQuery)?),
        };
        let page = self
            .backend
            .list_events(live, &search, before, &self.caller.from)
            .await
            .map_err(page_fault)?
            .ok_or(PageError::Forbidden)?;
        Ok(AuditPage {
            rows: page.events.iter().map(|stored| row(stored, &page.names)).collect(),
            next: page.next.map(|(at, id)| format!("{}.{id}", at.as_millis())),
            filter,
            kinds: Kind::ALL
                .iter()
                .filter(|kind| **kind != Kind::Newer)
                .map(|kind| kind.as_str().to_owned())
                .collect(),
            sealed_until: page.sealed_until.map(Timestamp::as_millis),
            is_contradicted: page.is_contradicted,
        })
    }

    async fn detail(&self, id: String) -> Result<AuditDetail, PageError> {
        let live = self.signed_in_for_page()?;
        let id: EventId = id.parse().map_err(|_| PageError::NotFound)?;
        let (event, names, seal) = self
            .backend
            .find_event(live, id, &self.caller.from)
            .await
            .map_err(page_fault)?
            .ok_or(PageError::Forbidden)?
            .ok_or(PageError::NotFound)?;
        Ok(AuditDetail {
            row: row(&event, &names),
            actor_id: event.actor_id.map(|id| id.to_string()),
            subject_id: event.subject_id.map(|id| id.to_string()),
            session_id: event.session_id.map(|id| id.to_string()),
            device_id: event.device_id.map(|id| id.to_string()),
            device: event.user_agent.as_deref().map(|text| describe(text).to_string()),
            user_agent: event.user_agent.clone(),
            request_id: event.request_id.clone(),
            reason: event.reason.clone(),
            facts: event
                .facts
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            changes: changes(&event.changes),
            seal,
        })
    }
}

fn parse_cursor(text: &str) -> Option<(Timestamp, EventId)> {
    let (at, id) = text.split_once('.')?;
    Some((Timestamp::from_millis(at.parse().ok()?), id.parse().ok()?))
}

/// `None`: a filter that cannot be understood.
fn search(filter: &AuditFilter) -> Option<Search> {
    let trimmed = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let kind = match trimmed(&filter.kind) {
        None => None,
        Some(name) => {
            let known = |kind: &Kind| kind.as_str() == name && *kind != Kind::Newer;
            Some(Kind::ALL.iter().copied().find(known)?)
        }
    };
    let outcome = match filter.outcome.trim() {
        "" => None,
        "success" => Some(Outcome::Success),
        "failure" => Some(Outcome::Failure),
        "denied" => Some(Outcome::Denied),
        _ => return None,
    };
    let session = match trimmed(&filter.session) {
        None => None,
        Some(id) => Some(id.parse().ok()?),
    };
    let person = trimmed(&filter.person);
    if person.as_ref().is_some_and(|name| name.chars().count() > 254) {
        return None;
    }
    Some(Search {
        person,
        kind,
        outcome,
        session,
        from: moment(&filter.from)?,
        to: moment(&filter.to)?,
    })
}

/// `YYYY-MM-DDTHH:MM`, UTC; the outer `None` means it cannot be read.
#[expect(clippy::option_option, reason = "absent and unreadable are told apart")]
fn moment(text: &str) -> Option<Option<Timestamp>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    let parsed = PrimitiveDateTime::parse(text, format).ok()?;
    Some(Some(Timestamp::from_seconds(parsed.assume_utc().unix_timestamp())))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn text_of(value: &Value) -> String {
    text(value)
}

fn changes(changes: &Map<String, Value>) -> Vec<(String, String, String)> {
    let side = |change: &Value, side: &str| change.get(side).map_or_else(|| "–".to_owned(), text);
    changes
        .iter()
        .map(|(field, change)| (field.clone(), side(change, "before"), side(change, "after")))
        .collect()
}

fn row(event: &Event, names: &HashMap<UserId, String>) -> AuditRow {
    let name = |id: Option<UserId>, absent: &str| match id {
        Some(id) => names.get(&id).cloned().unwrap_or_else(|| id.to_string()),
        None => absent.to_owned(),
    };
    let nobody = if event.address.is_some() { "anonymous" } else { "system" };
    let mut parts: Vec<String> = Vec::new();
    if let Some(reason) = &event.reason {
        parts.push(reason.replace('_', " "));
    }
    parts.extend(
        changes(&event.changes)
            .into_iter()
            .map(|(field, before, after)| format!("{field}: {before} → {after}")),
    );
    if event.changes.is_empty() {
        parts.extend(
            event
                .facts
                .iter()
                .take(3)
                .map(|(name, value)| format!("{name}: {}", text(value))),
        );
    }
    AuditRow {
        id: event.id.to_string(),
        at: event.at.as_millis(),
        kind: event.kind.as_str().to_owned(),
        outcome: match event.outcome {
            Outcome::Success => AuditOutcome::Success,
            Outcome::Failure => AuditOutcome::Failure,
            Outcome::Denied => AuditOutcome::Denied,
        },
        actor: name(event.actor_id, nobody),
        subject: name(event.subject_id, "–"),
        address: event.address.clone().unwrap_or_else(|| "–".to_owned()),
        summary: parts.join("; "),
    }
}
