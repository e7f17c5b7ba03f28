//! A real SSH server of our own on loopback, with its own keys, for tests of everything that uses SSH.
//!
//! It runs as the current user and lets only that user in. Nothing of the user's own SSH configuration is
//! read or changed: tests pass [`Sshd::client_config`] to ssh.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const SSHD: &str = "/usr/sbin/sshd";
const START_TIME: Duration = Duration::from_secs(30);
/// Between choosing a free port and sshd's binding it somebody else may take it.
const PORT_TRIES: usize = 5;

/// The version line of the `echo_agent` program.
pub const ECHO_ID: &str = "echo_agent 1 protocol 1";

/// The name under which [`Sshd::client_config`] knows the server.
pub const HOST: &str = "fixture";

/// Runs sshd and ends it when stdin ends: when the fixture says so, or when the test process is gone.
const KEEPER: &str = r#"
"$1" -D -e -f "$2" </dev/null &
pid=$!
cat >/dev/null
kill "$pid"
wait "$pid"
"#;

/// The server. Dropping it stops it.
pub struct Sshd {
    dir: tempfile::TempDir,
    port: u16,
    running: Option<Running>,
    log: Arc<Log>,
}

struct Running {
    keeper: Child,
    stdin: ChildStdin,
}

#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Sshd {
    /// Starts one whose remote commands find [`Sshd::bin`] first on their `PATH`.
    pub fn start() -> Sshd {
        Sshd::start_with(&[], "")
    }

    /// Starts one with more environment for the remote commands (also in place of the fixture's own
    /// `PATH` and `XDG_CACHE_HOME`), and more lines for the server's configuration.
    pub fn start_with(env: &[(&str, &str)], config: &str) -> Sshd {
        let dir = tempfile::Builder::new()
            .prefix("sshd-")
            .tempdir()
            .expect("a temporary directory");
        for (name, mode) in [("bin", 0o755), ("cache", 0o700)] {
            fs::DirBuilder::new()
                .mode(mode)
                .create(dir.path().join(name))
                .expect("a directory");
        }
        let mut sshd = Sshd {
            dir,
            port: 0,
            running: None,
            log: Arc::default(),
        };
        sshd.make_key("host_key");
        sshd.make_key("user_key");
        fs::copy(sshd.path("user_key.pub"), sshd.path("authorized_keys")).expect("the user's key");
        privilege_separation_dir();
        for attempt in 1.. {
            sshd.port = free_port();
            sshd.write_config(env, config);
            match sshd.run() {
                Ok(()) => break,
                Err(log) => assert!(attempt < PORT_TRIES, "sshd does not start:\n{log}"),
            }
        }
        sshd.trust_host_key();
        sshd
    }

    /// A directory on the remote commands' PATH, first in it, for programs to be found or faked.
    pub fn bin(&self) -> PathBuf {
        self.path("bin")
    }

    /// The remote commands' `XDG_CACHE_HOME`.
    pub fn cache(&self) -> PathBuf {
        self.path("cache")
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// An ssh configuration which reaches the server by any name, with its own key and known hosts.
    pub fn client_config(&self) -> PathBuf {
        self.path("client_config")
    }

    /// The file of known host keys which the client configuration names.
    pub fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        self.log.text.lock().expect("log").clone()
    }

    /// Further keys that let in; there is no such file at first.
    pub fn more_keys(&self) -> PathBuf {
        self.path("more_keys")
    }

    /// From now on whoever logs in gets this command run, whatever was asked for. It may hold no quotes.
    pub fn force(&self, command: &str) {
        let key = fs::read_to_string(self.path("user_key.pub")).expect("the user's key");
        let line = format!("restrict,command=\"{command}\" {key}");
        fs::write(self.path("authorized_keys"), line).expect("authorized_keys");
    }

    /// Puts an executable file into [`Sshd::bin`].
    pub fn install(&self, name: &str, content: &[u8]) {
        let path = self.bin().join(name);
        fs::write(&path, content).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable");
    }

    /// Stops the server; connections that stand are cut.
    pub fn stop(&mut self) {
        let Some(Running { mut keeper, stdin }) = self.running.take() else {
            return;
        };
        kill_sshd_below(keeper.id());
        drop(stdin);
        keeper.wait().expect("the keeper of sshd");
    }

    /// Cuts all connections, as if the processes serving them had crashed. The server goes on.
    pub fn kill_sessions(&self) {
        if let Some(running) = &self.running {
            kill_sshd_below(running.keeper.id());
        }
    }

    /// Gives the server another host key, on the same port, without telling the client.
    pub fn change_host_key(&mut self) {
        self.stop();
        for file in ["host_key", "host_key.pub"] {
            fs::remove_file(self.path(file)).expect("the old host key");
        }
        self.make_key("host_key");
        if let Err(log) = self.run() {
            panic!("sshd does not start again:\n{log}");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn make_key(&self, name: &str) {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(self.path(name))
            .output()
            .expect("ssh-keygen, package openssh-client");
        assert!(made.status.success(), "{made:?}");
    }

    fn write_config(&self, env: &[(&str, &str)], more: &str) {
        let dir = self.dir.path().display();
        let mut vars: HashMap<&str, String> = HashMap::from([
            ("PATH", format!("{dir}/bin:/usr/local/bin:/usr/bin:/bin")),
            ("XDG_CACHE_HOME", format!("{dir}/cache")),
            // Keeps bash from taking this for a login and reading the user's start-up files.
            ("SHLVL", "1".to_owned()),
        ]);
        for (name, value) in env {
            vars.insert(name, (*value).to_owned());
        }
        let vars: Vec<String> = vars.iter().map(|(k, v)| format!("\"{k}={v}\"")).collect();
        let server = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {dir}/host_key\nPidFile none\n\
             AuthorizedKeysFile {dir}/authorized_keys {dir}/more_keys\nStrictModes no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUsePAM {}\nPermitUserRC no\nLogLevel VERBOSE\nSetEnv {}\n{more}\n",
            self.port,
            if pam_needed() { "yes" } else { "no" },
            vars.join(" "),
        );
        fs::write(self.path("sshd_config"), server).expect("the server's configuration");
        let client = format!(
            "Host *\n HostName 127.0.0.1\n Port {}\n IdentityFile {dir}/user_key\n IdentitiesOnly yes\n \
             IdentityAgent none\n UserKnownHostsFile {dir}/known_hosts\n GlobalKnownHostsFile /dev/null\n",
            self.port,
        );
        fs::write(self.client_config(), client).expect("the client's configuration");
    }

    fn trust_host_key(&self) {
        let key = fs::read_to_string(self.path("host_key.pub")).expect("the host key");
        fs::write(
            self.known_hosts(),
            format!("[127.0.0.1]:{} {key}", self.port),
        )
        .expect("known_hosts");
    }

    /// Starts the server and waits until it listens; its log if it does not.
    fn run(&mut self) -> Result<(), String> {
        self.log.text.lock().expect("log").clear();
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", SSHD])
            .arg(self.path("sshd_config"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell");
        let stdin = keeper.stdin.take().expect("piped");
        let stderr = keeper.stderr.take().expect("piped");
        let log = Arc::clone(&self.log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(io::Result::ok) {
                let mut text = log.text.lock().expect("log");
                text.push_str(&line);
                text.push('\n');
                log.grown.notify_all();
            }
        });
        self.running = Some(Running { keeper, stdin });
        let settled = |text: &str| {
            text.contains("Server listening")
                || text.contains("annot bind")
                || text.contains("fatal")
        };
        let text = self.log.text.lock().expect("log");
        let (text, _) = self
            .log
            .grown
            .wait_timeout_while(text, START_TIME, |text| !settled(text))
            .expect("log");
        if text.contains("Server listening") {
            return Ok(());
        }
        let said = text.clone();
        drop(text);
        self.stop();
        Err(said)
    }

    /// Waits until the server has logged `text` since its start.
    pub fn wait_for_log(&self, text: &str) {
        let log = self.log.text.lock().expect("log");
        let (log, late) = self
            .log
            .grown
            .wait_timeout_while(log, START_TIME, |log| !log.contains(text))
            .expect("log");
        assert!(
            !late.timed_out(),
            "no \"{text}\" in the log of sshd:\n{log}"
        );
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// Without PAM sshd lets nobody into an account whose password is locked, as root's often is.
fn pam_needed() -> bool {
    let shadow = fs::read_to_string("/etc/shadow").unwrap_or_default();
    rustix::process::geteuid().is_root() && shadow.lines().any(|line| line.starts_with("root:!"))
}

/// The package makes it when its service starts, which it may never have.
fn privilege_separation_dir() {
    let dir = Path::new("/run/sshd");
    if rustix::process::geteuid().is_root() && !dir.exists() {
        match fs::DirBuilder::new().mode(0o755).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => panic!("{}: {e}", dir.display()),
            _ => {}
        }
    }
}

/// Kills the sshd processes which serve connections: those with an sshd above them, below `keeper`.
/// What they have started is left alone, to see that it ends by itself.
fn kill_sshd_below(keeper: u32) {
    let all = processes();
    let is_sshd = |pid: u32| all.get(&pid).is_some_and(|p| p.name.starts_with("sshd"));
    for (&pid, process) in &all {
        let mut above = process.parent;
        while above > 1 && above != keeper {
            above = all.get(&above).map_or(0, |p| p.parent);
        }
        if above == keeper && is_sshd(pid) && is_sshd(process.parent) {
            if let Some(pid) = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// One line of the process table.
pub struct Process {
    /// Its parent.
    pub parent: u32,
    /// Short name, at most 15 characters.
    pub name: String,
    /// Process group.
    pub group: u32,
    /// Session.
    pub session: u32,
    /// Arguments, joined by spaces.
    pub args: String,
}

/// The process table.
pub fn processes() -> HashMap<u32, Process> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Gone meanwhile, or a zombie's empty argument list.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let args = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else {
            continue;
        };
        let mut numbers = stat[close + 1..].split_whitespace().skip(1);
        let mut number = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let process = Process {
            parent: number(),
            name: stat[open + 1..close].to_owned(),
            group: number(),
            session: number(),
            args: String::from_utf8_lossy(&args).replace('\0', " "),
        };
        all.insert(pid, process);
    }
    all
}

/// Looks again and again until something has come true; fails after 30 s, naming it.
pub fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + START_TIME;
    while !look() {
        assert!(Instant::now() < deadline, "still not true: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
