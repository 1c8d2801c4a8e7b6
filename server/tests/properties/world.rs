//! What can happen around one session: tabs with one cookie jar, a network that loses, delays, copies and reorders,
//! a server that crashes between commit and answer, pauses, and a thief with a copy of the jar.
//!
//! Owns the words for all that: worlds, what is under way, actions, decisions and where they lead. Must not know how
//! anything happens ([`crate::state`]).

use server::domain::clock::Timestamp;
use server::domain::policy::Limits;
use server::domain::refresh::{self, Decision};
use server::domain::session::{Client, Session};
use server::domain::user::User;

use crate::state::State;

/// The signature of `domain::refresh::decide`.
pub type Rule = fn(&Session, &User, Option<&Limits>, u64, Timestamp) -> Decision;

/// A budget that is never used up.
pub const NO_END: u8 = u8::MAX;

/// A server: the rule, and how its decisions are carried out.
#[derive(Clone, Copy)]
pub struct Server {
    /// The rule.
    pub rule: Rule,
    /// What it does not take care of.
    pub without: Option<Care>,
}

/// What a server takes care of when it carries out decisions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// A re-issue counts as handing out tokens now: for the 10 s and 60 s it is like a rotation.
    ReissueRestarts,
    /// The minute of mercy begins when the child is confirmed, not when it was made.
    MercyFromConfirmation,
    /// The UPDATE of a rotation also repeats when tokens were last handed out.
    RotationSeesReissues,
    /// Each UPDATE repeats what was decided upon, and a decision about what changed meanwhile is taken again.
    Conditions,
}

impl Server {
    /// It takes care of this.
    pub fn takes(self, care: Care) -> bool {
        self.without != Some(care)
    }
}

/// The product's own.
pub const PRODUCT: Server = Server {
    rule: refresh::decide,
    without: None,
};

/// What may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Refreshes that are begun, the thief's included.
    pub refreshes: u8,
    /// Pauses.
    pub pauses: u8,
    /// Requests and answers lost; an answer is also lost when the server crashes after the commit.
    pub losses: u8,
    /// Requests and answers that arrive twice.
    pub copies: u8,
    /// Changes of roles, or signing keys that are revoked: access tokens of before are good for nothing.
    pub changes: u8,
}

/// One small world.
#[derive(Clone, Copy)]
pub struct World {
    /// For the report.
    pub name: &'static str,
    /// The server.
    pub server: Server,
    /// Kind of client.
    pub client: Client,
    /// Refreshes under way at once; none: each is answered at once.
    pub tabs: usize,
    /// Bounds.
    pub budget: Budget,
    /// Lengths of pauses in seconds.
    pub pauses: &'static [u16],
    /// Reading and writing of a refresh are two steps, as for two nodes on one database.
    pub two_nodes: bool,
    /// Somebody may copy the jar.
    pub thief: bool,
    /// It begins two hours after a rotation whose answer was lost.
    pub begins_lost: bool,
    /// Exceptions to property A that are left out.
    pub excused: &'static [Exception],
}

/// A documented exception to property A.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// A request that was stuck for 60 s.
    StuckRequest,
    /// An answer that was under way for 10 s while a newer one overtook it.
    OvertakenAnswer,
}

impl Exception {
    /// All of them that explorations leave out.
    pub const ALL: &'static [Self] = &[Self::StuckRequest, Self::OvertakenAnswer];
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// Nothing.
    Free,
    /// A request on its way to the server. Nobody waits for the answer to a copy.
    Request { token: u8, age: u8, copy: bool },
    /// The server has read the row, decided, and not yet written.
    Decided {
        token: u8,
        age: u8,
        copy: bool,
        what: Verdict,
        seen: Seen,
    },
    /// Tokens on their way to the jar.
    Answer { token: u8, age: u8 },
}

/// What happened to a row since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    /// Rotations.
    pub behind: u8,
    /// A re-issue.
    pub reissued: bool,
}

impl Seen {
    /// Nothing.
    pub const NOW: Self = Self {
        behind: 0,
        reissued: false,
    };
}

/// A decision of `domain::refresh` without its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Rotate,
    Reissue,
    Fresh,
    Superseded,
    Reuse,
    Ahead,
}

impl Verdict {
    /// All of them but `Ahead`, which no restored backup leads to here.
    pub const MET: [Self; 5] = [Self::Rotate, Self::Reissue, Self::Fresh, Self::Superseded, Self::Reuse];
}

/// One thing that happens; `words` tells what each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Send,
    Handle(Slot),
    Read(Slot),
    Write(Slot),
    Lose(Slot),
    Copy(Slot),
    Deliver(Slot),
    Show,
    Visit,
    Pause(u16),
    Change,
    ComeBack,
    Steal,
    ThiefRefreshes,
    ThiefShows,
}

/// Property of TOKENS.md §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// Without a thief nobody is ever signed out.
    A,
    /// A thief who uses what he has is found out, or gets nothing.
    B,
    /// One child per token, one rotation per generation.
    C,
}

/// Where a step leads.
#[derive(Clone, Copy)]
pub enum Target {
    /// Another state.
    State(State),
    /// The session ends with an alert, as it should.
    Ended,
    /// An exception that is documented.
    Excused,
    /// A property is broken.
    Broken(Property, &'static str),
}

/// One step, with what the explorer counts and the report tells.
#[derive(Clone, Copy)]
pub struct Step {
    /// What happened.
    pub action: Action,
    /// Where it leads.
    pub to: Target,
    /// What the server decided, if it was asked.
    pub verdict: Option<Verdict>,
    /// The thief was given tokens.
    pub thief_gains: bool,
    /// The victim was given tokens.
    pub victim_gains: bool,
    /// The victim came with an older token than the thief has shown, was given nothing and was not warned.
    pub turned_away: bool,
}
