//! The `callpost` program.

fn main() -> std::process::ExitCode {
    callpost::cli::main()
}
