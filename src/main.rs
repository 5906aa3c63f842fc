//! Arguments in, exit code out.

fn main() -> std::process::ExitCode {
    imgbuild::cli::main()
}
