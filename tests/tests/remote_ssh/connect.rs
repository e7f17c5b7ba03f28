//! Connecting: host keys, logins, hosts out of reach, and the user's own configuration.

use super::*;

#[test]
fn an_unknown_host_key_is_refused_or_taken_on_request() {
    let sshd = Sshd::start();
    fs::write(sshd.known_hosts(), "").unwrap();
    refused(
        Remote::connect(&host(), &options(&sshd)),
        Kind::Refused,
        &["is not known here", "ssh fixture", "--accept-new-host-key"],
    );
    let accept = SshOptions {
        accept_new_host_key: true,
        ..options(&sshd)
    };
    Remote::connect(&host(), &accept).unwrap().close().unwrap();
    // Now it is known.
    connect(&sshd).close().unwrap();
}

#[test]
fn a_changed_host_key_is_refused_always() {
    let mut sshd = Sshd::start();
    connect(&sshd).close().unwrap();
    sshd.change_host_key();
    for accept_new_host_key in [false, true] {
        let options = SshOptions {
            accept_new_host_key,
            ..options(&sshd)
        };
        refused(
            Remote::connect(&host(), &options),
            Kind::Refused,
            &[
                "is not the one known for it",
                "SHA256:",
                "ssh-keygen -lf",
                "ssh-keygen -R",
            ],
        );
    }
}

#[test]
fn a_key_that_does_not_open_is_a_matter_of_permission() {
    let sshd = Sshd::start();
    let keys = sshd.client_config().with_file_name("authorized_keys");
    fs::write(keys, "").unwrap();
    refused(
        Remote::connect(&host(), &options(&sshd)),
        Kind::Permission,
        &["does not let us log in", "publickey", "ssh-copy-id"],
    );
}

#[test]
fn unreachable_hosts_are_told_apart() {
    let mut sshd = Sshd::start();
    let port = sshd.port();
    sshd.stop();
    refused(
        Remote::connect(&host(), &options(&sshd)),
        Kind::Remote,
        &["refuses the connection", "Connection refused"],
    );
    let none = SshOptions {
        config_file: Some("/dev/null".into()),
        connect_timeout: Duration::from_secs(1),
        ..SshOptions::default()
    };
    let nowhere = HostSpec::parse("no-such-host.invalid").unwrap();
    refused(
        Remote::connect(&nowhere, &none),
        Kind::Remote,
        &["cannot be resolved", "no-such-host.invalid"],
    );

    // Something listens there, but never says a word.
    let _mute = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let begin = Instant::now();
    let there = HostSpec::new(None, "127.0.0.1", Some(port)).unwrap();
    refused(
        Remote::connect(&there, &none),
        Kind::Remote,
        &["cannot be reached", "timed out"],
    );
    assert!(begin.elapsed() < LONG);

    let bad = sshd.client_config();
    fs::write(&bad, "NoSuchOption yes\n").unwrap();
    refused(
        Remote::connect(&host(), &options(&sshd)),
        Kind::Usage,
        &["nosuchoption"],
    );
}

#[test]
fn ciphers_are_those_asked_for() {
    let sshd = Sshd::start_with(&[], "Ciphers aes256-ctr");
    let with = |cipher| SshOptions {
        cipher,
        ..options(&sshd)
    };
    for cipher in [
        Cipher::Auto,
        Cipher::Configured,
        Cipher::List("aes128-ctr,aes256-ctr".into()),
    ] {
        let remote = Remote::connect(&host(), &with(cipher)).unwrap();
        remote.close().unwrap();
    }
    refused(
        Remote::connect(&host(), &with(Cipher::List("aes128-ctr".into()))),
        Kind::Remote,
        &["no matching cipher"],
    );
    refused(
        Remote::connect(&host(), &with(Cipher::List("none-such".into()))),
        Kind::Usage,
        &["none-such"],
    );
}

#[test]
fn a_waiting_master_does_not_count_as_idle() {
    let sshd = Sshd::start();
    let remote = connect(&sshd);
    // Twice the time after which ssh would give up an idle master.
    thread::sleep(Duration::from_secs(6));
    assert!(remote.run("true", &NO_ARGS, None).unwrap().status.success());
    remote.close().unwrap();
}

#[test]
fn a_jump_host_of_the_users_configuration_is_used() {
    let (outer, inner) = (Sshd::start(), Sshd::start());
    let config = fs::read_to_string(inner.client_config()).unwrap();
    let both = format!(
        "Host outer\n Port {}\n IdentityFile {}\n UserKnownHostsFile {}\nHost fixture\n ProxyJump outer\n{config}",
        outer.port(),
        outer.client_config().with_file_name("user_key").display(),
        outer.known_hosts().display(),
    );
    // The first value counts, and the known hosts of both are needed.
    let keys = fs::read_to_string(outer.known_hosts()).unwrap()
        + &fs::read_to_string(inner.known_hosts()).unwrap();
    fs::write(outer.known_hosts(), keys).unwrap();
    fs::write(inner.client_config(), both).unwrap();
    let remote = connect(&inner);
    echo(remote.start_agent(&spec()).unwrap(), &noise(1 << 20));
    assert!(outer.log().contains("Accepted publickey"));
    let proxies: Vec<_> = processes()
        .into_values()
        .filter(|p| p.args.contains("-W [127.0.0.1]"))
        .collect();
    let ours = processes()[&std::process::id()].group;
    assert!(!proxies.is_empty() && proxies.iter().all(|p| p.group != ours));
    remote.close().unwrap();
}
