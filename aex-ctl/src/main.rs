//! `aex-ctl`: the same program as `aex`.

fn main() -> std::process::ExitCode {
    aex_ctl::main()
}
