//! The page as a whole, from facts that are made up.
#![allow(clippy::unwrap_used)]

use super::advice::problems;
use super::facts::{DiskPart, Facts, Found, Limit, Marks, Newest, Point, Replication};
use super::health::{states, State};
use super::page;
use super::stores::Store;
use crate::error::{Error, Kind};
use crate::job::PairStatus;
use crate::journal::{RunRecord, Side};
use crate::replica::{BlockMap, Checked, Role, Standing};
use crate::snapshot::Consistency;
use jiff::Timestamp;

const NOW_S: i64 = 1_772_366_400;
const NASTY: &str = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;\u{202e}";

fn at(second: i64) -> Timestamp {
    Timestamp::new(second, 0).unwrap()
}

fn run(ago_s: i64, error: Option<&str>) -> RunRecord {
    RunRecord {
        id: String::new(),
        vm: "101".into(),
        name: "web01".into(),
        peer: "host2".into(),
        peer_host: None,
        pair: Some("p".into()),
        state: "transfer".into(),
        began_at: at(NOW_S - ago_s),
        ended_at: Some(at(NOW_S - ago_s + 75)),
        error: error.map(str::to_owned),
        generation: error.is_none().then_some(7),
        taken_at: None,
        changed: Some(200 << 20),
        wire: Some(90 << 20),
        running: false,
    }
}

fn point(number: i64, ago_s: i64) -> Point {
    Point {
        name: format!("rbs{number}"),
        epoch: 1,
        taken_at: at(NOW_S - ago_s),
        consistency: [
            Consistency::Filesystem,
            Consistency::Crash,
            Consistency::Offline,
        ][(number % 3).unsigned_abs() as usize],
        sent: 1 << (20 + number % 9),
        marks: Marks {
            pinned: number == 2,
            ..Marks::default()
        },
    }
}

/// A disk with data in its first half, which is not the same in `each` cells that follow each other.
fn map(each: usize) -> BlockMap {
    let share = |cell: usize| u8::try_from((cell / each) % 9 * 12).unwrap();
    BlockMap {
        key: "scsi0".into(),
        data: (0..BlockMap::CELLS_MAX).map(share).collect(),
        changed: Some((0..BlockMap::CELLS_MAX).rev().map(share).collect()),
    }
}

/// With `count` generations, one every `every_s`, the newest of `every_s / 2` ago.
fn replication(vm: &str, side: Side, count: i64, every_s: i64) -> Replication {
    let generations: Vec<Point> = (1..=count)
        .map(|n| point(n, every_s / 2 + (count - n) * every_s))
        .collect();
    let standing = match side {
        Side::Source => Standing::primary(),
        Side::Target => Standing::replica(),
    };
    let runs: Vec<RunRecord> = generations
        .iter()
        .map(|p| run(NOW_S - p.taken_at.as_second() + 4, None))
        .collect();
    Replication {
        status: PairStatus {
            booted: None,
            checked: None,
            side,
            vm: vm.into(),
            name: if side == Side::Source {
                "web01".into()
            } else {
                String::new()
            },
            peer: "host2".into(),
            pair: Some("p".into()),
            standing: Some(standing),
            generation: (count > 0).then_some(count.unsigned_abs()),
            taken_at: generations.last().map(|p| p.taken_at),
            generations: None,
            last: runs.last().cloned(),
        },
        rpo_s: None,
        source_vm: vm.into(),
        newest: (count > 0).then(|| Newest {
            disks: vec![DiskPart {
                key: "scsi0".into(),
                volume: format!("local-lvm:vm-{vm}-disk-0"),
                size: 32 << 30,
                sent: 200 << 20,
                map: Some(map(3)),
            }],
            excluded: Vec::new(),
            notes: Vec::new(),
        }),
        generations,
        runs,
    }
}

fn facts(replications: Vec<Replication>, rpo_s: Option<u64>) -> Facts {
    Facts {
        program: "pvesync",
        host: "host1".into(),
        now: at(NOW_S),
        limit: rpo_s.map_or(Limit::None, Limit::All),
        found: Found {
            replications: replications
                .into_iter()
                .map(|r| Replication { rpo_s, ..r })
                .collect(),
            stores: Vec::new(),
            notes: Vec::new(),
        },
    }
}

fn html(facts: &Facts) -> String {
    page::render(facts, &problems(facts))
}

fn first(replication: Replication, rpo_s: Option<u64>) -> State {
    let facts = facts(vec![replication], rpo_s);
    states(&facts.found.replications[0], &facts)[0]
}

