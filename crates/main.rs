//! The binary `fieldkeep`.

fn main() -> std::process::ExitCode {
    fieldkeep_cli::main()
}
