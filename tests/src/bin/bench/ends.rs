//! Both ends on this machine: a real sshd, the near way to it over loopback and the far one through the
//! relay, and every program on the target's side started by the recorder.

use crate::record;
use crate::relay::Relay;
use crate::Outcome;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::sshd::{processes, Sshd};

/// The round trip of the far way.
pub const ROUND_TRIP: Duration = Duration::from_millis(20);

/// A name that ssh knows the target by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Near,
    Far,
}

impl Way {
    pub fn host(self) -> &'static str {
        match self {
            Way::Near => "near",
            Way::Far => "far",
        }
    }
}

/// What tools start on the target, looked up where a login shell would.
const ON_TARGET: [&str; 5] = ["rsync", "tar", "dd", "qemu-nbd", "python3"];

/// Both ends. Dropping them stops the server.
pub struct Ends {
    pub relay: Relay,
    /// The program under test.
    pub rblocksync: PathBuf,
    /// Comes first in the PATH of tools: `ssh` and `scp` with the bench's configuration.
    pub programs: PathBuf,
    /// Where both sides write down what they took.
    pub records: PathBuf,
    /// This program, to record.
    pub recorder: PathBuf,
    listener: u32,
    _sshd: Sshd,
}

impl Ends {
    /// Starts the server and the relay; keeps its files in `dir`.
    pub fn start(dir: &Path, rblocksync: PathBuf) -> Outcome<Ends> {
        // scp wants it.
        let sshd = Sshd::start_with(&[], "Subsystem sftp internal-sftp");
        let relay = Relay::start(sshd.port(), ROUND_TRIP)?;
        let ends = Ends {
            relay,
            rblocksync,
            programs: dir.join("programs"),
            records: dir.join("records"),
            recorder: std::env::current_exe()?,
            listener: listener(&sshd).ok_or("the sshd that was started is not there")?,
            _sshd: sshd,
        };
        let sshd = &ends._sshd;
        let config = dir.join("ssh_config");
        // The first value found for an option counts.
        let far = format!(
            "Host far\n Port {}\n HostKeyAlias [127.0.0.1]:{}\n",
            ends.relay.port(),
            sshd.port()
        );
        fs::write(&config, far + &fs::read_to_string(sshd.client_config())?)?;
        fs::create_dir(&ends.programs)?;
        for name in ["ssh", "scp"] {
            let program = installed(name).ok_or("no ssh: install openssh-client")?;
            let script = format!(
                "#!/bin/sh\nexec {} -F {} \"$@\"\n",
                program.display(),
                config.display()
            );
            let path = ends.programs.join(name);
            fs::write(&path, script)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        sshd.install("rblocksync", ends.recorded(&ends.rblocksync).as_bytes());
        for name in ON_TARGET {
            if let Some(program) = installed(name) {
                sshd.install(name, ends.recorded(&program).as_bytes());
            }
        }
        Ok(ends)
    }

    fn recorded(&self, program: &Path) -> String {
        format!(
            "#!/bin/sh\nexec {} {} {} target {} \"$@\"\n",
            self.recorder.display(),
            record::OPTION,
            self.records.display(),
            program.display(),
        )
    }

    /// Waits until the server has no connection, so that all is over and counted there too.
    pub fn wait_until_idle(&self) -> Outcome<()> {
        let began = Instant::now();
        while processes().values().any(|p| p.parent == self.listener) {
            if began.elapsed() > Duration::from_secs(20) {
                return Err("a connection to the target stays open".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// CPU seconds of the server and of all that it has started and that has ended.
    pub fn target_cpu_s(&self) -> Outcome<f64> {
        Ok(tests::processor::seconds_of(self.listener)?)
    }
}

/// The sshd process of the fixture: the one which was given the fixture's configuration.
fn listener(sshd: &Sshd) -> Option<u32> {
    let config = sshd.client_config().with_file_name("sshd_config");
    let config = config.to_string_lossy().into_owned();
    let is_it = |name: &str, args: &str| name.starts_with("sshd") && args.contains(config.as_str());
    let found = processes()
        .into_iter()
        .filter(|(_, p)| is_it(&p.name, &p.args));
    found.map(|(pid, _)| pid).min()
}

/// Where a program is on the path.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}
