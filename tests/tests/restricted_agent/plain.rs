//! Files that a policy names, and files that it does not.

use crate::Restricted;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;
use tests::cli::{checksum, on, scribble, sparse_image, Rblocksync, Untouched, MIB};
use tests::sshd::HOST;

const BOTH: &str = "access = \"read-write\"\nvolumes = [\"{dir}/in/\"]";

pub fn full_function() {
    let there = Restricted::plain(BOTH);
    let src = sparse_image(there.path("src"), 32 * MIB, &[(0, 5), (20, 3)], 1);
    let dst = there.path("in/dst.img");
    let push = |options: &str| {
        let run = Rblocksync::sync(&src, on(HOST, &dst)).over(&there.sshd);
        run.with(options).with("--json --verify").run().summary()
    };
    push("--truncate --streams 4");
    assert_eq!(checksum(&src), checksum(&dst));
    scribble(&src, 21 * MIB, 100_000, 2);
    let again = push("--streams 2");
    assert_eq!(checksum(&src), checksum(&dst));
    assert!(again.bytes("target.written") < MIB, "only what changed");
    let back = there.path("back");
    Rblocksync::sync(on(HOST, &dst), &back)
        .over(&there.sshd)
        .with("--truncate --streams 3")
        .run()
        .ok();
    assert_eq!(checksum(&src), checksum(&back));
    assert!(there.logged().is_empty(), "{:?}", there.logged());
    let brought = fs::read_dir(there.sshd.cache()).unwrap().count();
    assert_eq!(brought, 0, "no program was brought there");
}

pub fn refused() {
    let there = Restricted::plain(BOTH);
    let image = |name: &str, seed| sparse_image(there.path(name), MIB, &[(0, 1)], seed);
    let src = image("src", 1);
    let inside = image("in/a.img", 2);
    let outside = image("out/b.img", 3);
    symlink(&outside, there.path("in/link.img")).unwrap();
    symlink(there.path("out"), there.path("in/dir")).unwrap();
    let untouched = Untouched::note([
        there.path("out"),
        outside.clone(),
        there.path("in"),
        inside.clone(),
    ]);
    let mut count = 0;
    let mut refuse = |policy: &str, from: std::ffi::OsString, to: std::ffi::OsString| {
        there.policy(policy);
        Rblocksync::sync(from, to)
            .over(&there.sshd)
            .with("--truncate")
            .run()
            .refused(3, &["policy"]);
        untouched.check();
        count += 1;
        let logged = there.logged();
        assert_eq!(logged.len(), count, "{logged:?}");
        assert!(logged[count - 1].contains("127.0.0.1"), "{logged:?}");
    };
    let got = || there.path("got").into_os_string();
    for name in [
        "out/b.img",
        "out/new.img",
        "in/link.img",
        "in/dir/b.img",
        "in/dir/new.img",
        "in/../out/b.img",
        "in",
        "policy.toml",
    ] {
        refuse(BOTH, src.clone().into(), on(HOST, there.path(name)));
    }
    for name in ["out/b.img", "in/link.img", "in/../in/a.img", "out/missing"] {
        refuse(BOTH, on(HOST, there.path(name)), got());
    }
    refuse(BOTH, on(HOST, "/etc/shadow"), got());
    refuse(BOTH, src.clone().into(), on(HOST, "in/a.img"));
    let read = BOTH.replace("read-write", "read");
    refuse(&read, src.clone().into(), on(HOST, &inside));
    refuse(
        &read,
        src.clone().into(),
        on(HOST, there.path("in/new.img")),
    );
    let write = BOTH.replace("read-write", "write");
    refuse(&write, on(HOST, &inside), got());
    refuse("access = \"read-write\"", on(HOST, &inside), got());
    assert!(!there.path("got").exists());
}

pub fn append() {
    let there = Restricted::plain(&BOTH.replace("read-write", "append"));
    let src = sparse_image(there.path("src"), 4 * MIB, &[(0, 2)], 1);
    let dst = there.path("in/new.img");
    let push = |dst: &std::path::Path| {
        let run = Rblocksync::sync(&src, on(HOST, dst)).over(&there.sshd);
        run.with("--truncate").run()
    };
    push(&dst).ok();
    assert_eq!(checksum(&src), checksum(&dst));
    let untouched = Untouched::note([&dst]);
    scribble(&src, 0, 5000, 2);
    push(&dst).refused(3, &["policy"]);
    untouched.check();
    push(&there.path("in/newer.img")).ok();
}

pub fn swapped() {
    let there = Restricted::plain(BOTH);
    let src = sparse_image(there.path("src"), MIB, &[(0, 1)], 1);
    let inside = sparse_image(there.path("in/kept.img"), MIB, &[(0, 1)], 2);
    let outside = sparse_image(there.path("out/b.img"), MIB, &[(0, 1)], 3);
    let untouched = Untouched::note([&outside]);
    let dst = there.path("in/a.img");
    symlink(&inside, &dst).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whoever owns the directory turns the link to and fro, as fast as can be.
            let next = there.path("in/next");
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for to in [&outside, &inside] {
                    symlink(to, &next).unwrap();
                    fs::rename(&next, &dst).unwrap();
                }
            }
        });
        for _ in 0..10 {
            let run = Rblocksync::sync(&src, on(HOST, &dst)).over(&there.sshd);
            // It goes where it may, or is refused, or the file is not what it was opened as.
            let run = run.run();
            assert!([0, 1, 3].contains(&run.code), "{run:#?}");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    untouched.check();
    // A link by itself is nothing bad: it was the race that was refused.
    drop(fs::remove_file(&dst));
    symlink(&inside, &dst).unwrap();
    let run = Rblocksync::sync(&src, on(HOST, &dst)).over(&there.sshd);
    run.run().ok();
    assert_eq!(checksum(&src), checksum(&inside));
}

pub fn limited() {
    let there = Restricted::plain(&format!("{BOTH}\nbandwidth = \"2M\""));
    let src = sparse_image(there.path("src"), 6 * MIB, &[(0, 6)], 1);
    let dst = there.path("in/dst.img");
    let push = Rblocksync::sync(&src, on(HOST, &dst)).over(&there.sshd);
    let push = push.with("--truncate --compress off").run().ok();
    assert!(push.took > Duration::from_secs(2), "{:?}", push.took);
    let pull = Rblocksync::sync(on(HOST, &dst), there.path("back")).over(&there.sshd);
    let pull = pull.with("--truncate --compress off").run().ok();
    assert!(pull.took > Duration::from_secs(2), "{:?}", pull.took);
    assert_eq!(checksum(&src), checksum(there.path("back")));
}
