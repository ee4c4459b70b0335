//! Writes the page of a made-up run to a file, to look at it, and shows the rest in the terminal.

use std::{env, fs, io};

use loadtest_report::{compare, html, live, markdown};

#[allow(dead_code)] // the tests use the rest
#[path = "../src/sample.rs"]
mod sample;

fn main() -> io::Result<()> {
    let mut report = sample::report(1, 1.0);
    if env::args().any(|arg| arg == "--hostile") {
        report = sample::hostile();
    }
    if let Some(file) = env::args().nth(1) {
        fs::write(file, html::page(&report))?;
    }
    println!("{}", live::summary(&report));
    println!("{}", markdown::tables(&report, markdown::Detail::Full));
    println!("{}", compare::compare_anyway(&report, &sample::report(2, 1.1)).text());
    Ok(())
}
