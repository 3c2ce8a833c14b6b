//! `completions` and `man`: what shells and readers of manuals are given, made of the commands themselves.

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::args::Args;
use crate::output::Output;
use fieldkeep_console::{Code, Failure, Trouble};

pub(crate) fn completions(
    shell: clap_complete::Shell,
    output: &mut Output,
) -> Result<ExitCode, Trouble> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "fieldkeep", &mut text);
    output.writer().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(command: Option<&str>, output: &mut Output) -> Result<ExitCode, Trouble> {
    let mut all = Args::command();
    all.build();
    let page = match command {
        None => all,
        Some(name) => {
            let known: Vec<String> =
                all.get_subcommands().map(|known| known.get_name().to_owned()).collect();
            let unknown = || {
                let text = format!("there is no command `{name}`");
                Failure::new(Code::Usage, text, format!("there are {}", known.join(", ")))
            };
            let wanted = all.find_subcommand(name).ok_or_else(unknown)?.clone();
            wanted.display_name(format!("fieldkeep-{name}"))
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    output.writer().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}
