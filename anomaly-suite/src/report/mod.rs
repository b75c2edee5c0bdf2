//! Reports: the same results as tables for people, JSON for programs, Markdown for documents.

pub mod advice;
pub mod explain;
pub mod exploration;
pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod mixed;
mod narrate;
pub mod proof;
pub mod show;
pub mod story;
pub mod table;
mod timeline;

use isolde_history::schedule::{Schedule, Setting};
use isolde_types::{Isolation, Mode};

use crate::evidence::CycleEdge;

/// How text for people is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Style {
    /// Whether to colour it. Colour only repeats what glyphs and letters say.
    pub colour: Colour,
    /// The characters to draw with.
    pub glyphs: Glyphs,
}

/// Whether text is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Colour {
    /// It is not.
    #[default]
    Plain,
    /// With terminal escapes.
    Ansi,
}

/// The characters of tables and timelines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Glyphs {
    /// `✓`, `✗`, `→`.
    #[default]
    Unicode,
    /// `.`, `X`, `->`: for terminals and logs that know ASCII only.
    Ascii,
}

/// What a piece of text says, for colouring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    Good,
    Bad,
    Odd,
    Faint,
    Strong,
}

impl Style {
    pub(crate) fn paint(self, text: &str, tone: Tone) -> String {
        let code = match (self.colour, tone) {
            (Colour::Plain, _) => return text.to_owned(),
            (Colour::Ansi, Tone::Good) => "32",
            (Colour::Ansi, Tone::Bad) => "31",
            (Colour::Ansi, Tone::Odd) => "33",
            (Colour::Ansi, Tone::Faint) => "2",
            (Colour::Ansi, Tone::Strong) => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    pub(crate) fn possible(self) -> &'static str {
        self.either("✗", "X")
    }

    pub(crate) fn prevented(self) -> &'static str {
        self.either("✓", ".")
    }

    pub(crate) fn arrow(self) -> &'static str {
        self.either("→", "->")
    }

    /// An edge of a cycle: `──rw x──▶`.
    pub(crate) fn edge(self, edge: &CycleEdge) -> String {
        // An edge of real time is about no key.
        let space = if edge.key.is_empty() { "" } else { " " };
        format!("{}{}{space}{}{}", self.either("──", "--"), edge.kind, edge.key, self.either("──▶", "-->"))
    }

    pub(crate) fn dot(self) -> &'static str {
        self.either("·", "-")
    }

    pub(crate) fn either(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        match self.glyphs {
            Glyphs::Unicode => unicode,
            Glyphs::Ascii => ascii,
        }
    }
}

/// The column head of a level.
pub(crate) const fn short(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadUncommitted => "RU",
        Isolation::ReadCommitted => "RC",
        Isolation::RepeatableRead => "RR",
        Isolation::Snapshot => "SI",
        Isolation::Serializable => "SER",
    }
}

/// The name of a level in prose.
pub(crate) const fn spoken(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadUncommitted => "read uncommitted",
        Isolation::ReadCommitted => "read committed",
        Isolation::RepeatableRead => "repeatable read",
        Isolation::Snapshot => "snapshot",
        Isolation::Serializable => "serializable",
    }
}

/// A level and mode in a few letters: `SI optimistic`.
pub(crate) fn brief(setting: Setting) -> String {
    format!("{} {}", short(setting.isolation), setting.mode)
}

/// A level and mode in prose: `snapshot, optimistic`.
pub(crate) fn place(setting: Setting) -> String {
    format!("{}, {}", spoken(setting.isolation), setting.mode)
}

/// A schedule, indented, behind an empty line.
pub(crate) fn indented(schedule: &Schedule) -> String {
    schedule.to_string().lines().fold("\n".to_owned(), |text, line| text + "    " + line + "\n")
}

/// The modes among some settings, in order.
pub(crate) fn modes(settings: &[Setting]) -> Vec<Mode> {
    let mut modes: Vec<Mode> = settings.iter().map(|setting| setting.mode).collect();
    modes.dedup();
    modes
}

/// The width that all text for people keeps to.
pub(crate) const WIDTH: usize = 100;

/// Breaks a paragraph into lines of at most `WIDTH` columns, each behind `indent`.
pub(crate) fn wrap(text: &str, indent: &str) -> String {
    let (mut lines, mut line) = (String::new(), indent.to_owned());
    for word in text.split_whitespace() {
        let width = line.chars().count() + 1 + word.chars().count();
        if width > WIDTH && line.trim() != "" {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = indent.to_owned();
        }
        if !line.trim().is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + line.trim_end() + "\n"
}

/// Pads text to a number of columns (the standard padding counts characters too, but not through
/// colour escapes: pad first, paint after).
pub(crate) fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(missing))
}
