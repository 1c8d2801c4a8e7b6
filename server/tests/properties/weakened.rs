//! Checks the checker: for each weakened rule the explorer finds what it breaks, with a way that can be read.

use crate::explore::{Report, explore};
use crate::proof::{ENDLESS, NODES, RESTORED, RIDES, ROLES, TABS, THEFT, rides};
use crate::rules;
use crate::world::{Care, PRODUCT, Property, Rule, Server, World};

#[track_caller]
fn breaks(what: &str, report: &Report, property: Property) {
    println!("{what}, {report}\n");
    let violation = report
        .violation
        .as_ref()
        .unwrap_or_else(|| panic!("{what}: nothing was found in {report}"));
    assert_eq!(violation.property, property, "{what}: {violation}");
    assert!(violation.trace.len() >= 3, "{violation}");
}

fn with(rule: Rule, world: World) -> World {
    World {
        server: Server { rule, ..PRODUCT },
        ..world
    }
}

/// The same for rules that hand out what the product's UPDATE would refuse.
fn carelessly(rule: Rule, world: World) -> World {
    World {
        server: Server {
            rule,
            without: Some(Care::Conditions),
        },
        ..world
    }
}

#[test]
fn f50_strict_single_use_signs_honest_people_out() {
    breaks(
        "strict single use",
        &explore(&with(rules::strict_single_use, TABS)),
        Property::A,
    );
}

#[test]
fn f50_ten_seconds_of_grace_let_a_thief_ride_and_sign_honest_people_out() {
    breaks(
        "grace that re-issues",
        &explore(&carelessly(rules::grace_that_reissues, THEFT)),
        Property::B,
    );
    breaks(
        "grace that re-issues",
        &explore(&carelessly(rules::grace_that_reissues, TABS)),
        Property::A,
    );
}

#[test]
fn f50_a_grace_that_forks_makes_two_children() {
    breaks(
        "grace that forks",
        &explore(&carelessly(rules::grace_that_forks, THEFT)),
        Property::C,
    );
}

#[test]
fn f50_a_predecessor_that_is_good_for_ever_feeds_a_thief() {
    breaks(
        "the predecessor for ever",
        &explore(&carelessly(rules::predecessor_for_ever, THEFT)),
        Property::B,
    );
}

#[test]
fn f50_tabs_that_lose_a_race_need_mercy() {
    breaks(
        "no mercy for tabs",
        &explore(&with(rules::no_mercy_for_tabs, TABS)),
        Property::A,
    );
}

#[test]
fn f50_without_the_ten_seconds_answers_overtake_each_other() {
    breaks("never fresh", &explore(&with(rules::never_fresh, TABS)), Property::A);
}

#[test]
fn f50_a_browser_whose_roles_change_waits_its_ten_seconds_like_any_other() {
    let world = World { pauses: &[60], ..ROLES };
    breaks(
        "never fresh after a change",
        &explore(&with(rules::never_fresh_after_a_change, world)),
        Property::A,
    );
}

#[test]
fn f50_a_minute_that_every_rotation_renews_hides_a_thief_for_ever() {
    let report = rides(&with(rules::minute_from_the_last_rotation, ENDLESS));
    breaks("the minute from the last rotation", &report, Property::B);
    assert!(report.violation.is_some_and(|violation| violation.why == RIDES));
}

#[test]
fn f50_a_server_that_never_cries_theft_hides_a_thief_for_ever() {
    breaks("never reuse", &rides(&with(rules::never_reuse, ENDLESS)), Property::B);
}

#[test]
fn f50_a_reissue_that_counts_as_nothing_signs_honest_people_out() {
    let server = Server {
        without: Some(Care::ReissueRestarts),
        ..PRODUCT
    };
    breaks(
        "re-issues count as nothing",
        &explore(&World { server, ..TABS }),
        Property::A,
    );
    breaks(
        "re-issues count as nothing",
        &explore(&World { server, ..RESTORED }),
        Property::A,
    );
}

#[test]
fn f50_a_minute_that_begins_before_the_child_is_confirmed_signs_honest_people_out() {
    let server = Server {
        without: Some(Care::MercyFromConfirmation),
        ..PRODUCT
    };
    breaks(
        "mercy from the rotation",
        &explore(&World { server, ..TABS }),
        Property::A,
    );
}

#[test]
fn f50_a_rotation_that_overlooks_a_reissue_signs_honest_people_out() {
    let server = Server {
        without: Some(Care::RotationSeesReissues),
        ..PRODUCT
    };
    breaks(
        "a rotation that overlooks a re-issue",
        &explore(&World { server, ..NODES }),
        Property::A,
    );
}

#[test]
fn f50_an_update_without_its_condition_makes_two_children() {
    let server = Server {
        without: Some(Care::Conditions),
        ..PRODUCT
    };
    breaks("check, then act", &explore(&World { server, ..NODES }), Property::C);
}
