//! The bad tokens, by requirement.

use super::*;

mod content;
mod form;
mod header;
mod jwt_tool;

pub(super) use content::{j5, j6};
pub(super) use form::j7;
pub(super) use header::{j1, j2, j3, j4};
pub(super) use jwt_tool::jwt_tool;

/// The good claims with one member changed or, by `None`, left out.
fn with(name: &str, value: Option<Value>) -> Value {
    let mut object = serde_json::to_value(claims()).unwrap();
    match value {
        Some(value) => object[name] = value,
        None => drop(object.as_object_mut().unwrap().remove(name)),
    }
    object
}

/// The good header with one member set.
fn header_with(world: &World, name: &str, value: Value) -> Value {
    let mut header = world.header();
    header[name] = value;
    header
}

fn good_claims() -> Value {
    serde_json::to_value(claims()).unwrap()
}
