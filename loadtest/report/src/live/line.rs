//! One line of a terminal, which never gets wider than that.

use crate::table::printable;

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Faint,
    Strong,
    Good,
    Busy,
    Bad,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Faint => "2",
            Self::Strong => "1",
            Self::Good => "32",
            Self::Busy => "33",
            Self::Bad => "31",
        }
    }
}

/// A line that is being put together.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    left: usize,
}

impl Line {
    pub(super) fn new(width: usize) -> Self {
        Self { text: String::new(), left: width }
    }

    /// Columns that are left.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Adds as much of a text as fits.
    #[must_use]
    pub(super) fn put(mut self, ink: Ink, text: &str) -> Self {
        // Each character has to be one column wide, or the cursor would not find back.
        let narrow = |c: char| if c.is_ascii() || "█░·–µ…".contains(c) { c } else { '?' };
        let text: String = printable(text).chars().map(narrow).take(self.left).collect();
        self.left -= text.chars().count();
        if ink == Ink::Plain || text.is_empty() {
            self.text += &text;
        } else {
            self.text += &format!("\x1b[{}m{text}\x1b[0m", ink.code());
        }
        self
    }

    /// Adds a label, which is faint and takes at least ten columns.
    #[must_use]
    pub(super) fn label(self, text: &str) -> Self {
        self.put(Ink::Faint, &format!("{text:<10}"))
    }

    /// Adds a bar of which a share is full.
    #[must_use]
    pub(super) fn bar(self, ink: Ink, share: f64, width: usize) -> Self {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let full = crate::figure::index((share * width as f64).round());
        self.put(ink, &"█".repeat(full)).put(Ink::Faint, &"░".repeat(width - full))
    }

    pub(super) fn end(self) -> String {
        self.text
    }
}
