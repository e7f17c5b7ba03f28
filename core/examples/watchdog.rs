//! The guest watchdog by itself, for the tests: in the products it is a hidden subcommand.

fn main() {
    std::process::exit(rblocksync::snapshot::watchdog::main_from_args(
        std::env::args_os().skip(1),
    ));
}
