//! What people and programs read: tables, JSON, YAML, and the one sentence of a failure.
//!
//! Everything goes through here, so that standard output holds data and nothing else.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::Format;

/// Prints `data` for programs, or `table` for people.
pub(crate) fn print<T: Serialize>(format: Format, data: &T, table: impl FnOnce() -> String) -> anyhow::Result<()> {
    match format {
        Format::Table => text(&table()),
        Format::Json => text(&format!("{}\n", serde_json::to_string_pretty(data)?)),
        Format::Yaml => text(&serde_saphyr::to_string(data)?),
    }
}

/// Prints text as it is.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// Prints one sentence beside the data, for people: standard error.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a failure.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("stillpoint: {}", sentence(error)));
}

/// What happened and the causes that add something, on one line. A message that holds the words of the last cause has
/// said what matters: what lies between is how the layers passed it on.
fn sentence(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    if !message.contains(&error.root_cause().to_string()) {
        for cause in error.chain().skip(1).map(ToString::to_string) {
            if !message.contains(&cause) {
                message = format!("{message}: {cause}");
            }
        }
    }
    let words: Vec<_> = message.split_whitespace().collect();
    printable(&words.join(" ")).into_owned()
}

/// A table without rules, as kubectl prints them.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell).into_owned()));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Fields below each other, their values aligned.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    fields.iter().map(|(name, value)| format!("{:width$}{}\n", format!("{name}:"), printable(value))).collect()
}

/// What comes from a cluster or a repository must not drive the reader's terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        text.chars()
            .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
            .collect::<String>()
            .into()
    } else {
        text.into()
    }
}

/// Bytes for people: `12.3 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A whole number for people: `12,345`.
pub(crate) fn count(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}

/// A number of things for people: `1 object`, `12,345 objects`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb"), "a\u{fffd}[31mb");
        assert!(matches!(printable("plain\ttext"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_failure_is_one_line_without_what_the_layers_between_say() {
        let refused = || io::Error::other("connection refused");
        let layers = |top: &'static str| anyhow::Error::new(refused()).context("client\nerror").context(top);
        assert_eq!(sentence(&layers("the store: connection refused")), "the store: connection refused");
        assert_eq!(sentence(&layers("the store failed")), "the store failed: client error: connection refused");
    }

    #[test]
    fn a_table_has_no_rules_and_no_trailing_blanks() {
        let text = table(["NAME", "AGE"], [["shop-1".to_owned(), "1h".to_owned()]]);
        assert_eq!(text, "NAME     AGE\nshop-1   1h\n");
    }
}
