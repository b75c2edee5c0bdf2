//! `anomaly-suite check`: histories of any database, judged.

use std::fmt::Write as _;

use isolde_history::foreign::{self, Format, Judgement, Model, Observed, Verdict};
use isolde_history::{Finding, History, ReadError, Report, check};
use isolde_types::Isolation;
use serde::Serialize;

use crate::evidence::Shown;
use crate::report::json::{self, EdgeDoc};
use crate::report::{Style, Tone, spoken, wrap};

/// A history that was read.
#[derive(Debug)]
enum Source {
    /// One of our own, whose versions are known.
    Known(History),
    /// One whose versions must be inferred.
    Observed(Observed),
}

/// What a file came to.
#[derive(Debug)]
pub struct Checked {
    file: String,
    format: Format,
    source: Source,
    /// Without a model, each transaction is owed its own level.
    owed: Owed,
}

#[derive(Debug)]
enum Owed {
    Own(Report),
    Model(Judgement),
}

/// Reads a history and judges it: by a model, or one of our own by the level of each transaction.
///
/// # Errors
/// The line, the column, what was wrong there, and what was expected.
pub fn checked(file: &str, text: &str, format: Option<Format>, model: Option<Model>) -> Result<Checked, ReadError> {
    let format = format.unwrap_or_else(|| Format::of(text));
    let source = match format {
        Format::Isolde => Source::Known(History::from_json_lines(text)?),
        _ => Source::Observed(foreign::read(text, format)?),
    };
    let owed = match (&source, model) {
        (Source::Known(history), None) => Owed::Own(check(history)),
        (Source::Known(history), Some(model)) => Owed::Model(history.judge(model)),
        (Source::Observed(observed), model) => {
            Owed::Model(observed.judge(model.unwrap_or(Model::of(Isolation::Serializable))))
        }
    };
    Ok(Checked { file: file.to_owned(), format, source, owed })
}

#[derive(Serialize)]
struct CheckDoc<'c> {
    schema: u32,
    file: &'c str,
    format: &'static str,
    model: &'static str,
    real_time: bool,
    verdict: &'static str,
    committed: usize,
    findings: Vec<FindingDoc<'c>>,
    complaints: &'c [String],
    doubts: &'c [String],
    assumptions: &'c [String],
}

#[derive(Serialize)]
struct FindingDoc<'c> {
    anomaly: &'static str,
    title: &'static str,
    forbidden: bool,
    words: &'c str,
    cycle: Vec<EdgeDoc>,
}

