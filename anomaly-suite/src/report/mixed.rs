//! The contract of mixed levels: as a table for people, as JSON, and as the document docs/mixed-levels.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use isolde_history::schedule::{Schedule, Setting};
use isolde_types::{Anomaly, Isolation, Mode};
use serde::Serialize;

use super::{Style, Tone, brief, place, short, wrap};
use crate::mixed::{Cell, Contract, OF_TWO, PROGRAMS, Witness, permitted};

/// The command that writes the document anew.
pub const REGENERATE: &str =
    "cargo run --release -p anomaly-suite -- mixed --format markdown --out docs/mixed-levels.md";

/// For each side, what it sees beside whom.
#[must_use]
pub fn table(contract: &Contract, style: Style) -> String {
    let mut text = wrap(&summary(contract), "");
    for side in sides(contract) {
        let _ = writeln!(text, "\n{}", style.paint(&place(side), Tone::Strong));
        for (seen, beside) in groups(contract, side) {
            text.push_str(&wrap(&format!("beside {}: {}", besides(contract, &beside), titles(&seen)), "  "));
        }
    }
    for cell in &contract.cells {
        for (what, words) in &cell.faults {
            let title = format!("FAULT: {} beside {}: {what}", brief(cell.side), brief(cell.beside));
            let _ = writeln!(text, "\n{}\n{words}", style.paint(&title, Tone::Bad));
        }
    }
    text
}

/// What was run, and what came of it.
fn summary(contract: &Contract) -> String {
    let broken = contract.cells.iter().filter(|cell| !cell.faults.is_empty()).count();
    let came = match broken {
        0 => "each transaction got its own level's promise, whatever was beside it".to_owned(),
        _ => format!("a promise is BROKEN in {broken} of them"),
    };
    let sample = match contract.sampled.0 {
        0 => String::new(),
        pairs => format!(" and {pairs} of a sample"),
    };
    format!(
        "{} ordered pairs of levels and modes, {} pairs of programs{sample}, {} schedules: {came}.",
        contract.cells.len(),
        contract.schedules.len(),
        contract.explored()
    )
}

fn sides(contract: &Contract) -> Vec<Setting> {
    let mut sides: Vec<Setting> = contract.cells.iter().map(|cell| cell.side).collect();
    sides.dedup();
    sides
}

/// What a side sees, each with those beside whom it sees just that; in the order of the table.
fn groups(contract: &Contract, side: Setting) -> Vec<(Vec<Anomaly>, Vec<Setting>)> {
    let mut groups: Vec<(Vec<Anomaly>, Vec<Setting>)> = Vec::new();
    for cell in contract.cells.iter().filter(|cell| cell.side == side) {
        let seen: Vec<Anomaly> = cell.seen.keys().copied().collect();
        match groups.iter_mut().find(|(known, _)| *known == seen) {
            Some((_, beside)) => beside.push(cell.beside),
            None => groups.push((seen, vec![cell.beside])),
        }
    }
    groups
}

fn besides(contract: &Contract, settings: &[Setting]) -> String {
    if settings.len() == sides(contract).len() {
        return "any".to_owned();
    }
    let names: Vec<String> = settings.iter().map(|setting| column(*setting)).collect();
    names.join(", ")
}

/// `SI O`.
fn column(setting: Setting) -> String {
    format!("{} {}", short(setting.isolation), &setting.mode.name()[..1].to_uppercase())
}

fn titles(anomalies: &[Anomaly]) -> String {
    let titles: Vec<&str> = anomalies.iter().map(|anomaly| anomaly.title()).collect();
    if titles.is_empty() { "nothing".to_owned() } else { titles.join(", ") }
}

// --- the document ----------------------------------------------------------------------------------

const HEAD: &str = "\
# Mixed levels: what each side sees

Transactions at different levels and in different modes run in one database at the same time. The contract:
each transaction gets its own level's promise, whatever the others run at. This document is that contract,
pair by pair, as every interleaving of small programs on the real engine shows it. A test holds it current.
";