#[test]
fn each_state_is_told_from_the_others() {
    let well = || replication("101", Side::Source, 3, 600);
    let with = |change: fn(&mut Replication)| {
        let mut changed = well();
        change(&mut changed);
        changed
    };
    let rpo = Some(900);
    assert_eq!(first(well(), rpo), State::Ok);
    assert_eq!(first(well(), Some(299)), State::Late);
    assert_eq!(first(well(), None), State::Ok);
    let failed = with(|r| r.status.last = Some(run(60, Some("no route"))));
    assert_eq!(first(failed, rpo), State::Failed);
    let cut = with(|r| r.status.last.as_mut().unwrap().ended_at = None);
    assert_eq!(first(cut, rpo), State::CutOff);
    let goes_on = |r: &mut Replication| {
        let last = r.status.last.as_mut().unwrap();
        (last.ended_at, last.running) = (None, true);
    };
    let running = with(goes_on);
    assert_eq!(first(running, rpo), State::Running);
    let all = |r: &Replication, rpo_s: Option<u64>| states(r, &facts(Vec::new(), rpo_s));
    let late = Replication {
        rpo_s: Some(10),
        ..with(goes_on)
    };
    // Its own limit counts, whatever is said for others.
    assert_eq!(all(&late, Some(900)), [State::Late, State::Running]);
    let mut never = replication("101", Side::Source, 0, 1);
    assert_eq!(all(&never, rpo), [State::Never]);
    never.status.last = Some(RunRecord {
        running: true,
        ended_at: None,
        ..run(5, None)
    });
    assert_eq!(all(&never, rpo), [State::Running]);
    let future = with(|r| r.status.taken_at = Some(at(NOW_S + 3600)));
    assert_eq!(first(future, rpo), State::Clock);
    for (role, state) in [(Role::Held, State::Held), (Role::Retired, State::Over)] {
        let mut changed = well();
        changed.status.standing = Some(Standing { role, epoch: 2 });
        // A VM that has gone is not late.
        assert_eq!(first(changed, Some(1)), state);
    }
    let mut damaged = replication("101", Side::Target, 3, 600);
    damaged.status.checked = Some((
        3,
        Checked {
            at: at(NOW_S - 60),
            whole: None,
            damaged: vec!["scsi0".into()],
        },
    ));
    assert_eq!(first(damaged, None), State::Damaged);
    let mut taken = replication("101", Side::Target, 3, 600);
    taken.status.standing = Some(Standing::primary());
    assert_eq!(first(taken, Some(1)), State::Over);
}

