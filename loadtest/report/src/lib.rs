//! Shows what was measured: terminal, HTML, Markdown, comparisons.
//!
//! ```text
//! Progress  --> live::Live            while it runs
//! RunReport --> live::summary         the end, in a terminal
//!           --> html::page            one file with plots
//!           --> markdown::tables      into a document
//! 2 of them --> compare::compare      what changed, and how sure that is
//! ```
//!
//! # Invariants
//!
//! - Values to text only: no file, no clock, no socket. Chance has a fixed seed.
//! - Whatever came from a target is hostile: it is escaped for the place it is shown at.
//! - What was not measured is left out; no figure is ever made up, infinite or "not a number".

pub mod compare;
mod figure;
pub mod html;
pub mod live;
pub mod markdown;
#[cfg(test)]
mod sample;
mod section;
mod table;
mod words;