const MEANING: &str = "
## What \"sees\" means

The history of a run is a graph of its committed transactions:

- T1 ──ww──► T2: T2 wrote the next version of a key after T1's;
- T1 ──wr──► T2: T2 read a version that T1 wrote;
- T1 ──rw──► T2: T1 read a version of a key, and T2 wrote the next one (rw on an item); or T1 scanned a span,
  and T2 put a key into it or took one out of it (rw on a predicate).

An anomaly is a cycle; its class depends on the edges. Each edge *obliges* somebody: wr and rw the reader, ww
both. It *counts* if the level of the one that it obliges does not let it be part of a cycle: ww always, wr
from read committed up, rw on items at repeatable read and serializable, rw on predicates at serializable
(Adya's mixing-correct graph). At snapshot rw does not count, and two rules stand in for it: all reads are of
one state, and no key that the transaction wrote was written by anybody else since that state.

A side **sees** an anomaly if in some interleaving it commits, and

- a cycle of that class takes an edge that obliges this side and does not count: its level let it read so; or
- all edges of a cycle of that class through this side count: a promise is broken, and both see it; or
- it read a write that was undone (G1a) or that its writer corrected (G1b), a version of the other and then
  an older one of another key that the other also wrote (OTV), or not its own write; or
- both read one version of a key and both wrote the key, and this side wrote last (P4).

What is forbidden to a side is judged apart from this, by the checker's rules for mixed histories and by what
the level and mode promise (`Isolation::guarantees`).

So of a write skew of a serializable transaction with one at read committed it is the latter that sees it: an
order, the serializable one first, explains all that the serializable one read.

What it does not mean:

- A level guards what a transaction *sees*, not what others *write*. If a transaction at read committed breaks
  an invariant by a write skew, the broken state is there, and a serializable one that comes later reads it.
- A lost update is seen by the one that overwrites. The one whose update is lost may be at any level: its level
  cannot stop somebody later from overwriting unread. So every transaction that updates the key has to ask for
  more, not one of them.
- A transaction that is aborted sees nothing here; what it had read is void.
";

const LEGEND: &str = "
RU read uncommitted, RC read committed, RR repeatable read, SI snapshot, SER serializable; P pessimistic,
O optimistic. A row is the side that sees, a column what it runs beside. A dot: it sees nothing.
";

const WHY: &str = "
Beside optimistic transactions nothing is dirty: their writes are private until they commit. And a snapshot
is older than anything that its transaction writes, so no information flows in a circle with it.
";

/// The document.
#[must_use]
pub fn markdown(contract: &Contract) -> String {
    let mut text = format!("{HEAD}\nWritten by `{REGENERATE}`; do not edit.\n");
    let _ = write!(text, "\n**{}**\n\n## The table\n\n", summary(contract));
    matrix(&mut text, contract);
    text.push_str(LEGEND);
    letters(&mut text);
    text.push_str("\nIn words:\n\n| side | beside | sees |\n| --- | --- | --- |\n");
    for side in sides(contract) {
        for (seen, beside) in groups(contract, side) {
            let _ = writeln!(text, "| {} | {} | {} |", place(side), besides(contract, &beside), titles(&seen));
        }
    }
    text.push_str(WHY);
    text.push_str(&sharpness(contract));
    faults(&mut text, contract);
    text.push_str(MEANING);
    examples(&mut text, contract);
    explored(&mut text, contract);
    text
}

fn matrix(text: &mut String, contract: &Contract) {
    let sides = sides(contract);
    let columns: Vec<String> = sides.iter().map(|side| column(*side)).collect();
    let _ = writeln!(text, "| | {} |\n| --- |{}", columns.join(" | "), " --- |".repeat(columns.len()));
    for side in &sides {
        let cells: Vec<String> = contract.cells.iter().filter(|cell| cell.side == *side).map(letters_of).collect();
        let _ = writeln!(text, "| **{}** | {} |", column(*side), cells.join(" | "));
    }
}

fn letters_of(cell: &Cell) -> String {
    let letters: String = cell.seen.keys().copied().map(letter).collect();
    let letters = if letters.is_empty() { "·".to_owned() } else { letters };
    if cell.faults.is_empty() { letters } else { format!("{letters} BROKEN") }
}

const fn letter(anomaly: Anomaly) -> char {
    match anomaly {
        Anomaly::DirtyWrite => 'd',
        Anomaly::AbortedRead => 'a',
        Anomaly::IntermediateRead => 'i',
        Anomaly::CircularFlow => 'c',
        Anomaly::TransactionVanishes => 'v',
        Anomaly::ReadSkewItem => 'r',
        Anomaly::ReadSkew => 'p',
        Anomaly::LostUpdate => 'l',
        Anomaly::LongFork => 'f',
        Anomaly::WriteSkew => 'w',
        Anomaly::PredicateWriteSkew => 'q',
        Anomaly::Realtime => 't',
        Anomaly::Internal => 'o',
    }
}

/// What the letters stand for, and who lets it be.
fn letters(text: &mut String) {
    text.push_str("\n| letter | anomaly | | not forbidden at |\n| --- | --- | --- | --- |\n");
    for anomaly in OF_TWO {
        let lets = Setting::all().filter(|setting| permitted(*setting).any(|one| one == anomaly)).map(column);
        let lets: Vec<String> = lets.collect();
        let lets = if lets.is_empty() { "none".to_owned() } else { lets.join(", ") };
        let _ = writeln!(text, "| {} | {} | {} | {lets} |", letter(anomaly), anomaly.code(), anomaly.title());
    }
}

/// Whether all that a level lets be is also seen.
fn sharpness(contract: &Contract) -> String {
    let mut text = String::new();
    for side in sides(contract) {
        let seen = contract.seen_by(side);
        let missing: Vec<Anomaly> = permitted(side).filter(|anomaly| !seen.contains(anomaly)).collect();
        if !missing.is_empty() {
            let _ = writeln!(text, "- {}: {} is not forbidden, and not seen.", place(side), titles(&missing));
        }
    }
    match text.is_empty() {
        true => "\nThe table is sharp: whatever a level and mode do not forbid to two transactions, they see beside some other.\n".to_owned(),
        false => format!("\nThe table is not sharp:\n\n{text}"),
    }
}

fn faults(text: &mut String, contract: &Contract) {
    for cell in &contract.cells {
        for (what, words) in &cell.faults {
            let _ = writeln!(text, "\nBROKEN, {} beside {}: {what}\n", place(cell.side), place(cell.beside));
            text.push_str(&block(words));
        }
    }
}

fn block(words: &str) -> String {
    format!("```text\n{}\n```\n", words.trim_end())
}

/// Each anomaly beside a serializable transaction: it does not help to be the only careful one.
fn examples(text: &mut String, contract: &Contract) {
    let strict = Setting { isolation: Isolation::Serializable, mode: Mode::Pessimistic };
    text.push_str("\n## One schedule for each, beside a serializable transaction\n");
    for anomaly in OF_TWO {
        let mut cells = contract.cells.iter().filter(|cell| cell.beside == strict);
        // The strongest of those that see it says most.
        let cell = cells.rfind(|cell| cell.seen.contains_key(&anomaly));
        if let Some((cell, witness)) = cell.and_then(|cell| Some((cell, cell.seen.get(&anomaly)?))) {
            let (title, code) = (anomaly.title(), anomaly.code());
            let _ = writeln!(text, "\n{code}, {title}: {} sees it, at {}.\n", witness.txn, place(cell.side));
            text.push_str(&block(&witness.schedule.to_string()));
            let _ = write!(text, "\n{}", wrap(&witness.words, ""));
        }
    }
}

fn explored(text: &mut String, contract: &Contract) {
    let head = format!(
        "Two transactions at a time, each side in each part, every interleaving of their steps: {} schedules. \
         (`begin` is a step of its own where it takes a snapshot; of schedules that differ only in the order of \
         steps that nobody can tell apart, one is run.) Without control, these programs show every anomaly of two.",
        contract.schedules.iter().sum::<u64>()
    );
    let rest = "This is a proof for these programs, and no more than evidence for others. `anomaly-suite mixed --sample N \
                --seed S` explores N of the small programs of `anomaly-suite prove` beside them, at all pairs of levels; \
                the test holds that a few of them add nothing to the table. `prove` explores all of them at one level, \
                `fuzz` runs more transactions at mixed levels at random.";
    let _ = write!(text, "\n## What was explored\n\n{}\n| programs | schedules |\n| --- | --- |\n", wrap(&head, ""));
    for ((name, program), schedules) in PROGRAMS.iter().zip(&contract.schedules) {
        let lines: Vec<&str> = program.lines().collect();
        let _ = writeln!(text, "| {name}: `{}` | {schedules} |", lines.join("; "));
    }
    if contract.sampled.0 > 0 {
        let _ = writeln!(text, "| {} of the sample | {} |", contract.sampled.0, contract.sampled.1);
    }
    let _ = write!(text, "\n{}", wrap(rest, ""));
}

// --- JSON ------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct Document<'c> {
    schema: u32,
    kept: bool,
    schedules: u64,
    sampled: usize,
    programs: Vec<ProgramsDoc>,
    cells: Vec<CellDoc<'c>>,
}

