//! `pvesync report`: the page as a file, and as a browser shows it.

#![allow(clippy::unwrap_used)]

mod browser;
mod pictures;
mod state;

use browser::Browser;
use rblocksync::replica::{write_json, Checked, Layout};
use serde_json::Value;
use state::{fill, LONG, MARKUP};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::{tempdir, TempDir};
use tests::cli::pvesync;

struct Host {
    dir: TempDir,
}

impl Host {
    /// With replicas.
    fn new() -> Host {
        let host = Host::empty();
        fill(&host.layout(), host.dir.path());
        host
    }

    fn empty() -> Host {
        let dir = tempdir().unwrap();
        std::fs::create_dir(dir.path().join("www")).unwrap();
        Host { dir }
    }

    fn layout(&self) -> Layout {
        Layout::new(self.dir.path().join("state"))
    }

    fn page(&self) -> PathBuf {
        self.dir.path().join("www/page.html")
    }

    fn report(&self, args: &[&str]) -> Output {
        Command::new(pvesync())
            .args(["report", "--html"])
            .arg(self.page())
            .args(args)
            .env("RBLOCKSYNC_STATE_DIR", self.layout().root())
            .env("RBLOCKSYNC_ROOT", self.dir.path().join("root"))
            .output()
            .unwrap()
    }

