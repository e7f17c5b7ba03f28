//! An agent that serves only what a policy names, behind a real sshd's forced command: what it serves, at full function, and
//! what it refuses, which changes nothing and is logged.
//!
//! This program is also a front end whose agent is restricted: see `program.rs` of the crash sweep.
#![allow(clippy::unwrap_used)]

#[path = "../crash_sweep/guest.rs"]
mod guest;
mod plain;
#[path = "../crash_sweep/program.rs"]
mod program;
mod replicas;
mod setups;
mod shapes;
mod sudo;
mod table;

use libtest_mimic::{Arguments, Trial};
use rblocksync::remote::{HostSpec, SshOptions};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tests::sshd::{Sshd, HOST};

fn main() -> ExitCode {
    if let Some(code) = tests::cli::asked_as_front_end(program::main) {
        return code;
    }
    let mut trials = Vec::new();
    for (name, test) in [
        (
            "a_sync_works_at_full_function",
            plain::full_function as fn(),
        ),
        (
            "what_is_not_named_is_neither_read_nor_written",
            plain::refused,
        ),
        ("what_may_be_added_may_not_be_overwritten", plain::append),
        ("a_link_that_is_swapped_leads_nowhere", plain::swapped),
        ("a_limit_of_the_policy_holds", plain::limited),
        ("only_an_agent_is_served", shapes::only_an_agent),
        ("no_program_is_brought_there", shapes::no_upload),
        ("two_words_are_not_the_agent", shapes::two_words),
        (
            "a_policy_that_others_can_change_serves_nothing",
            shapes::unsafe_policy,
        ),
        ("each_attack_has_its_test", table::each_attack_has_its_test),
    ] {
        trials.push(Trial::test(name, move || {
            test();
            Ok(())
        }));
    }
    let is_root = tests::cli::is_root();
    for (name, test) in [
        (
            "generations_are_added_and_never_lost",
            replicas::append_only as fn(),
        ),
        ("a_key_is_set_up_and_taken_away", setups::there_and_back),
        ("nobody_is_set_up_in_anothers_place", setups::host_key),
        (
            "sudo_runs_the_agent_for_a_user_and_nothing_else",
            sudo::only_the_agent,
        ),
    ] {
        let trial = Trial::test(name, move || {
            test();
            Ok(())
        });
        trials.push(trial.with_ignored_flag(!is_root));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A server that runs only a restricted agent, and what that has.
pub struct Restricted {
    pub(crate) sshd: Sshd,
    pub(crate) dir: tempfile::TempDir,
}

impl Restricted {
    /// Runs `program agent --restrict` with this policy, in which `{dir}` is the directory.
    pub fn new(
        program: &Path,
        policy: &str,
        env: &[(&str, &str)],
        dir: tempfile::TempDir,
    ) -> Restricted {
        let sshd = Sshd::start_with(env, "Subsystem sftp internal-sftp");
        let restricted = Restricted { sshd, dir };
        restricted.policy(policy);
        let file = restricted.path("policy.toml");
        restricted.sshd.force(&format!(
            "{} agent --restrict {}",
            program.display(),
            file.display()
        ));
        restricted
    }

    /// The plain program, restricted.
    pub fn plain(policy: &str) -> Restricted {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in", "out"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Restricted::new(tests::cli::binary(), policy, &[], dir)
    }

    /// Has another policy from now on.
    pub fn policy(&self, text: &str) {
        let dir = fs::canonicalize(self.dir.path()).unwrap();
        let dir = dir.display().to_string();
        let text = format!("log = \"{dir}/log\"\n{}", text.replace("{dir}", &dir));
        let path = self.path("policy.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The lines of its log.
    pub fn logged(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn options(&self) -> SshOptions {
        SshOptions {
            config_file: Some(self.sshd.client_config()),
            idle_exit: Duration::from_secs(2),
            ..SshOptions::default()
        }
    }
}

pub(crate) fn host() -> HostSpec {
    HostSpec::parse(HOST).unwrap()
}
