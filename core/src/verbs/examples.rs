//! Examples at the end of each verb's help.

use clap::Command;

/// Of verbs that all front ends have; `VM` stands for a VM of the front end.
const SHARED: [(&str, &str); 17] = [
    (
        "generations",
        "generations\ngenerations VM --to host2      # what host2 has of it",
    ),
    ("status", "status\nstatus VM --max-age 15m"),
    (
        "check",
        "check                          # by the RPOs of the jobs\ncheck --max-age 30m",
    ),
    (
        "report",
        "report --html status.html\nreport --html /var/www/html/replicas.html --rpo 15m --mode 644",
    ),
    (
        "doctor",
        "doctor                         # looks, and changes nothing\ndoctor --repair",
    ),
    (
        "prune",
        "prune VM --keep 1 --dry-run    # which would go?\nprune VM --keep 3 --keep-within 7d --to host2",
    ),
    ("pin", "pin VM 3 --to host2            # before something risky"),
    ("unpin", "unpin VM 3 --to host2"),
    (
        "failover",
        "failover VM --dry-run          # what is known, and what would be done\n\
         failover VM --fence '/usr/sbin/fence_ipmilan -a 10.9.0.1 -l admin -o off'\n\
         failover VM --i-am-sure web01  # web01 is the VM's name\n\
         failover VM --generation 11    # from an older one",
    ),
    (
        "boot-check",
        "boot-check --dry-run\nboot-check VM --wait 5s",
    ),
    (
        "test-failover",
        "test-failover VM\ntest-failover VM --generation 11 --keep-for 10m\n\
         test-failover VM --script '/root/check-web --deep'",
    ),
    (
        "verify",
        "verify VM                      # the newest generation, on its host\n\
         verify VM --to host2 --slice 5 # the next 5 %, for a timer\n\
         verify VM --to host2 --repair",
    ),
    (
        "migrate",
        "migrate VM --to host2\nmigrate VM --to host2 --live --max-downtime 3s\n\
         migrate VM --to host2 --undo   # takes back one that was cut off",
    ),
    (
        "failback",
        "failback VM --to host1\nfailback VM --to host1 --no-migrate   # only sync; the VM stays here",
    ),
    ("config check", "config check\nconfig check ./new.toml"),
    (
        "config show",
        "config show                    # what holds, and where it is said\nconfig show --defaults",
    ),
    ("job run", "job run nightly --dry-run\njob run nightly"),
];

/// The command line with examples at the end of each verb's help: the shared ones, about `vm`, and the front end's `own`, by
/// verb, of which each line is a command without the program's name.
pub fn with_examples(command: Command, vm: &str, own: &[(&str, &str)]) -> Command {
    let program = command.get_name().to_owned();
    let examples = SHARED.iter().chain(own);
    examples.fold(command, |command, (verb, lines)| {
        let mut text = String::from("Examples:");
        for line in lines.lines() {
            // The comments stay in their column, as far as the VM's name lets them.
            let line = match line.split_once("VM") {
                Some((before, after)) => format!("{before}{vm}{after}"),
                None => line.to_owned(),
            };
            text.push_str(&format!("\n  {program} {line}"));
        }
        let path: Vec<&str> = verb.split(' ').collect();
        at(command, &path, text)
    })
}

/// Puts the text at the end of a verb's help. A front end may not have the verb.
fn at(command: Command, path: &[&str], text: String) -> Command {
    match path.split_first() {
        None => command.after_help(text),
        Some((first, _)) if command.find_subcommand(first).is_none() => command,
        Some((first, rest)) => command.mut_subcommand(first, |inner| at(inner, rest, text)),
    }
}
