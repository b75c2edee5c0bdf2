//! The lock table under golden scripts: what is asked, and the trace of what happened.
//!
//! Commands: `begin T1 [age=N]`, `lock T1 a X` (a key, or a span such as `a..m`; `nowait`), `collect N`,
//! `cancel N`, `lower T1 a S|none`, `release T1`, `waits`, `locks`. `policy NAME` comes first. Set
//! `UPDATE_GOLDENFILES=1` to write what came out, and review the difference as code.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use goldenscript::{Command, Context, Runner};
use isolde_locks::table::{Answer, Effects, Party, Refusal, Table, Target, Ticket};
use isolde_locks::{Blocker, Deadlocks, Victim, WaitPolicy};
use isolde_types::{Key, LockMode, Span, TxnId};

struct TableRunner {
    table: Table,
}

type Outcome = Result<String, Box<dyn Error>>;

fn policy(name: &str) -> Result<Deadlocks, String> {
    Ok(match name {
        "youngest" => Deadlocks::Detect { victim: Victim::Youngest },
        "oldest" => Deadlocks::Detect { victim: Victim::Oldest },
        "fewest-locks" => Deadlocks::Detect { victim: Victim::FewestLocks },
        "requester" => Deadlocks::Detect { victim: Victim::Requester },
        "wound-wait" => Deadlocks::WoundWait,
        "wait-die" => Deadlocks::WaitDie,
        "no-wait" => Deadlocks::NoWait,
        "timeout-only" => Deadlocks::TimeoutOnly,
        other => return Err(format!("no such policy: {other}")),
    })
}

fn txn(name: &str) -> Result<TxnId, Box<dyn Error>> {
    Ok(TxnId(name.strip_prefix('T').ok_or("a transaction is T and a number")?.parse()?))
}

fn target(word: &str) -> Target {
    let key = |text: &str| Key::copy_from_slice(text.as_bytes());
    match word.split_once("..") {
        Some((from, to)) => Target::Span(Span::new(key(from), (!to.is_empty()).then(|| key(to)))),
        None => Target::Key(key(word)),
    }
}

fn mode(word: &str) -> Result<LockMode, String> {
    LockMode::ALL.into_iter().find(|mode| mode.letter().to_string() == word).ok_or_else(|| format!("no mode {word}"))
}

fn blockers(blockers: &[Blocker]) -> String {
    let one = |blocker: &Blocker| format!("{} ({} {})", blocker.txn, blocker.kind.name(), blocker.mode.letter());
    blockers.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Deadlock(report) => format!("deadlock: {report}"),
        Refusal::Wounded { by } => format!("wounded by {by}"),
        Refusal::Busy(by) => format!("busy: {}", blockers(by)),
        Refusal::Ended => "ended".to_owned(),
    }
}

impl TableRunner {
    fn answer(&self, answer: &Answer) -> String {
        match answer {
            Answer::Granted => "granted\n".to_owned(),
            Answer::Waits(ticket) => format!("waits as {} for {}\n", ticket.0, blockers(&self.table.blockers(*ticket))),
            Answer::Refused(why) => format!("refused, {}\n", refusal(why)),
        }
    }

    fn effects(effects: &Effects) -> String {
        let mut text = String::new();
        for ticket in &effects.wakes {
            let _ = writeln!(text, "wakes {}", ticket.0);
        }
        for (victim, by) in &effects.wounds {
            let _ = writeln!(text, "{victim} is wounded by {by}");
        }
        text
    }
}

impl Runner for TableRunner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Outcome {
        let mut args = command.consume_args();
        let age: Option<u64> = args.take_key("age").map(str::parse).transpose()?;
        let mut word = || args.next_pos().ok_or("a word is missing");
        let text = match command.name.as_str() {
            "policy" => {
                self.table = Table::new(policy(word()?)?);
                String::new()
            }
            "begin" => {
                let id = txn(word()?)?;
                self.table.enter(id, &Party { age: age.unwrap_or(id.0), label: None });
                String::new()
            }
            "lock" => {
                let (id, target, mode) = (txn(word()?)?, target(word()?), mode(word()?)?);
                let wait =
                    if word().is_ok_and(|word| word == "nowait") { WaitPolicy::NoWait } else { WaitPolicy::Wait };
                let (answer, effects) = self.table.acquire(id, target, mode, wait);
                self.answer(&answer) + &Self::effects(&effects)
            }
            "collect" => match self.table.collect(Ticket(word()?.parse()?)) {
                None => "still waits\n".to_owned(),
                Some(Ok(())) => "granted\n".to_owned(),
                Some(Err(why)) => format!("refused, {}\n", refusal(&why)),
            },
            "cancel" => Self::effects(&self.table.cancel(Ticket(word()?.parse()?))),
            "lower" => {
                let (id, target, to) = (txn(word()?)?, target(word()?), word()?);
                let to = if to == "none" { None } else { Some(mode(to)?) };
                Self::effects(&self.table.set_mode(id, &target, to))
            }
            "release" => Self::effects(&self.table.release(txn(word()?)?)),
            "locks" => {
                let rows = self.table.rows();
                let row = |row: &isolde_locks::LockRow| {
                    let state = if row.held { "holds" } else { "awaits" };
                    format!("{} {state} {} {}\n", row.txn, row.mode.letter(), row.target)
                };
                rows.iter().map(row).collect()
            }
            "waits" => {
                let edge = |edge: &isolde_locks::Edge| {
                    let (kind, mode) = (edge.blocker.kind.name(), edge.blocker.mode.letter());
                    format!("{} -> {} ({kind} {mode}) on {}\n", edge.waiter, edge.blocker.txn, edge.target)
                };
                self.table.edges().iter().map(edge).collect()
            }
            other => return Err(format!("no such command: {other}").into()),
        };
        args.reject_next()?;
        Ok(text)
    }
}

/// Runs one script, and compares what happened with what it says.
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(name);
    let mut runner = TableRunner { table: Table::new(Deadlocks::TimeoutOnly) };
    goldenscript::run(&mut runner, &path).unwrap();
}

#[test]
fn grants() {
    check("grants");
}

#[test]
fn fairness_and_upgrades() {
    check("fairness");
}

#[test]
fn spans() {
    check("spans");
}

#[test]
fn partial_release_and_cancellation() {
    check("cancellation");
}

#[test]
fn deadlock_shapes() {
    check("deadlocks");
}

#[test]
fn deadlock_policies() {
    check("policies");
}