impl Checked {
    /// Whether what was owed was given.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match &self.owed {
            Owed::Model(judgement) => judgement.verdict,
            Owed::Own(report) if report.keeps_its_levels() => Verdict::Holds,
            Owed::Own(_) => Verdict::Violated,
        }
    }

    fn model(&self) -> Option<Model> {
        match &self.owed {
            Owed::Model(judgement) => Some(judgement.model),
            Owed::Own(_) => None,
        }
    }

    fn findings(&self) -> &[Finding] {
        match &self.owed {
            Owed::Model(judgement) => &judgement.findings,
            Owed::Own(report) => &report.findings,
        }
    }

    fn complaints(&self) -> &[String] {
        match &self.owed {
            Owed::Model(judgement) => &judgement.complaints,
            Owed::Own(report) => &report.complaints,
        }
    }

    fn doubts(&self) -> &[String] {
        match &self.owed {
            Owed::Model(judgement) => &judgement.doubts,
            Owed::Own(_) => &[],
        }
    }

    fn assumptions(&self) -> &[String] {
        match &self.owed {
            Owed::Model(judgement) => &judgement.assumptions,
            Owed::Own(_) => &[],
        }
    }

    fn committed(&self) -> usize {
        match &self.owed {
            Owed::Model(judgement) => judgement.committed,
            Owed::Own(report) => report.committed,
        }
    }

    /// Whether a finding breaks what was owed; by its own levels, what a violation says.
    fn is_forbidden(&self, finding: &Finding) -> bool {
        match &self.owed {
            Owed::Model(judgement) => judgement.model.forbids(finding.anomaly),
            Owed::Own(report) => report.violations.iter().any(|violation| violation.anomaly == finding.anomaly),
        }
    }

    /// The history as one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let doc = CheckDoc {
            schema: 1,
            file: &self.file,
            format: self.format.name(),
            model: self.model().map_or("own", |model| model.isolation.name()),
            real_time: self.model().is_none_or(|model| model.real_time == foreign::RealTime::Counts),
            verdict: word(self.verdict()),
            committed: self.committed(),
            findings: self.findings().iter().map(|finding| self.finding_doc(finding)).collect(),
            complaints: self.complaints(),
            doubts: self.doubts(),
            assumptions: self.assumptions(),
        };
        let text = serde_json::to_string(&doc);
        text.unwrap_or_else(|error| panic!("strings, numbers and lists are always JSON: {error}")) + "\n"
    }

    fn finding_doc<'c>(&self, finding: &'c Finding) -> FindingDoc<'c> {
        FindingDoc {
            anomaly: finding.anomaly.code(),
            title: finding.anomaly.title(),
            forbidden: self.is_forbidden(finding),
            words: &finding.words,
            cycle: json::cycle(&Shown::from(finding.clone())),
        }
    }

    /// The history for people.
    #[must_use]
    pub fn to_text(&self, style: Style) -> String {
        let mut text = self.head(style);
        if let Owed::Own(report) = &self.owed {
            let words = report.violations.iter().map(|violation| (violation.anomaly, &violation.words));
            for (anomaly, words) in words {
                text.push_str(&wrap(&format!("{} ({}): {words}", anomaly.code(), anomaly.title()), "  "));
            }
        }
        let (forbidden, allowed): (Vec<&Finding>, Vec<&Finding>) =
            self.findings().iter().partition(|finding| self.is_forbidden(finding));
        for finding in forbidden {
            text.push_str(&self.finding(finding, style));
        }
        lines(&mut text, "The records contradict themselves", self.complaints(), style);
        lines(&mut text, "Not known", self.doubts(), style);
        lines(&mut text, "Assumed", self.assumptions(), style);
        let allowed: Vec<String> =
            allowed.iter().map(|found| format!("{} ({})", found.anomaly.code(), found.anomaly.title())).collect();
        if !allowed.is_empty() {
            lines(&mut text, "Found as well, and allowed", &[allowed.join(", ")], style);
        }
        text
    }

    fn head(&self, style: Style) -> String {
        let (glyph, tone, words) = match self.verdict() {
            Verdict::Holds => (style.prevented(), Tone::Good, "holds"),
            Verdict::Violated => (style.possible(), Tone::Bad, "is violated"),
            Verdict::Unknown => ("?", Tone::Odd, "may or may not hold"),
        };
        let level = self.model().map_or("what each transaction was promised", |model| spoken(model.isolation));
        let without = match self.model() {
            Some(Model { real_time: foreign::RealTime::IsLeftOut, .. }) => ", real time left out,",
            _ => "",
        };
        let committed = self.committed();
        let plural = if committed == 1 { "" } else { "s" };
        let title = format!("{} {} {committed} committed transaction{plural}", self.file, style.dot());
        let verdict = style.paint(&format!("{glyph} {level}{without} {words}"), tone);
        format!("{}\n{verdict}\n", style.paint(&title, Tone::Strong))
    }

    fn finding(&self, finding: &Finding, style: Style) -> String {
        let head = format!("{} ({})", finding.anomaly.code(), finding.anomaly.title());
        let mut text = format!("\n{}\n{}", style.paint(&head, Tone::Strong), wrap(&finding.words, "  "));
        for edge in &Shown::from(finding.clone()).cycle {
            let lines = self.lines_of(&edge.from, &edge.to);
            let _ = writeln!(text, "    {} {} {}{lines}", edge.from, style.edge(edge), edge.to);
        }
        text
    }

    /// Where the transactions of an edge stand in the file.
    fn lines_of(&self, from: &str, to: &str) -> String {
        let Source::Observed(observed) = &self.source else { return String::new() };
        match (observed.line_of(from), observed.line_of(to)) {
            (Some(from), Some(to)) => format!("   (lines {from}, {to})"),
            _ => String::new(),
        }
    }
}

/// The word of a verdict in JSON.
const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Violated => "violated",
        Verdict::Unknown => "unknown",
    }
}

fn lines(text: &mut String, heading: &str, lines: &[String], style: Style) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{}", style.paint(heading, Tone::Strong));
    for line in lines.iter().take(SHOWN) {
        text.push_str(&wrap(line, "  "));
    }
    if lines.len() > SHOWN {
        let _ = writeln!(text, "  and {} more", lines.len() - SHOWN);
    }
}

/// How many lines of a kind are shown to people; JSON has them all.
const SHOWN: usize = 20;
