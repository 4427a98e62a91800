//! What the command line shows: tables for people, JSON for scripts, colours only on a terminal.
//!
//! Commands make their text with pure functions that are told the [`Look`], so that tests see what a pipe sees.

use std::io::{IsTerminal, Write};

use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table,
};
use serde_json::Value;

/// How the answer is shown.
#[derive(Debug, Clone, Args)]
pub(super) struct OutputOptions {
    /// Print JSON instead of a table.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Whether colours may be used: on a terminal, unless `NO_COLOR` is set.
#[allow(
    dead_code,
    reason = "for commands that have no text of their own to test"
)]
pub(super) fn colours() -> bool {
    Look::of_stdout().colours
}

/// Where the text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// To a terminal: lines are no wider than that.
    pub terminal: bool,
    /// To somebody who wants colours.
    pub colours: bool,
}

impl Look {
    /// To a pipe or a file.
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self {
        terminal: false,
        colours: false,
    };

    /// As standard output is.
    pub(super) fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        Self {
            terminal,
            colours: terminal && wanted,
        }
    }

    /// A text in its colour.
    pub(super) fn paint(self, text: &str, mood: Mood) -> String {
        let code = match (self.colours, mood) {
            (false, _) | (true, Mood::Plain) => return text.to_owned(),
            (true, Mood::Good) => 32,
            (true, Mood::Warning) => 33,
            (true, Mood::Bad) => 31,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// How many characters a line may have.
    pub(super) fn width(self) -> Option<usize> {
        let table = Table::new();
        let width = self.terminal.then(|| table.width()).flatten();
        width.map(usize::from)
    }
}

/// How a cell is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// Nothing to see.
    Plain,
    /// All is well.
    Good,
    /// Somebody should look.
    Warning,
    /// Something is broken.
    Bad,
}

/// A cell without a colour.
pub(super) fn plain(text: impl Into<String>) -> (String, Mood) {
    (text.into(), Mood::Plain)
}

/// How wide the last column must be so that its text is broken into lines, in characters.
const LEAST_LAST: usize = 30;

/// A table under construction. It is as wide as its contents. On a terminal that is wide enough, the last column is broken into
/// lines; the others never are.
pub(super) struct Rows {
    look: Look,
    headings: Vec<String>,
    rows: Vec<Vec<(String, Mood)>>,
}

impl Rows {
    /// A table with these headings, for standard output.
    #[allow(
        dead_code,
        reason = "for commands that have no text of their own to test"
    )]
    pub(super) fn new(headings: &[&str]) -> Self {
        Self::with(headings, Look::of_stdout())
    }

    /// A table with these headings.
    pub(super) fn with(headings: &[&str], look: Look) -> Self {
        Self {
            look,
            headings: headings.iter().map(|text| (*text).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn add(&mut self, cells: impl IntoIterator<Item = (String, Mood)>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, each line without spaces at its end.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        let breaks = self
            .look
            .width()
            .is_some_and(|width| width >= self.fixed() + LEAST_LAST);
        table.set_content_arrangement(match breaks {
            true => ContentArrangement::Dynamic,
            false => ContentArrangement::Disabled,
        });
        if self.look.colours {
            table.enforce_styling();
        }
        let heading = |text: &String| match self.look.colours {
            true => Cell::new(text).add_attribute(Attribute::Bold),
            false => Cell::new(text),
        };
        table.set_header(self.headings.iter().map(heading));
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| self.cell(cell)));
        }
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if place + 1 < self.headings.len() {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            if self.holds_numbers(place) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        for line in table.to_string().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// How wide all columns but the last are together.
    fn fixed(&self) -> usize {
        let last = self.headings.len().saturating_sub(1);
        let headings = self.headings.iter().enumerate().take(last);
        let widths = headings.map(|(place, heading)| {
            let cells = self.rows.iter().filter_map(|row| row.get(place));
            let widths = cells.map(|(text, _)| text.chars().count());
            widths.max().unwrap_or(0).max(heading.chars().count()) + 2
        });
        widths.sum()
    }

    fn cell(&self, (text, mood): &(String, Mood)) -> Cell {
        let cell = Cell::new(text);
        match (self.look.colours, mood) {
            (false, _) | (true, Mood::Plain) => cell,
            (true, Mood::Good) => cell.fg(Color::DarkGreen),
            (true, Mood::Warning) => cell.fg(Color::DarkYellow),
            (true, Mood::Bad) => cell.fg(Color::DarkRed),
        }
    }

    /// Whether all cells of a column are numbers, which are read from the right.
    fn holds_numbers(&self, place: usize) -> bool {
        let is_number = |text: &str| {
            let of_digits = |byte| matches!(byte, b'0'..=b'9' | b',' | b'.' | b' ' | b'%');
            text.ends_with(|last: char| last.is_ascii_digit() || last == '%')
                && text.bytes().all(of_digits)
        };
        let mut cells = self.rows.iter().filter_map(|row| row.get(place));
        cells.all(|(text, _)| text.is_empty() || is_number(text))
    }
}

/// A value as JSON for scripts.
pub(super) fn json(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Writes to standard output; false if nobody reads it any more, as in `weft tasks | head`.
pub(super) fn write(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_at_the_right_and_no_line_ends_with_spaces() {
        let mut rows = Rows::with(&["NAME", "COUNT"], Look::PLAIN);
        rows.add([plain("a"), plain("1,234")]);
        rows.add([plain("long-name"), plain("7")]);
        assert_eq!(
            rows.text(),
            "NAME       COUNT\na          1,234\nlong-name      7\n"
        );
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        let coloured = Look {
            terminal: false,
            colours: true,
        };
        for (look, expected) in [(Look::PLAIN, false), (coloured, true)] {
            let mut rows = Rows::with(&["STATE"], look);
            rows.add([("red".to_owned(), Mood::Bad)]);
            assert_eq!(rows.text().contains('\u{1b}'), expected);
            assert_eq!(look.paint("red", Mood::Bad).contains('\u{1b}'), expected);
        }
    }
}
