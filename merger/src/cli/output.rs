//! What the command line shows: tables for people, JSON for scripts, colours only on a terminal.

use std::io::IsTerminal;

use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};
use serde_json::Value;

/// How the answer is shown.
#[derive(Debug, Clone, Args)]
pub(super) struct OutputOptions {
    /// Print JSON instead of a table.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Whether colours may be used: on a terminal, unless `NO_COLOR` is set.
pub(super) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
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

/// A table under construction. Without a terminal it is as wide as its contents, so that nothing is cut in a pipe.
pub(super) struct Rows {
    table: Table,
    colours: bool,
}

impl Rows {
    /// A table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        let colours = colours();
        let mut table = Table::new();
        table.load_preset(NOTHING);
        table.set_content_arrangement(match colours {
            true => ContentArrangement::Dynamic,
            false => ContentArrangement::Disabled,
        });
        let heading = |text: &&str| match colours {
            true => Cell::new(text).add_attribute(Attribute::Bold),
            false => Cell::new(text),
        };
        table.set_header(headings.iter().map(heading));
        Self { table, colours }
    }

    /// Adds a row.
    pub(super) fn add(&mut self, cells: impl IntoIterator<Item = (String, Mood)>) {
        let cell = |(text, mood): (String, Mood)| {
            let number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let mut cell = Cell::new(text);
            if number {
                cell = cell.set_alignment(CellAlignment::Right);
            }
            match (self.colours, mood) {
                (false, _) | (true, Mood::Plain) => cell,
                (true, Mood::Good) => cell.fg(Color::Green),
                (true, Mood::Warning) => cell.fg(Color::Yellow),
                (true, Mood::Bad) => cell.fg(Color::Red),
            }
        };
        self.table.add_row(cells.into_iter().map(cell));
    }

    /// The table as text, each line without spaces at its end.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for line in self.table.to_string().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A value as JSON for scripts.
pub(super) fn json(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