#[derive(Serialize)]
struct ProgramsDoc {
    name: &'static str,
    schedule: Vec<&'static str>,
    schedules: u64,
}

#[derive(Serialize)]
struct CellDoc<'c> {
    level: &'static str,
    mode: &'static str,
    beside: SettingDoc,
    not_forbidden: Vec<&'static str>,
    seen: BTreeMap<&'static str, WitnessDoc<'c>>,
    faults: &'c BTreeMap<String, String>,
}

#[derive(Serialize)]
struct SettingDoc {
    level: &'static str,
    mode: &'static str,
}

#[derive(Serialize)]
struct WitnessDoc<'c> {
    programs: &'static str,
    txn: &'c str,
    words: &'c str,
    schedule: Vec<String>,
}

/// The same as one JSON document.
#[must_use]
pub fn json(contract: &Contract) -> String {
    let programs = PROGRAMS.iter().zip(&contract.schedules);
    let programs = programs.map(|((name, text), schedules)| ProgramsDoc {
        name,
        schedule: text.lines().collect(),
        schedules: *schedules,
    });
    let document = Document {
        schema: 1,
        kept: contract.is_kept(),
        schedules: contract.explored(),
        sampled: contract.sampled.0,
        programs: programs.collect(),
        cells: contract.cells.iter().map(cell_doc).collect(),
    };
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn cell_doc(cell: &Cell) -> CellDoc<'_> {
    let lines = |schedule: &Schedule| schedule.steps.iter().map(|step| schedule.line(step)).collect();
    let witness = |one: &'_ Witness| -> Vec<String> { lines(&one.schedule) };
    let seen = cell.seen.iter().map(|(anomaly, one)| {
        let doc = WitnessDoc { programs: one.programs, txn: &one.txn, words: &one.words, schedule: witness(one) };
        (anomaly.code(), doc)
    });
    CellDoc {
        level: cell.side.isolation.name(),
        mode: cell.side.mode.name(),
        beside: SettingDoc { level: cell.beside.isolation.name(), mode: cell.beside.mode.name() },
        not_forbidden: permitted(cell.side).map(Anomaly::code).collect(),
        seen: seen.collect(),
        faults: &cell.faults,
    }
}
