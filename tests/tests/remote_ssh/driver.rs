//! What a driver process that is killed leaves behind, seen from outside of it.

use super::*;

const DRIVER: &str = "REMOTE_SSH_TEST_DRIVER_CONFIG";

/// Not a test by itself: the process that the next one kills.
#[test]
#[ignore = "is run by the test below, in a process of its own"]
fn driver() {
    let Some(config) = std::env::var_os(DRIVER) else {
        return;
    };
    let options = SshOptions {
        config_file: Some(config.into()),
        idle_exit: Duration::from_secs(2),
        ..SshOptions::default()
    };
    let remote = Remote::connect(&host(), &options).unwrap();
    let pipe = remote.start_agent(&spec()).unwrap();
    println!(
        "DIR {}",
        pipe.handle.uploaded().unwrap().parent().unwrap().display()
    );
    let mut word = String::new();
    std::io::stdin().read_line(&mut word).unwrap();
    drop(pipe);
    remote.close().unwrap();
}

#[test]
fn a_killed_driver_leaves_nothing_and_a_live_one_keeps_out_of_the_way_of_ctrl_c() {
    let sshd = Sshd::start();
    for kill in [true, false] {
        let runtime_dir = tempfile::tempdir().unwrap();
        fs::set_permissions(runtime_dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut driver = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "driver::driver", "--nocapture"])
            .env(DRIVER, sshd.client_config())
            .env("XDG_RUNTIME_DIR", runtime_dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(driver.stdout.take().unwrap()));
        let dir = lines.find_map(|line| {
            line.unwrap()
                .split_once("DIR ")
                .map(|(_, dir)| PathBuf::from(dir))
        });
        let dir = dir.unwrap();
        assert!(dir.exists());

        let master =
            |p: &tests::sshd::Process| p.args.contains(runtime_dir.path().to_str().unwrap());
        let all = processes();
        let masters: Vec<_> = all.values().filter(|p| master(p)).collect();
        assert_eq!(masters.len(), 1);
        let own = &all[&driver.id()];
        assert!(masters[0].group != own.group && masters[0].session != own.session);
        let control: Vec<_> = fs::read_dir(runtime_dir.path())
            .unwrap()
            .map(|e| e.unwrap())
            .collect();
        assert_eq!(control.len(), 1);
        assert_eq!(control[0].metadata().unwrap().mode() & 0o7777, 0o700);

        if kill {
            driver.kill().unwrap();
            driver.wait().unwrap();
        } else {
            driver.stdin.take().unwrap().write_all(b"go\n").unwrap();
            assert!(driver.wait().unwrap().success());
            assert_eq!(fs::read_dir(runtime_dir.path()).unwrap().count(), 0);
            assert!(!dir.exists());
        }
        eventually("the master is gone", || !processes().values().any(master));
        eventually("the agent is gone", || running_from(&dir) == 0);
        eventually("the upload is gone", || !dir.exists());
    }
}
