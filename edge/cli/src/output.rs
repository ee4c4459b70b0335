//! What is printed where: results on standard output, the rest on standard error.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;

/// Where results, progress and errors go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    json: bool,
}

impl Out {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are JSON.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result: one line of JSON, or the text that `human` makes of it.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string(value).map_err(|e| Failure::local("write JSON", e))?
        } else {
            human(value)
        };
        self.line(&text)
    }

    /// Prints a listing: one JSON array, or a table.
    pub(crate) fn listing<T: Serialize, const N: usize>(
        self,
        items: &[T],
        columns: [&str; N],
        row: impl Fn(&T) -> [String; N],
    ) -> Result<(), Failure> {
        self.result(&items, |items| table(columns, items.iter().map(row)))
    }

    /// Prints a line of a result.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
    }

    /// Prints bytes of a result as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        write_or_leave(&mut io::stdout().lock(), bytes)
    }

    /// Prints bytes on standard error as they are.
    pub(crate) fn error_bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        write_or_leave(&mut io::stderr().lock(), bytes)
    }

    /// Says something that is no result.
    pub(crate) fn note(self, text: &str) {
        // A note that can't be shown is not worth failing for.
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// Starts a step that takes a while.
    pub(crate) fn step(self, text: impl Into<String>) -> Step {
        let text = text.into();
        let bar = io::stderr().is_terminal() && !self.json;
        let bar = bar.then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            bar.set_style(style.expect("the template is well-formed"));
            bar.set_message(text.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            self.note(&format!("{text} ..."));
        }
        Step { out: self, text, bar, since: tokio::time::Instant::now() }
    }

    /// Reports a failure and gives its exit status.
    pub(crate) fn failure(self, failure: &Failure) -> ExitCode {
        self.note(&if self.json { failure.as_json() } else { failure.report() });
        ExitCode::from(failure.exit_status())
    }
}

/// A step under way. Dropped without [`Step::done`] it leaves no line behind.
#[derive(Debug)]
pub(crate) struct Step {
    out: Out,
    text: String,
    bar: Option<ProgressBar>,
    since: tokio::time::Instant,
}

impl Step {
    /// Ends the step well.
    pub(crate) fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.out.note(&format!("{}: {:.1} s", self.text, self.since.elapsed().as_secs_f64()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn write_or_leave(to: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        // Whoever read us has seen enough, as in `wrenn ls | head -1`.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other.map_err(|e| Failure::local("write the output", e)),
    }
}

/// Columns as wide as their widest cell, two blanks between.
fn table<const N: usize>(columns: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let head = columns.map(str::to_uppercase);
    let rows: Vec<[String; N]> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "bb".to_owned()], ["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(["x", "y"], rows.into_iter()), "X    Y\na    bb\nccc  d");
    }
}
