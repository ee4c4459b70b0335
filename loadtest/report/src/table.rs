//! One table, shown as text, Markdown or HTML.
//!
//! Cells are plain text, whoever wrote them: each way of showing them escapes for itself.

use std::fmt::Write as _;

use crate::html::escape;

/// Widest table in a terminal, columns.
pub(crate) const WIDTH: usize = 100;

/// Longest text that is never broken into lines in HTML, characters.
const LONG: usize = 28;

/// Columns and rows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    head: Vec<String>,
    /// Whether the column holds words, which stand left; numbers stand right.
    words: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns by their titles; `<` before a title means that it holds words.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|title| title.trim_start_matches('<').to_owned()).collect(),
            words: head.iter().map(|title| title.starts_with('<')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has as many cells as the table has columns.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.head.len(), "{cells:?}");
        self.rows.push(cells);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Removes columns in which every cell is empty.
    #[must_use]
    pub(crate) fn without_empty_columns(mut self) -> Self {
        for column in (0..self.head.len()).rev() {
            if self.rows.iter().all(|row| row[column].is_empty()) {
                self.head.remove(column);
                self.words.remove(column);
                self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
            }
        }
        self
    }

    /// Aligned columns, indented by two; what doesn't fit into [`WIDTH`] is cut.
    pub(crate) fn text(&self) -> String {
        let rows: Vec<Vec<String>> = std::iter::once(&self.head)
            .chain(&self.rows)
            .map(|row| row.iter().map(|cell| printable(cell)).collect())
            .collect();
        let widths = self.widths(&rows);
        let mut out = String::new();
        for row in &rows {
            let mut line = String::from(" ");
            for ((cell, width), words) in row.iter().zip(&widths).zip(&self.words) {
                let cell = cut(cell, *width);
                let _ = if *words {
                    write!(line, " {cell:<width$} ")
                } else {
                    write!(line, " {cell:>width$} ")
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// How wide each column may be: the widest ones of words give way.
    fn widths(&self, rows: &[Vec<String>]) -> Vec<usize> {
        let widest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let mut widths: Vec<usize> =
            (0..self.head.len()).map(|column| widest(column).unwrap_or(0)).collect();
        while widths.iter().map(|width| width + 2).sum::<usize>() + 1 > WIDTH {
            let wordy =
                (0..widths.len()).filter(|column| self.words[*column] && widths[*column] > 12);
            let Some(column) = wordy.max_by_key(|column| widths[*column]) else { break };
            widths[column] -= 1;
        }
        widths
    }

    /// A table of GitHub's Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let line = |out: &mut String, cells: &[String]| {
            let cells: Vec<_> = cells.iter().map(|cell| markdown_escape(cell)).collect();
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        };
        line(&mut out, &self.head);
        let rule: Vec<_> =
            self.words.iter().map(|words| if *words { "---" } else { "---:" }).collect();
        let _ = writeln!(out, "| {} |", rule.join(" | "));
        self.rows.iter().for_each(|row| line(&mut out, row));
        out
    }

    /// A table of HTML in a box of its own that scrolls.
    pub(crate) fn html(&self) -> String {
        let mut out = String::from("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
        let class = |words: bool| if words { " class=\"w\"" } else { "" };
        for (title, words) in self.head.iter().zip(&self.words) {
            let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(*words), escape(title));
        }
        out.push_str("</tr></thead><tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (cell, words) in row.iter().zip(&self.words) {
                let class = match words {
                    true if cell.chars().count() > LONG => " class=\"w long\"",
                    words => class(*words),
                };
                let _ = write!(out, "<td{class}>{}</td>", escape(cell));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div>\n");
        out
    }
}

/// Text that can't steer a terminal: no control characters, no marks that turn the direction.
pub(crate) fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// At most so many characters.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Text that is only text in Markdown, in a cell or outside.
pub(crate) fn markdown_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '|' | '`' | '*' | '[' | ']' | '~' | '$' => out.extend(['\\', c]),
            // Within a word it marks nothing, and most names have one there.
            '_' if !out.ends_with(char::is_alphanumeric) => out.push_str("\\_"),
            // Would mention somebody, or link to an issue.
            '@' => out.push_str("&#64;"),
            '#' => out.push_str("&#35;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(cell: &str) -> Table {
        let mut table = Table::new(&["<name", "count"]);
        table.row(vec![cell.to_owned(), "12".to_owned()]);
        table
    }

    #[test]
    fn numbers_stand_right_and_words_left() {
        let mut table = table("a");
        table.row(vec!["longer".to_owned(), "1".to_owned()]);
        assert_eq!(table.text(), "  name    count\n  a          12\n  longer      1\n");
    }

    #[test]
    fn what_is_too_wide_is_cut() {
        let text = table(&"x".repeat(400)).text();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("x…"), "{text}");
    }

    #[test]
    fn no_cell_breaks_out_of_its_table() {
        let bad = table("a|b\n<script>\u{1b}[2J`x` @you");
        assert_eq!(bad.markdown().lines().count(), 3);
        assert!(bad.markdown().contains("| a\\|b &lt;script&gt; \\[2J\\`x\\` &#64;you |"));
        assert!(!bad.html().contains("<script"));
        assert!(!bad.text().contains('\u{1b}'));
    }

    #[test]
    fn columns_of_nothing_are_left_out() {
        let table = table("").without_empty_columns();
        assert_eq!(table.text(), "  count\n     12\n");
    }
}