#[test]
fn problems_come_worst_first_with_a_command_and_a_runbook() {
    let mut failed = replication("9", Side::Source, 3, 600);
    failed.status.last = Some(run(
        60,
        Some("thin pool pve/data is nearly full: 96% of data"),
    ));
    let mut held = replication("8", Side::Target, 3, 600);
    held.status.standing = Some(Standing {
        role: Role::Held,
        epoch: 3,
    });
    let late = replication("7", Side::Target, 2, 9000);
    let mut facts = facts(vec![failed, late, held], Some(900));
    facts.found.stores.push(Store {
        name: "pve/data".into(),
        kind: "thin pool",
        size: 1 << 40,
        data_percent: Some(40.0),
        metadata_percent: Some(97.2),
    });
    let found = problems(&facts);
    let told: Vec<_> = found.iter().map(|p| (p.state, p.runbook.0)).collect();
    assert_eq!(
        told,
        [
            (State::Held, "split-brain"),
            (State::Late, "source-host-dead"),
            (State::Late, "pool-full"),
            (State::Failed, "pool-full"),
        ]
    );
    assert_eq!(
        found[3].commands,
        [("host1".to_owned(), "pvesync vm 9 --to host2".to_owned())]
    );
    assert_eq!(
        found[1].commands,
        [("host2".to_owned(), "pvesync status 7".to_owned())]
    );
    let page = html(&facts);
    for text in [
        "3 of 3 replications need you.",
        "The newest generation is 1 h 15 min old; the limit is 15 min.",
        "It is 97 % full in its metadata.",
        "docs/runbooks/split-brain.md",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn what_was_found_when_a_generation_was_read_again_is_told() {
    let with = |change: fn(&mut Marks)| {
        let mut r = replication("101", Side::Source, 3, 600);
        change(&mut r.generations[1].marks);
        html(&facts(vec![r], None))
    };
    assert!(with(|_| {}).contains("never, as far as is known here"));
    assert!(with(|m| m.verified = Some(at(NOW_S - 60))).contains("rbs2 as it was sealed, "));
    let partly = with(|m| m.partly = Some(at(NOW_S - 60)));
    assert!(partly.contains("rbs2 no damage in the part that was read, "));
    assert!(partly.contains("verified in part 2026-"));
    assert!(with(|m| m.damaged = Some(at(NOW_S - 60))).contains("rbs2 <b>damaged</b>, "));
    // Damage that the source was told of is put right from there.
    let mut r = replication("101", Side::Source, 3, 600);
    r.status.checked = Some((
        2,
        Checked {
            at: at(NOW_S - 60),
            whole: None,
            damaged: vec!["scsi0".into()],
        },
    ));
    let found = problems(&facts(vec![r], None));
    assert_eq!(found[0].state, State::Damaged);
    assert_eq!(
        found[0].commands[0].1,
        "pvesync verify 101 --to host2 --repair"
    );
}

#[test]
fn nothing_from_elsewhere_becomes_markup() {
    let mut r = replication("101", Side::Source, 3, 600);
    r.status.name = NASTY.into();
    r.status.peer = NASTY.into();
    r.status.vm = NASTY.into();
    r.status.last = Some(run(60, Some(NASTY)));
    r.runs.push(run(60, Some(NASTY)));
    let newest = r.newest.as_mut().unwrap();
    newest.disks[0].key = NASTY.into();
    newest.disks[0].volume = NASTY.into();
    newest.excluded = vec![NASTY.into()];
    newest.notes = vec![NASTY.into()];
    let mut facts = facts(vec![r], Some(10));
    facts.host = NASTY.into();
    // Without what cannot be copied, so that it comes into commands too.
    let mut copied = replication("101", Side::Source, 3, 600);
    copied.status.peer = NASTY.replace('\u{202e}', "");
    facts.found.replications.push(copied);
    facts.found.notes = vec![NASTY.into()];
    facts.found.stores.push(Store {
        name: NASTY.into(),
        kind: "thin pool",
        size: 1,
        data_percent: Some(99.0),
        metadata_percent: None,
    });
    let error = Error::new(Kind::Io, NASTY).advise(NASTY);
    for page in [html(&facts), page::failure(NASTY, at(NOW_S), &error)] {
        assert_eq!(page.matches("<script").count(), 1);
        assert!(!page.contains("<img") && !page.contains('\u{202e}'));
        // Ours are all in double quotes, which are escaped in what is foreign.
        assert!(page.contains("&lt;script&gt;alert('x')&lt;/script&gt;&quot;&gt;&lt;img"));
        for word in ["http:", "https:", "src=\"", "url(", "@import", "<base"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}

/// WCAG's contrast of two colours of the style sheet, in its light (0) or dark (1) half.
fn contrast(half: usize, front: &str, back: &str) -> f64 {
    let style = include_str!("page.css");
    let luminance = |name: &str| -> f64 {
        let value = style.split(&format!("--{name}: #")).nth(half + 1).unwrap();
        let channel = |n: usize| {
            let c = f64::from(u8::from_str_radix(&value[2 * n..2 * n + 2], 16).unwrap()) / 255.0;
            if c <= 0.04045 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(0) + 0.7152 * channel(1) + 0.0722 * channel(2)
    };
    let (a, b) = (luminance(front), luminance(back));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn text_stands_out_enough_in_light_and_dark() {
    let mut pairs = vec![("ink", "soft"), ("accent", "paper")];
    for front in ["ink", "muted", "accent"] {
        pairs.extend(["paper", "sheet"].map(|back| (front, back)));
    }
    for state in ["bad", "warn", "good", "busy", "calm"] {
        pairs.push((
            state,
            [
                "bad-soft",
                "warn-soft",
                "good-soft",
                "busy-soft",
                "calm-soft",
            ]
            .into_iter()
            .find(|soft| soft.starts_with(state))
            .unwrap(),
        ));
    }
    for half in [0, 1] {
        for (front, back) in &pairs {
            let found = contrast(half, front, back);
            assert!(found >= 4.5, "{front} on {back}, {half}: {found:.2}");
        }
        // Shapes need less.
        for (front, back) in [("fill", "soft"), ("fill", "sheet"), ("bad", "sheet")] {
            let found = contrast(half, front, back);
            assert!(found >= 3.0, "{front} on {back}, {half}: {found:.2}");
        }
    }
}

#[test]
fn a_page_about_everything_there_can_be_has_a_bound() {
    let mut replications: Vec<Replication> = (0..500)
        .map(|n| replication(&format!("{}", 100 + n), Side::Target, 1000, 900))
        .collect();
    let long = "x".repeat(700);
    for r in &mut replications {
        r.status.last = Some(run(60, Some(&long)));
        r.runs.truncate(60);
        for run in &mut r.runs {
            run.error = Some(long.clone());
        }
        for point in &mut r.generations {
            point.marks.pinned = true;
        }
        let newest = r.newest.as_mut().unwrap();
        newest.notes = vec![long.clone(); 50];
        newest.excluded = vec![long.clone(); 50];
        let disk = |n| DiskPart {
            key: format!("scsi{n}"),
            volume: long.clone(),
            size: 1 << 40,
            sent: 1 << 30,
            map: Some(map(1)),
        };
        newest.disks = (0..60).map(disk).collect();
    }
    let page = html(&facts(replications, Some(900)));
    assert!(page.len() < 9 << 20, "{}", page.len());
    for told in [
        "and 400 more",
        "and 440 more that are not told",
        "older, not listed",
        "earlier, not listed",
    ] {
        assert!(page.contains(told), "{told}");
    }
}

#[test]
fn a_host_without_replications_is_told_how_to_begin() {
    let page = html(&facts(Vec::new(), None));
    assert!(page.contains("Nothing is replicated") && page.contains("pvesync vm VMID --to HOST"));
    assert!(page.starts_with(super::file::BEGINNING));
}

/// To be looked at while the page is changed: `REPORT_SAMPLE=FILE cargo test -p rblocksync --lib sample_page`.
#[test]
fn a_sample_page_has_all_states() {
    let mut all: Vec<Replication> = Vec::new();
    for (vm, host, count, every) in [
        ("101", "host2", 12, 600),
        ("102", "host2", 40, 900),
        ("9", "backup-site", 3, 86_400),
    ] {
        let mut r = replication(vm, Side::Source, count, every);
        r.status.peer = host.into();
        r.status.name = format!("web{vm}");
        all.push(r);
    }
    let mut failed = replication("103", Side::Source, 9, 800);
    failed.status.name = "mail".into();
    let error =
        "cannot connect to root@host3: ssh: connect to host host3 port 22: No route to host";
    failed.runs.push(run(30, Some(error)));
    failed.status.last = failed.runs.last().cloned();
    all.push(failed);
    let mut cut = replication("104", Side::Source, 5, 1000);
    cut.status.name = "a-rather-long-name-that-somebody-gave-to-a-database-server-years-ago".into();
    cut.status.last.as_mut().unwrap().ended_at = None;
    cut.generations[3].marks.booted = Some(at(NOW_S - 500));
    all.push(cut);
    let mut first = replication("105", Side::Source, 0, 1);
    first.status.last = Some(RunRecord {
        ended_at: None,
        running: true,
        ..run(100, None)
    });
    all.push(first);
    all.push(replication("106", Side::Target, 0, 1));
    let mut held = replication("107", Side::Target, 7, 700);
    held.status.standing = Some(Standing {
        role: Role::Held,
        epoch: 3,
    });
    all.push(held);
    let mut over = replication("108", Side::Source, 7, 7000);
    over.status.standing = Some(Standing {
        role: Role::Retired,
        epoch: 2,
    });
    all.push(over);
    let mut damaged = replication("109", Side::Target, 7, 700);
    damaged.status.checked = Some((
        6,
        Checked {
            at: at(NOW_S - 60),
            whole: None,
            damaged: vec!["scsi0".into()],
        },
    ));
    all.push(damaged);
    let mut facts = facts(all, Some(900));
    for (name, kind, data, metadata) in [
        ("pve/data", "thin pool", 71.0, Some(34.0)),
        ("/mnt/replicas/images/106", "file system", 91.0, None),
    ] {
        facts.found.stores.push(Store {
            name: name.into(),
            kind,
            size: 4 << 40,
            data_percent: Some(data),
            metadata_percent: metadata,
        });
    }
    let page = html(&facts);
    for state in State::ALL {
        assert!(
            page.contains(&format!("</svg>{}</span>", state.word())),
            "{state:?}"
        );
    }
    if let Some(path) = std::env::var_os("REPORT_SAMPLE") {
        std::fs::write(path, page).unwrap();
    }
}
