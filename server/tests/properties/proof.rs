//! The product's rule keeps A, B and C in every world; each documented exception is one.

use server::domain::session::Client;

use crate::explore::{Report, explore};
use crate::lasso::for_ever;
use crate::world::{Budget, Exception, NO_END, PRODUCT, Property, Step, Verdict, World};

/// All pauses of TOKENS.md §3, in seconds.
pub const PAUSES: [u16; 5] = [9, 10, 30, 60, 7200];

/// Tabs of one browser on a bad network.
pub const TABS: World = World {
    name: "two tabs",
    server: PRODUCT,
    client: Client::Browser,
    tabs: 2,
    budget: Budget {
        refreshes: 4,
        pauses: 3,
        losses: 1,
        copies: 0,
        changes: 0,
    },
    pauses: &PAUSES,
    two_nodes: false,
    thief: false,
    begins_lost: false,
    excused: Exception::ALL,
};

/// A browser whose last answer was lost opens seven tabs at once.
pub const RESTORED: World = World {
    name: "seven restored tabs after a lost answer",
    tabs: 7,
    budget: Budget {
        refreshes: 8,
        pauses: 1,
        losses: 1,
        copies: 0,
        changes: 0,
    },
    pauses: &[9, 30],
    begins_lost: true,
    ..TABS
};

/// Two nodes on one database read and write at the same time.
pub const NODES: World = World {
    name: "three tabs, two nodes",
    tabs: 3,
    budget: Budget {
        refreshes: 4,
        pauses: 2,
        losses: 0,
        copies: 0,
        changes: 0,
    },
    pauses: &[10, 60],
    two_nodes: true,
    ..TABS
};

/// Tabs of somebody whose roles change.
pub const ROLES: World = World {
    name: "two tabs whose roles change",
    budget: Budget {
        refreshes: 4,
        pauses: 2,
        losses: 1,
        copies: 0,
        changes: 2,
    },
    ..TABS
};

/// A program on a bad network.
pub const PROGRAM: World = World {
    name: "a program",
    client: Client::Native,
    tabs: 1,
    budget: Budget {
        refreshes: 4,
        pauses: 3,
        losses: 2,
        copies: 1,
        changes: 0,
    },
    ..TABS
};

/// Tabs on a bad network and somebody with a copy.
pub const THEFT: World = World {
    name: "two tabs and a thief",
    budget: Budget {
        refreshes: 4,
        pauses: 2,
        losses: 1,
        copies: 0,
        changes: 0,
    },
    thief: true,
    ..TABS
};

/// Thief and victim without any bound.
pub const ENDLESS: World = World {
    name: "a thief and a victim without end",
    tabs: 0,
    budget: Budget {
        refreshes: NO_END,
        pauses: NO_END,
        losses: 0,
        copies: 0,
        changes: 0,
    },
    pauses: &[10, 30, 7200],
    thief: true,
    ..TABS
};

fn full() -> bool {
    std::env::var("MAYFLY_TEST_FULL").is_ok_and(|value| value == "1")
}

fn budget(refreshes: u8, pauses: u8, losses: u8, copies: u8) -> Budget {
    Budget {
        refreshes,
        pauses,
        losses,
        copies,
        changes: 0,
    }
}

#[track_caller]
fn holds(report: &Report) {
    println!("{report}");
    assert!(report.violation.is_none(), "{report}");
    for (verdict, count) in report.verdicts {
        assert!(
            verdict == Verdict::Reuse || count > 0,
            "a world without {verdict:?} proves little: {report}"
        );
    }
}