    /// The page, which must have been written.
    fn written(&self, args: &[&str]) -> String {
        let out = self.report(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{}: {said}", out.status);
        std::fs::read_to_string(self.page()).unwrap()
    }
}

/// Whatever a browser would fetch begins with one of these.
fn assert_self_contained(html: &str) {
    for word in [
        "http://", "https://", "url(", "@import", "<base", "srcset", "<iframe", "<object",
    ] {
        let known = MARKUP.contains(word);
        let foreign = html.matches(word).count();
        // As text of a name it does no harm: the browser test proves that it is text.
        assert!(known || foreign == 0, "{word}");
    }
    for attribute in [" src=\"", " href=\""] {
        for rest in html.split(attribute).skip(1) {
            assert!(
                rest.starts_with('#') || rest.starts_with("data:,\""),
                "{}",
                &rest[..40]
            );
        }
    }
    assert_eq!(html.matches("<script").count(), 1);
    assert_eq!(html.matches("<img").count(), 0);
}

#[test]
fn the_page_is_one_file_that_tells_how_it_stands() {
    let host = Host::new();
    let out = host.report(&["--rpo", "15m", "--mode", "644", "--json"]);
    assert!(out.status.success(), "{out:?}");
    let event: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(event["event"], "report");
    assert_eq!(event["replications"], 5);
    // Two, and one more where this host's own disk is nearly full.
    assert!(event["problems"].as_u64().unwrap() >= 2, "{event}");
    let html = std::fs::read_to_string(host.page()).unwrap();
    assert_eq!(event["bytes"], html.len());
    assert_self_contained(&html);
    for text in [
        "2 of 5 replications need you.",
        "The newest generation is 16 h 40 min old; the limit is 15 min.",
        "rbs24",
        "replica-of-101",
        "web01",
        LONG.get(..60).unwrap(),
        "pvesync vm 203 --to",
        "docs/runbooks/target-host-dead.md",
        "docs/runbooks/source-host-dead.md",
        "replica, epoch 1",
        "Not replicated:",
        "pinned",
        "verified 20",
        "booted 20",
        "rbs24 as it was sealed",
        // What the other host has told of what it keeps.
        "rbs5 as it was sealed",
        "scsi0, of 96 equal parts from its beginning to its end: 58 have data, 8 changed in the last sync",
    ] {
        assert!(html.contains(text), "{text}");
    }
    let mode = std::fs::metadata(host.page()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    // Nothing is left beside it, and a second one takes its place.
    host.written(&[]);
    let mode = std::fs::metadata(host.page()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let beside = host.page().parent().unwrap().read_dir().unwrap().count();
    assert_eq!(beside, 1);
}

#[test]
fn each_vm_is_judged_by_its_own_job() {
    let host = Host::new();
    let jobs = host.dir.path().join("root/etc/pvesync/jobs.d");
    std::fs::create_dir_all(&jobs).unwrap();
    let node = host.dir.path().join("root/etc/pve/nodes/pve1/qemu-server");
    std::fs::create_dir_all(&node).unwrap();
    let local = host.dir.path().join("root/etc/pve/local");
    std::os::unix::fs::symlink("nodes/pve1", local).unwrap();
    // The newest generations of 201 and 202 are a minute old; 204 was never synced.
    for (name, vm, rpo) in [
        ("quick", 201, "30s"),
        ("slow", 202, "1h"),
        ("new", 204, "1h"),
    ] {
        let text = format!("vms = \"{vm}\"\nto = \"host2\"\nrpo = \"{rpo}\"\n");
        std::fs::write(jobs.join(format!("{name}.toml")), text).unwrap();
    }
    let html = host.written(&[]);
    for text in [
        "The newest generation is 1 min old; the limit is 30 s.",
        "host2 has no generation of it yet.",
        "3 of 6 replications need you.",
        "as old as the rpo of its job says",
    ] {
        assert!(html.contains(text), "{text}");
    }
    // What is said for all counts for all.
    assert!(host
        .written(&["--rpo", "30d"])
        .contains("1 of 5 replications needs you."));
}

#[test]
fn damage_that_was_found_is_told() {
    let host = Host::new();
    let layout = host.layout();
    let pairs = rblocksync::replica::target_pairs(&layout).unwrap();
    let pair = pairs.iter().find(|pair| pair.vm == "101").unwrap();
    let found = Checked {
        at: jiff::Timestamp::now(),
        whole: None,
        damaged: vec!["scsi0".into()],
    };
    write_json(&layout.checked(pair.pair, 23), &found).unwrap();
    // A newer one was read since, and is as it was sealed.
    assert!(!host.written(&[]).contains("is damaged"));
    std::fs::remove_file(layout.checked(pair.pair, 24)).unwrap();
    let html = host.written(&[]);
    for text in [
        "By the last verification, generation 23 is damaged: scsi0.",
        "found damaged 20",
        "pvesync verify 101 --to",
        "docs/runbooks/replica-damaged.md",
    ] {
        assert!(html.contains(text), "{text}");
    }
}

/// Other verbs tell it as well.
#[test]
fn a_verification_is_told_with_its_generation() {
    let host = Host::new();
    let told = |args: &[&str]| {
        let mut command = Command::new(pvesync());
        command
            .args(args)
            .env("RBLOCKSYNC_STATE_DIR", host.layout().root());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let events = |args: &[&str]| -> Vec<Value> {
        let text = told(args);
        let lines = text.lines();
        lines.map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let text = told(&["generations", "101"]);
    let line = |name: &str| {
        let mut lines = text.lines();
        lines.find(|l| l.contains(name)).unwrap().to_owned()
    };
    assert!(line("rbs24  ").contains(", verified 20"), "{text}");
    assert!(!line("rbs23  ").contains("verified"), "{text}");
    let of_replica = events(&["generations", "101", "--json"]);
    let mut checked = of_replica
        .iter()
        .filter(|e| e["checked"]["whole"].is_string());
    assert_eq!(checked.next().unwrap()["generation"]["number"], 24);
    assert!(checked.next().is_none());
    // By the source, which was told.
    assert!(told(&["generations", "201"]).contains(", verified 20"));
    let status = events(&["status", "201", "--json"]);
    assert_eq!(status[0]["status"]["checked"][0], 5, "{status:?}");
}

#[test]
fn looking_changes_nothing() {
    let host = Host::new();
    let files = |dir: &Path| -> BTreeSet<(PathBuf, Vec<u8>)> {
        let mut found = BTreeSet::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in dir.read_dir().unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => dirs.push(path),
                    false => drop(found.insert((path.clone(), std::fs::read(path).unwrap()))),
                }
            }
        }
        found
    };
    let before = files(host.layout().root());
    host.written(&["--rpo", "15m"]);
    assert!(before == files(host.layout().root()));
}

#[test]
fn a_state_that_cannot_be_read_is_told_by_the_page_and_by_the_exit_code() {
    let host = Host::new();
    assert!(host.written(&[]).contains("rbs24"));
    std::fs::write(host.layout().journal(), "junk".repeat(5000)).unwrap();
    let out = host.report(&[]);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let html = std::fs::read_to_string(host.page()).unwrap();
    assert!(html.contains("The state of this host cannot be read."));
    // What was true some time ago is not shown any more.
    assert!(!html.contains("rbs24"));
}

#[test]
fn what_is_no_page_is_not_replaced() {
    let host = Host::new();
    std::fs::write(host.page(), "an image").unwrap();
    let out = host.report(&[]);
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    assert_eq!(std::fs::read(host.page()).unwrap(), b"an image");
    for bad in [["--mode", "666"], ["--rpo", "soon"]] {
        assert_eq!(host.report(&bad).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn a_host_without_any_state_has_a_page_too() {
    let host = Host::empty();
    let html = host.written(&[]);
    assert!(html.contains("Nothing is replicated from or to this host yet."));
    assert!(!host.layout().root().exists());
}

/// What a browser finds on the page when it is that wide, with everything unfolded.
const MEASURE: &str = "
    d.querySelectorAll('details').forEach(e => e.open = true);
    const width = d.documentElement.clientWidth;
    const seen = e => !e.closest('svg, .skip, thead') && e.getClientRects().length > 0;
    const wide = [...d.body.querySelectorAll('*')].filter(seen)
        .filter(e => e.getBoundingClientRect().right > width + 1 || e.getBoundingClientRect().left < -1)
        .map(e => e.tagName + '.' + e.className);
    return {
        width, scroll: d.documentElement.scrollWidth, wide: wide.slice(0, 9), title: d.title,
        text: d.body.innerText, scripts: d.scripts.length, images: d.images.length,
        fetched: w.performance.getEntriesByType('resource').map(r => r.name),
        stale: !d.getElementById('stale').hidden,
        headers: [...d.querySelectorAll('th')].every(e => e.scope && e.getAttribute('role')),
        landmarks: ['header', 'main', 'footer'].every(t => d.body.querySelector(':scope > ' + t)),
        broken: [...d.querySelectorAll('a, use')].map(e => e.getAttribute('href')).filter(h => !d.querySelector(h)),
        labels: [...d.querySelectorAll('[aria-labelledby]')].every(e => d.getElementById(e.getAttribute('aria-labelledby'))),
        ids: new Set([...d.querySelectorAll('[id]')].map(e => e.id)).size == d.querySelectorAll('[id]').length,
    };";

#[test]
fn a_browser_shows_it_at_any_width_and_runs_nothing_of_what_names_say() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let html = Host::new().written(&["--rpo", "15m"]);
    for width in [320, 390, 820, 1280] {
        let found = browser.ask(&html, width, MEASURE);
        assert_eq!(found["width"], width);
        assert_eq!(found["scroll"], width, "{:?}", found["wide"]);
        assert_eq!(found["wide"], Value::Array(Vec::new()), "at {width}");
        assert_eq!(
            (&found["scripts"], &found["images"]),
            (&1.into(), &0.into())
        );
        assert_eq!(found["fetched"], Value::Array(Vec::new()));
        assert_eq!(found["broken"], Value::Array(Vec::new()));
        assert!(!found["title"].as_str().unwrap().contains("injected"));
        for key in ["headers", "landmarks", "labels", "ids"] {
            assert_eq!(found[key], true, "{key}");
        }
        // It was written just now.
        assert_eq!(found["stale"], false);
        let text = found["text"].as_str().unwrap();
        for words in [
            "2 of 5 replications need you.",
            "What to do now",
            "<script>document.title='inj",
        ] {
            assert!(text.contains(words), "{words} is not in {text}");
        }
    }
}

/// Even if a template forgot to escape, the page's policy would keep a script from being run and an image from being
/// fetched. Without the policy they would be: so what the tests look at does tell.
#[test]
fn a_script_in_the_page_would_not_be_run() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let html = Host::new().written(&[]);
    let broken = html.replace(
        "</main>",
        &format!("{MARKUP}<p style='width:999px'>wide</p></main>"),
    );
    let found = browser.ask(&broken, 390, MEASURE);
    assert_eq!(
        (&found["scripts"], &found["images"]),
        (&2.into(), &1.into())
    );
    assert!(!found["title"].as_str().unwrap().contains("injected"));
    assert!(
        found["scroll"].as_u64().unwrap() > 900,
        "{}",
        found["scroll"]
    );
    let open = broken.replace("Content-Security-Policy", "X-Nothing");
    let found = browser.ask(&open, 390, MEASURE);
    assert_eq!(found["title"], "injected");
}

/// Our script is run although the page forbids all others, so its digest is the one that the page names.
#[test]
fn an_old_page_says_that_it_is_old() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let html = Host::new().written(&[]);
    let (before, rest) = html.split_once("id=\"written\" datetime=\"").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    let old = format!("{before}id=\"written\" datetime=\"2020-02-03T04:05:06Z\"{after}");
    let found = browser.ask(&old, 390, MEASURE);
    assert_eq!(found["stale"], true);
    let text = found["text"].as_str().unwrap();
    assert!(text.contains("days old"), "{text}");
}

#[test]
fn it_is_light_or_dark_as_the_reader_likes_it() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let host = Host::new();
    host.written(&["--rpo", "15m"]);
    for (dark, paper) in [(false, [0xf7, 0xf6, 0xf3]), (true, [0x13, 0x15, 0x18])] {
        let pixels = browser.picture(&host.page(), [1280, 1000], dark);
        assert_eq!(pixels.len(), 1280 * 1000 * 3);
        assert_eq!(pixels[..3], paper, "dark: {dark}");
        let colors: BTreeSet<&[u8]> = pixels.chunks(3).collect();
        // Text and icons, and not only paper.
        assert!(colors.len() > 50, "{}", colors.len());
    }
}
