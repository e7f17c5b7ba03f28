//! Examples at the end of each verb's help.

use clap::Command;

/// Of verbs that all front ends have; `VM` stands for a VM of the front end.
const SHARED: [(&str, &str); 21] = [
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
        "setup",
        "setup host2                    # a key that may add generations, and replace them\n\
         setup host2 --access append    # what is sealed stays\n\
         setup host2 --roles            # VMs may move as well\n\
         setup host2 --remove",
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
    ("job check", "job check\njob check nightly"),
    ("schedule list", "schedule list"),
    ("schedule remove", "schedule remove web"),
];

/// The command line with examples at the end of each verb's help: the shared ones, about `vm`, and the front end's `own`, by
/// verb, of which each line is a command without the program's name.
pub fn with_examples(command: Command, vm: &str, own: &[(&str, &str)]) -> Command {
    let program = command.get_name().to_owned();
    let text = |verb: &str| {
        let (_, lines) = own.iter().chain(&SHARED).find(|(of, _)| *of == verb)?;
        let mut text = String::from("Examples:");
        for line in lines.lines() {
            text.push_str(&format!("\n  {program} {}", line.replacen("VM", vm, 1)));
        }
        Some(text)
    };
    each(command, "", &text)
}

/// Puts the text that there is for a verb at the end of its help. All verbs are gone through in their order, because clap moves
/// one that is changed behind the others.
fn each(command: Command, path: &str, text: &dyn Fn(&str) -> Option<String>) -> Command {
    let inner = command.get_subcommands();
    let names: Vec<String> = inner.map(|c| c.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| {
        let verb = format!("{path} {name}").trim_start().to_owned();
        command.mut_subcommand(name, |inner| match text(&verb) {
            Some(text) => inner.after_help(text),
            None => each(inner, &verb, text),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_get_their_examples_and_keep_their_order() {
        let verb = |name: &'static str| Command::new(name);
        let command = Command::new("x")
            .subcommands(["vm", "status", "odd", "check"].map(verb))
            .subcommand(verb("config").subcommand(verb("show")));
        let done = with_examples(command, "7", &[("vm", "vm VM --to h")]);
        let names: Vec<&str> = done.get_subcommands().map(Command::get_name).collect();
        assert_eq!(names, ["vm", "status", "odd", "check", "config"]);
        let help = |command: &Command, name: &str| {
            let found = command
                .find_subcommand(name)
                .and_then(Command::get_after_help);
            found.map(ToString::to_string)
        };
        assert_eq!(
            help(&done, "vm").as_deref(),
            Some("Examples:\n  x vm 7 --to h")
        );
        assert_eq!(help(&done, "odd"), None);
        let config = done.find_subcommand("config");
        let shown = config.and_then(|config| help(config, "show"));
        assert!(shown.is_some_and(|text| text.contains("x config show --defaults")));
    }
}