#[test]
fn f50_without_a_thief_nobody_is_ever_signed_out() {
    let program_with_roles = World {
        name: "a program whose roles change",
        budget: Budget {
            changes: 2,
            ..budget(4, 2, 1, 1)
        },
        ..PROGRAM
    };
    let mut worlds = vec![TABS, RESTORED, NODES, ROLES, PROGRAM, program_with_roles];
    if full() {
        worlds.extend([
            World {
                name: "two tabs, larger",
                budget: budget(5, 3, 1, 1),
                ..TABS
            },
            World {
                name: "three tabs",
                tabs: 3,
                budget: budget(4, 2, 1, 1),
                ..TABS
            },
            // With fewer lengths of pauses, or there would be too many states.
            World {
                name: "three tabs, five refreshes",
                tabs: 3,
                budget: budget(5, 2, 1, 1),
                pauses: &[10, 60, 7200],
                ..TABS
            },
            World {
                name: "three tabs, two nodes, larger",
                budget: budget(4, 3, 1, 0),
                ..NODES
            },
            World {
                name: "ten restored tabs after a lost answer",
                tabs: 10,
                budget: budget(12, 1, 0, 0),
                ..RESTORED
            },
            World {
                name: "a program, larger",
                budget: budget(5, 4, 3, 1),
                ..PROGRAM
            },
        ]);
    }
    for world in worlds {
        holds(&explore(&world));
    }
}

#[test]
fn f50_a_thief_is_found_out_or_gets_nothing() {
    let mut worlds = vec![THEFT];
    if full() {
        worlds.push(World {
            name: "two tabs and a thief, larger",
            budget: budget(5, 3, 1, 0),
            ..THEFT
        });
        worlds.push(World {
            name: "two tabs, two nodes and a thief",
            two_nodes: true,
            budget: budget(5, 3, 0, 0),
            ..THEFT
        });
        worlds.push(World {
            name: "three tabs, an answer twice and a thief",
            tabs: 3,
            budget: budget(4, 2, 1, 1),
            ..THEFT
        });
        worlds.push(World {
            name: "two tabs, five refreshes, an answer lost, one twice and a thief",
            budget: budget(5, 2, 1, 1),
            ..THEFT
        });
        worlds.push(World {
            name: "two tabs, two nodes, an answer lost, one twice and a thief",
            two_nodes: true,
            budget: budget(4, 2, 1, 1),
            ..THEFT
        });
    }
    for world in worlds {
        let report = explore(&world);
        holds(&report);
        assert!(report.ended > 0, "thieves were found out: {report}");
    }
}

/// The victim comes back again and again with a token that the thief has overtaken, and the thief goes on gaining.
pub const RIDES: &str = "the thief rides for ever though the victim keeps coming back";

/// [`RIDES`] in a world without end.
pub fn rides(world: &World) -> Report {
    for_ever(
        world,
        RIDES,
        |step: &Step| step.turned_away,
        |step: &Step| step.thief_gains,
    )
}

#[test]
fn f50_no_thief_rides_for_ever_while_the_victim_keeps_coming_back() {
    let report = rides(&ENDLESS);
    holds(&report);
    assert!(report.ended > 0, "thieves were found out: {report}");
}

#[test]
fn f50_each_documented_exception_is_one() {
    // To A: a request stuck for a minute, and an answer that a newer one overtook after ten seconds.
    let world = World {
        budget: budget(4, 3, 0, 0),
        ..TABS
    };
    for (left_out, exception) in [
        (&[Exception::OvertakenAnswer], "a stuck request"),
        (&[Exception::StuckRequest], "an overtaken answer"),
    ] {
        let report = explore(&World {
            excused: left_out,
            ..world
        });
        println!("{exception}: {report}");
        let violation = report.violation.unwrap_or_else(|| panic!("{exception} is none"));
        assert_eq!(violation.property, Property::A, "{violation}");
    }
    // To A: the same child lost six times in a row.
    let lost = World {
        tabs: 1,
        budget: budget(7, 1, 6, 0),
        pauses: &[60],
        ..TABS
    };
    let report = explore(&lost);
    println!("six answers lost: {report}");
    assert!(
        report
            .violation
            .is_some_and(|violation| violation.property == Property::A)
    );
    let five = World {
        budget: budget(7, 1, 5, 0),
        ..lost
    };
    assert!(explore(&five).violation.is_none(), "five are forgiven");
    // To B: the thief wins every race before confirmation.
    let report = for_ever(
        &ENDLESS,
        "the thief wins every race before confirmation",
        |step| step.victim_gains && step.verdict == Some(Verdict::Reissue),
        |step| step.thief_gains,
    );
    println!("the thief always first: {report}");
    assert!(report.violation.is_some(), "{report}");
}
