//! How does a test make a script that it can run at once?

use std::{fs, path::Path, process::Command};

/// Makes an executable script at `path`; its text stays beside it.
///
/// By another program: a child that another test starts while this process has the file open for
/// writing would have it open too, and it could not be run.
///
/// # Panics
///
/// If it can't be written.
pub fn program(path: &Path, text: &str) {
    let source = path.with_extension("text");
    fs::write(&source, text).unwrap();
    let made = Command::new("install").args([&source, path]).status();
    assert!(made.unwrap().success(), "{} is not installed", path.display());
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn script_runs_with_its_arguments() {
        let path = env::temp_dir().join(format!("wrenn-program-{}", std::process::id()));
        program(&path, "#!/bin/sh\nprintf '%s|' \"$@\"\n");
        let ran = Command::new(&path).args(["a b", "c"]).output();
        fs::remove_file(path.with_extension("text")).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(ran.unwrap().stdout, b"a b|c|");
    }
}
