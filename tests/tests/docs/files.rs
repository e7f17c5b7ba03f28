//! Files that are made from the programs: they must be what the programs would make today. `make docs` makes them anew.

use rblocksync::cli::config::Program;

fn is_today(program: Program, committed: &str) {
    let today = program.defaults_file();
    let differs = committed
        .lines()
        .zip(today.lines())
        .position(|(there, here)| there != here);
    let at = differs.map_or("at the end".to_owned(), |line| {
        format!("in line {}", line + 1)
    });
    assert!(
        committed.trim_end() == today.trim_end(),
        "packaging/config/{}.toml is not what the program has built in, {at}: run `make docs`",
        program.name
    );
}

#[test]
fn the_configuration_files_are_what_is_built_in() {
    is_today(
        rblocksync::cli::CONFIGURED,
        include_str!("../../../packaging/config/rblocksync.toml"),
    );
    is_today(
        pvesync::args::CONFIGURED,
        include_str!("../../../packaging/config/pvesync.toml"),
    );
    is_today(
        virt_blocksync::args::CONFIGURED,
        include_str!("../../../packaging/config/virt-blocksync.toml"),
    );
}
