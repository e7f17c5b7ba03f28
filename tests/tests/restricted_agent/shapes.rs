//! What else may be asked of sshd with such a key.

use crate::{host, Restricted};
use rblocksync::error::Kind;
use rblocksync::remote::{AgentSpec, Remote};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use tests::cli::{on, sparse_image, Rblocksync, MIB};
use tests::sshd::HOST;

const NOTHING: &str = "access = \"read\"";

pub fn only_an_agent() {
    let there = Restricted::plain(NOTHING);
    let marker = there.path("marker");
    let touch = format!("touch {}", marker.display());
    let mut commands: Vec<String> = [";", "&&", "||", "|", "&", "\n", "\r\n"]
        .map(|joint| format!("rblocksync agent --id{joint}{touch}"))
        .to_vec();
    commands.extend([
        String::new(),
        touch.clone(),
        format!("sh -c '{touch}'"),
        format!("rblocksync agent $({touch})"),
        format!("rblocksync agent `{touch}`"),
        format!("rblocksync agent > {}", marker.display()),
        format!("rblocksync agent --restrict {}", marker.display()),
        format!("rblocksync agent --pour {}", marker.display()),
        "rblocksync agent --pour /run/libvirt/libvirt-sock".to_owned(),
        "rblocksync agent --join 0 1 2".to_owned(),
        "rblocksync watchdog --help".to_owned(),
        "rblocksync a b".to_owned(),
        "pvesync agent".to_owned(),
        "uname -sm".to_owned(),
        format!("scp -t {}", marker.display()),
        "/usr/lib/openssh/sftp-server".to_owned(),
    ]);
    let config = there.sshd.client_config();
    let ssh = |more: &[&str]| {
        Command::new("ssh")
            .arg("-F")
            .arg(&config)
            .args(["-o", "BatchMode=yes"])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    for (count, command) in (1..).zip(&commands) {
        let run = match command.as_str() {
            "" => ssh(&[HOST]),
            command => ssh(&[HOST, "--", command]),
        };
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(
            !run.status.success() && run.stdout.is_empty(),
            "{command:?}: {run:?}"
        );
        assert!(
            said.contains("this key") || said.contains("policy"),
            "{command:?}: {said}"
        );
        assert!(!marker.exists(), "{command:?}");
        assert_eq!(
            there.logged().len(),
            count,
            "{command:?}: {:?}",
            there.logged()
        );
    }
    let subsystem = ssh(&["-s", HOST, "sftp"]);
    assert!(!subsystem.status.success(), "{subsystem:?}");
    let forwarded = ssh(&["-W", &format!("127.0.0.1:{}", there.sshd.port()), HOST]);
    assert!(!forwarded.status.success(), "{forwarded:?}");
    let back = [
        "-o",
        "ExitOnForwardFailure=yes",
        "-R",
        "127.0.0.1:0:127.0.0.1:9",
    ];
    let asked = [HOST, "rblocksync", "agent", "--id"];
    let forwarded = ssh(&[&back[..], &asked].concat());
    assert!(!forwarded.status.success(), "{forwarded:?}");
    let id = ssh(&asked);
    let said = String::from_utf8_lossy(&id.stdout);
    assert!(
        id.status.success() && said.ends_with("\nrestricted\n"),
        "{id:?}"
    );
}

/// What sudo takes for the agent with its policy: a source and a destination.
pub fn two_words() {
    let dir = tempfile::tempdir().unwrap();
    let name = "agent --restrict";
    let policy = dir.path().join("policy.toml");
    for (path, text) in [(dir.path().join(name), "mine"), (policy.clone(), NOTHING)] {
        fs::write(path, text).unwrap();
    }
    let run = Command::new(tests::cli::binary())
        .arg(name)
        .arg(&policy)
        .args(["--ignore-size", "--truncate"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(
        !run.status.success() && said.contains("agent takes"),
        "{run:?}"
    );
    assert_eq!(fs::read_to_string(&policy).unwrap(), NOTHING);
}

pub fn no_upload() {
    let there = Restricted::plain(NOTHING);
    let session = Remote::connect(&host(), &there.options()).unwrap();
    for (program, id) in [
        ("rblocksync", "rblocksync 99.0.0 protocol 1"),
        ("pvesync", "pvesync 99.0.0 protocol 1"),
    ] {
        let error = session
            .start_agent(&AgentSpec::new(program, id))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("serves only") && text.contains("same version"),
            "{text}"
        );
    }
    session.close().unwrap();
    assert_eq!(fs::read_dir(there.sshd.cache()).unwrap().count(), 0);
    let logged = there.logged();
    assert!(
        !logged.iter().any(|line| line.contains("uname")),
        "not even tried: {logged:?}"
    );
}

pub fn unsafe_policy() {
    let there = Restricted::plain("access = \"read-write\"\nvolumes = [\"{dir}/in/\"]");
    let src = sparse_image(there.path("src"), MIB, &[(0, 1)], 1);
    let push = || {
        let dst = on(HOST, there.path("in/a.img"));
        Rblocksync::sync(&src, dst)
            .over(&there.sshd)
            .with("--truncate")
            .run()
    };
    let policy = there.path("policy.toml");
    let mode = |mode| fs::set_permissions(&policy, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o666);
    let run = push();
    assert_ne!(run.code, 0);
    assert!(!there.path("in/a.img").exists(), "{run:#?}");
    mode(0o600);
    fs::write(&policy, "access = \"read-write\"\nvolume = [\"/\"]").unwrap();
    assert_ne!(push().code, 0);
    fs::remove_file(&policy).unwrap();
    assert_ne!(push().code, 0);
    assert_eq!(fs::read_dir(there.path("in")).unwrap().count(), 0);
}
