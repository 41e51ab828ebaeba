//! `aex`: the same program as `aex-ctl`.

fn main() -> std::process::ExitCode {
    aex_ctl::main()
}
