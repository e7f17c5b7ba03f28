//! `setup --user`: a user who is not root, for whom sudo runs the agent, as one policy says, and nothing else.
//!
//! The user is a real one, and so are sudo and its configuration: both are put back as they were.

use crate::guest::Guest;
use crate::program::{DISKS, HOSTNAME, PROGRAM, TARGET};
use crate::setups::setup;
use rblocksync::replica::{list_generations, Layout};
use std::fs;
use std::os::unix::fs::{chown, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tests::cli::{sparse_image, Mount, MIB};
use tests::sshd::{Sshd, HOST};

/// What may come through to the agent. The first two are let through, the rest is sudo's and the shell's own.
const ENVIRONMENT: [&str; 18] = [
    "SSH_ORIGINAL_COMMAND",
    "SSH_CONNECTION",
    "PATH",
    "TERM",
    "HOME",
    "MAIL",
    "SHELL",
    "LOGNAME",
    "USER",
    "SUDO_COMMAND",
    "SUDO_USER",
    "SUDO_UID",
    "SUDO_GID",
    "SUDO_HOME",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
];
const SECURE_PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// A user of this host. Dropping it removes it.
struct User {
    name: String,
    home: PathBuf,
}

impl User {
    fn new(dir: &Path) -> User {
        let user = User {
            name: format!("rbs-test-{}", std::process::id()),
            home: dir.join("user"),
        };
        let home = user.home.to_str().unwrap();
        // As docs/security.md says, but for the home. Without PAM sshd lets nobody in whose password is locked.
        ok(Command::new("useradd").args([
            "--system",
            "--create-home",
            "--home-dir",
            home,
            "--shell",
            "/bin/sh",
            "--password",
            "*",
            &user.name,
        ]));
        user
    }

    fn uid(&self) -> u32 {
        let id = ok(Command::new("id").args(["-u", &self.name]));
        id.trim().parse().unwrap()
    }

    /// Runs something as this user, with this environment.
    fn run(&self, env: &[(&str, &str)], words: &[&str]) -> Output {
        let env = env.iter().map(|(name, value)| format!("{name}={value}"));
        Command::new("runuser")
            .args(["-u", &self.name, "--", "env", "-i"])
            .args(env)
            .args(words)
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let removed = Command::new("userdel").args(["-f", &self.name]).output();
        drop(removed);
    }
}

/// What setup leaves in sudo's configuration, if a test fails.
struct Sudoers(PathBuf);

impl Drop for Sudoers {
    fn drop(&mut self) {
        for file in [self.0.clone(), self.0.with_extension("new")] {
            drop(fs::remove_file(file));
        }
    }
}

fn ok(command: &mut Command) -> String {
    let done = command.stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "{command:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn said(done: &Output) -> String {
    let text = [done.stdout.as_slice(), &done.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

struct World {
    sshd: Sshd,
    // Before the directory that its home is in.
    user: User,
    _mount: Mount,
    _guest: Guest,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let dir = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/var/tmp")
            .unwrap();
        let user = User::new(dir.path());
        let mount = Mount::xfs(dir.path(), 512 * MIB);
        for name in ["source", "target"] {
            fs::create_dir(mount.dir().join(name)).unwrap();
        }
        for (seed, disk) in (1..).zip(DISKS) {
            let path = mount.dir().join(format!("source/{disk}.raw"));
            sparse_image(path, 3 * MIB, &[(0, 1)], seed);
        }
        // Whatever a client sends is taken, as if sshd were configured so.
        let config = format!(
            "Match User {}\n AuthorizedKeysFile .ssh/authorized_keys\n AcceptEnv *\n",
            user.name
        );
        let policies = dir.path().join("policies").display().to_string();
        let sshd = Sshd::start_with(&[("RBLOCKSYNC_POLICY_DIR", &policies)], &config);
        // Of the environment that the program is started with nothing is taken, and all is noted.
        let script = format!(
            "#!/bin/sh\n{{ echo \"# $*\"; env; }} >>'{dir}/calls'\n\
             export RBLOCKSYNC_STATE_DIR='{dir}/target-state' {TARGET}='{dir}/mounted/target'\n\
             exec '{me}' \"$@\"\n",
            dir = dir.path().display(),
            me = std::env::current_exe().unwrap().display(),
        );
        sshd.install(PROGRAM, script.as_bytes());
        World {
            _guest: Guest::start(dir.path()),
            _mount: mount,
            sshd,
            user,
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn setup(&self, options: &[&str]) -> Output {
        setup(&self.sshd, &self.path("source-state"), options)
    }

    fn keyed(&self) -> String {
        format!("{}@{HOST}", self.user.name)
    }

    /// Asks sshd for something with the key that was made.
    fn ssh(&self, options: &[&str], command: &str) -> Output {
        let keys = Layout::new(self.path("source-state")).keys();
        let key = fs::read_dir(keys).unwrap().map(|e| e.unwrap().path());
        let key = key.into_iter().find(|k| k.extension().is_none()).unwrap();
        let config = self.path("ssh-config");
        let text = fs::read_to_string(self.sshd.client_config()).unwrap();
        let lines = text.lines().filter(|line| !line.contains("IdentityFile"));
        fs::write(&config, lines.collect::<Vec<_>>().join("\n")).unwrap();
        Command::new("ssh")
            .arg("-F")
            .arg(config)
            .arg("-i")
            .arg(key)
            .args(["-o", "BatchMode=yes"])
            .args(options)
            .args([&self.keyed(), "--", command])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The calls of the program since the last look: the arguments, and the environment.
    fn calls(&self) -> Vec<(String, Vec<String>)> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        drop(fs::remove_file(self.path("calls")));
        let calls = text
            .split_inclusive('\n')
            .fold(Vec::new(), |mut calls, line| {
                let line = line.trim_end().to_owned();
                match line.strip_prefix("# ") {
                    Some(args) => calls.push((args.to_owned(), Vec::new())),
                    None => calls
                        .last_mut()
                        .into_iter()
                        .for_each(|(_, env): &mut (_, Vec<_>)| env.push(line.clone())),
                }
                calls
            });
        calls
    }

    fn sync(&self) {
        let run = Command::new(std::env::current_exe().unwrap())
            .arg("sync")
            .arg(self.path("mounted/source"))
            .arg(self.path("monitor"))
            .arg(self.sshd.client_config())
            .env("RBLOCKSYNC_STATE_DIR", self.path("source-state"))
            .env("TMPDIR", self.dir.path())
            .env(HOSTNAME, self.keyed())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", said(&run));
    }
}

pub fn only_the_agent() {
    let world = World::new();
    refused_before_anything(&world);
    let with = ["--user", world.user.name.as_str()];

    let first = world.setup(&with);
    let printed = String::from_utf8(first.stdout.clone()).unwrap();
    let text = said(&first);
    assert!(!first.status.success(), "{text}");
    for words in ["sudo: a password is required", "run the commands above"] {
        assert!(text.contains(words), "{text}");
    }
    // What root is told to run is run, word for word.
    let from = printed.find("cat > ").unwrap();
    let until = printed.rfind("visudo").unwrap();
    let until = until + printed[until..].find('\n').unwrap();
    let commands = &printed[from..until];
    let file = commands.split_whitespace().last().unwrap();
    let sudoers = Sudoers(PathBuf::from(file));
    assert!(!sudoers.0.exists());
    ok(Command::new("sh").args(["-c", commands]));
    ok(Command::new("visudo").arg("-c"));
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o777,
        0o440
    );

    let again = world.setup(&with);
    assert!(again.status.success(), "{}", said(&again));
    assert!(said(&again).contains("there answers the key"));
    let policies = fs::read_dir(world.path("policies")).unwrap();
    let policy = policies.map(|e| e.unwrap().path()).next().unwrap();

    world.sync();
    world.sync();
    let there = Layout::new(world.path("target-state"));
    let generations = list_generations(&there, None).unwrap().remove(0).1;
    assert_eq!(generations.len(), 2);

    let program = world.sshd.bin().join(PROGRAM);
    let program = program.to_str().unwrap();
    let policy = policy.to_str().unwrap();
    refused_by_sudo(&world, program, policy);
    cut_elsewhere(&world, program, policy);
    environment(&world, program, policy);
    by_the_key(&world, policy);
    changed_policy(&world, policy);

    let removed = world.setup(&["--user", &world.user.name, "--remove"]);
    assert!(removed.status.success(), "{}", said(&removed));
    assert!(!sudoers.0.exists() && !Path::new(policy).exists());
    let keys = fs::read_to_string(world.user.home.join(".ssh/authorized_keys")).unwrap();
    assert_eq!(keys, "");
    let run = world
        .user
        .run(&[], &["sudo", "-n", program, "agent", "--restrict", policy]);
    assert!(!run.status.success());
}

/// Nothing is made for a user for whom it could not work.
fn refused_before_anything(world: &World) {
    for (user, words) in [
        ("ALL", "small letter"),
        ("root", "leave --user out"),
        ("rbs-nobody-here", "there is no user"),
        ("nobody", "has no shell"),
    ] {
        let run = world.setup(&["--user", user]);
        assert!(
            !run.status.success() && said(&run).contains(words),
            "{}",
            said(&run)
        );
    }
    assert!(!world.path("policies").exists());
    assert!(!world.user.home.join(".ssh").exists());
    let keys = fs::read_dir(Layout::new(world.path("source-state")).keys());
    assert_eq!(keys.map_or(0, Iterator::count), 0, "of keys");
}

/// The user asks sudo for more than that one command.
fn refused_by_sudo(world: &World, program: &str, policy: &str) {
    world.calls();
    let other = world.user.home.join("policy.toml");
    fs::write(&other, "access = \"read-write\"\nvolumes = [\"/\"]").unwrap();
    let other = other.to_str().unwrap();
    let asked = [
        ("SSH_ORIGINAL_COMMAND", "foldervm agent --id"),
        ("RBLOCKSYNC_STATE_DIR", "/tmp/x"),
    ];
    let agent = [program, "agent", "--restrict", policy];
    let with = |before: &[&'static str], after: &[&'static str]| {
        let words = ["sudo", "-n"].into_iter().chain(before.iter().copied());
        let words = words.chain(agent).chain(after.iter().copied());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let plain = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    for words in [
        with(&[], &["--id"]),
        with(&[], &["--lanes", "x"]),
        with(&[], &[""]),
        with(&["-u", "nobody"], &[]),
        with(&["-g", "daemon"], &[]),
        with(&["-E"], &[]),
        with(&["--preserve-env=RBLOCKSYNC_STATE_DIR"], &[]),
        with(&["LD_PRELOAD=/tmp/x.so"], &[]),
        with(&["RBLOCKSYNC_STATE_DIR=/tmp/x"], &[]),
        with(&["PATH=/tmp"], &[]),
        with(&["-D", "/tmp"], &[]),
        with(&["-R", "/tmp"], &[]),
        plain(&["sudo", "-n", program]),
        plain(&["sudo", "-n", program, "agent"]),
        plain(&["sudo", "-n", program, "agent", "--restrict"]),
        plain(&["sudo", "-n", program, "agent", "--restrict", other]),
        plain(&[
            "sudo",
            "-n",
            program,
            "agent",
            "--restrict",
            &format!("{policy}/../x"),
        ]),
        plain(&["sudo", "-n", program, "setup", "elsewhere"]),
        plain(&["sudo", "-n", "id"]),
        plain(&["sudo", "-n", "-s"]),
        plain(&["sudo", "-n", "-i"]),
        plain(&["sudo", "-n", "-e", policy]),
        plain(&["sudo", "-n", "sh", "-c", "id"]),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let run = world.user.run(&asked, &words);
        assert!(!run.status.success(), "{words:?}: {}", said(&run));
        assert!(run.stdout.is_empty(), "{words:?}: {}", said(&run));
        assert!(world.calls().is_empty(), "{words:?} ran the program");
    }
}

/// sudo compares all arguments as one text: cut elsewhere they get through. The agent does not know them.
fn cut_elsewhere(world: &World, program: &str, policy: &str) {
    let asked = [("SSH_ORIGINAL_COMMAND", "foldervm agent --id")];
    let option = format!("--restrict {policy}");
    let run = world
        .user
        .run(&asked, &["sudo", "-n", program, "agent", &option]);
    assert!(
        !run.status.success() && run.stdout.is_empty(),
        "{}",
        said(&run)
    );
    assert!(said(&run).contains("agent takes"), "{}", said(&run));
    world.calls();
}

/// It was the agent that ran, under its policy, and nothing came through to it.
#[track_caller]
fn is_the_agent(world: &World, run: &Output, policy: &str) {
    let answer = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && answer.ends_with("\nrestricted\n"),
        "{}",
        said(run)
    );
    is_clean(world, policy);
}

/// What the program was started with, in calls that were all let through.
#[track_caller]
fn is_clean(world: &World, policy: &str) {
    let calls = world.calls();
    assert!(!calls.is_empty());
    for (args, env) in calls {
        assert_eq!(args, format!("agent --restrict {policy}"));
        for line in &env {
            let name = line.split('=').next().unwrap();
            assert!(ENVIRONMENT.contains(&name), "{name} came through: {env:?}");
        }
        assert!(env.iter().any(|line| line == SECURE_PATH), "{env:?}");
    }
}

/// The one command that is allowed, with an environment that is meant to lead it elsewhere.
fn environment(world: &World, program: &str, policy: &str) {
    let hostile = [
        ("LD_LIBRARY_PATH", "/tmp"),
        ("LD_PRELOAD", "/tmp/x.so"),
        ("PATH", "/tmp/x:/usr/bin:/bin"),
        ("BASH_ENV", "/tmp/x"),
        ("ENV", "/tmp/x"),
        ("IFS", "/"),
        ("PERL5LIB", "/tmp"),
        ("TZ", ":/etc/shadow"),
        ("LANG", "C"),
        ("HOME", "/tmp"),
        ("SUDO_USER", "root"),
        ("SUDO_ASKPASS", "/tmp/x"),
        ("SSH_AUTH_SOCK", "/tmp/x"),
        ("RBLOCKSYNC_STATE_DIR", "/tmp/x"),
        ("RBLOCKSYNC_POLICY_DIR", "/tmp/x"),
        ("RBLOCKSYNC_CRASH", "x"),
        ("SSH_ORIGINAL_COMMAND", "foldervm agent --id"),
    ];
    let words = [
        "/usr/bin/sudo",
        "-n",
        program,
        "agent",
        "--restrict",
        policy,
    ];
    let run = world.user.run(&hostile, &words);
    is_the_agent(world, &run, policy);
    for asked in [
        "",
        "sh",
        "foldervm agent --restrict /tmp/x",
        "foldervm setup x",
    ] {
        let run = world.user.run(&[("SSH_ORIGINAL_COMMAND", asked)], &words);
        assert!(
            !run.status.success() && said(&run).contains("this key"),
            "{}",
            said(&run)
        );
    }
    world.calls();
}

/// The same by sshd, which takes whatever the client sends.
fn by_the_key(world: &World, policy: &str) {
    let send = |name: &str, value: &str| format!("SetEnv={name}={value}");
    let options = [
        send("LD_PRELOAD", "/tmp/x.so"),
        send("RBLOCKSYNC_STATE_DIR", "/tmp/x"),
        send("SUDO_ASKPASS", "/tmp/x"),
    ];
    for set in &options {
        let run = world.ssh(&["-o", set], "foldervm agent --id");
        is_the_agent(world, &run, policy);
    }
    for command in [
        "id",
        "sudo -n id",
        "foldervm agent --restrict /tmp/x",
        "foldervm agent --id; id",
    ] {
        let run = world.ssh(&[], command);
        assert!(
            !run.status.success() && said(&run).contains("this key"),
            "{}",
            said(&run)
        );
        assert!(!said(&run).contains("uid="), "{}", said(&run));
    }
    world.calls();
}

/// A policy that the user could change is none.
fn changed_policy(world: &World, policy: &str) {
    let file = Path::new(policy);
    let dir = file.parent().unwrap();
    let user = world.user.uid();
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let served = || world.ssh(&[], "foldervm agent --id").status.success();
    assert!(served());
    chown(file, Some(user), None).unwrap();
    assert!(!served(), "the user's own policy");
    chown(file, Some(0), None).unwrap();
    mode(file, 0o666);
    assert!(!served(), "a policy that all may write");
    mode(file, 0o600);
    chown(dir, Some(user), None).unwrap();
    assert!(!served(), "a policy in a directory of the user's");
    mode(dir, 0o1755);
    assert!(!served(), "a sticky one");
    chown(dir, Some(0), None).unwrap();
    mode(dir, 0o755);
    assert!(served());
}
