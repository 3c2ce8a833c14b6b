//! Asking whoever sits at the terminal before something is done.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use fieldkeep_console::{Code, Failure};

/// Shows lines and asks; a program is told to say `--yes` instead.
///
/// # Errors
/// When there is nobody to ask, or the answer is not yes: nothing was changed then.
pub(crate) fn confirm(
    what: &str,
    lines: &[String],
    question: &str,
    otherwise: &str,
) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let message = format!("{what} asks first, and there is nobody to ask");
        return Err(Failure::new(Code::Usage, message, otherwise));
    }
    let mut terminal = std::io::stderr().lock();
    for line in lines {
        let _ = writeln!(terminal, "{line}");
    }
    let _ = write!(terminal, "{question} [y/N] ");
    let _ = terminal.flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "yes") {
        return Ok(());
    }
    let remedy = format!("answer y to {}", question.trim_end_matches('?'));
    Err(Failure::new(Code::Interrupted, "nothing was changed", remedy))
}
