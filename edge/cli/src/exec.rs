//! `wrenn sandbox exec`: a command in a sandbox, its output and its exit status.

use std::{
    io::{self, Read},
    process::ExitCode,
};

use edge_api::{ExecEvent, ExecRequest};

use crate::{
    args::ExecArgs,
    connection::Connection,
    failure::{EXEC_FAILED, Failure},
    output::Out,
};

/// Most bytes of standard input that are passed on: half of what a JSON body may have, as a text
/// may double when it is escaped.
const STDIN_BYTES_MAX: u64 = 512 << 10;

/// Runs the command and gives its exit status.
pub(crate) async fn run(
    connection: &Connection,
    args: ExecArgs,
    out: &Out,
) -> Result<ExitCode, Failure> {
    follow(connection, args, out).await.map_err(|failure| Failure::Exec(Box::new(failure)))
}

/// A line for a shell, or a program and its arguments. One argument with a space in it can only be
/// meant as a line: no program is called like that.
fn command(line: Option<String>, mut args: Vec<String>) -> (Option<String>, Option<Vec<String>>) {
    match line {
        Some(line) => (Some(line), None),
        None if args.len() == 1 && args[0].contains(char::is_whitespace) => (args.pop(), None),
        None => (None, Some(args)),
    }
}

async fn follow(connection: &Connection, args: ExecArgs, out: &Out) -> Result<ExitCode, Failure> {
    let stdin = if args.stdin { Some(read_stdin().await?) } else { None };
    let background = args.background;
    let id = args.id;
    let (cmd, argv) = command(args.cmd, args.args);
    let request = ExecRequest {
        args: argv,
        cmd,
        env: args.env.into_iter().collect(),
        cwd: args.cwd,
        user: args.user,
        timeout_ms: args.timeout_ms,
        stdin,
        background,
    };
    let mut events = connection.client.exec(id, &request).await?;
    while let Some(event) = events.next().await? {
        if out.is_json() {
            out.result(&event, |_| String::new())?;
        }
        match event {
            ExecEvent::Start { pid } if background => {
                out.note(&format!("running in the background as process {pid}"));
                return Ok(ExitCode::SUCCESS);
            }
            ExecEvent::Start { .. } => {}
            ExecEvent::Stdout(_) | ExecEvent::Stderr(_) if out.is_json() => {}
            ExecEvent::Stdout(chunk) => out.bytes(&bytes(chunk)?)?,
            ExecEvent::Stderr(chunk) => out.error_bytes(&bytes(chunk)?)?,
            ExecEvent::Exit { code, signal } => {
                if let Some(signal) = signal {
                    out.note(&format!("ended by signal {signal}"));
                }
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(EXEC_FAILED)));
            }
            ExecEvent::Error { code, message } => {
                return Err(Failure::Gave(format!("{code}: {message}")));
            }
        }
    }
    Err(Failure::Gave("the output ended without an exit status".to_owned()))
}

fn bytes(chunk: edge_api::Chunk) -> Result<Vec<u8>, Failure> {
    chunk.into_bytes().map_err(|e| Failure::local("read the output", e))
}

async fn read_stdin() -> Result<String, Failure> {
    let read = || {
        let mut text = String::new();
        io::stdin().lock().take(STDIN_BYTES_MAX + 1).read_to_string(&mut text).map(|_| text)
    };
    let text = tokio::task::spawn_blocking(read)
        .await
        .map_err(io::Error::other)
        .and_then(|read| read)
        .map_err(|e| Failure::local("read standard input as UTF-8", e))?;
    if text.len() as u64 > STDIN_BYTES_MAX {
        return Err(Failure::Usage(format!("standard input is over {STDIN_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_argument_with_a_space_is_a_line_for_a_shell() {
        let args = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(command(None, args(&["ls -l"])), (Some("ls -l".to_owned()), None));
        assert_eq!(command(None, args(&["ls", "-l a"])), (None, Some(args(&["ls", "-l a"]))));
        assert_eq!(command(None, args(&["ls"])), (None, Some(args(&["ls"]))));
        assert_eq!(command(Some("a".to_owned()), Vec::new()), (Some("a".to_owned()), None));
    }
}
