//! `rblocksync --map`: the picture of a sync, and the small one on a terminal.

#![allow(clippy::unwrap_used)]

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::{tempdir, TempDir};
use tests::cli::{
    all_ways, binary, checksum, on, rblocksync, scribble, server, shown_on, sparse_image, terminal,
    Rblocksync, Untouched, MIB,
};

/// A source of 16 MiB with 12 MiB of data, and a target that differs in one leaf and in one segment,
/// lacks a segment, and has one of its own.
fn pair() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempdir().unwrap();
    let src = sparse_image(dir.path().join("src"), 16 * MIB, &[(0, 8), (12, 4)], 1);
    let dst = sparse_image(dir.path().join("dst"), 16 * MIB, &[(0, 8), (12, 3)], 1);
    scribble(&dst, 3 * MIB + 100, 1, 7);
    scribble(&dst, 5 * MIB, MIB as usize, 8);
    scribble(&dst, 10 * MIB, MIB as usize, 9);
    (dir, src, dst)
}

/// What that pair's map is, a letter for each MiB.
const LETTERS: &str = "===+=#==..0.===#";

/// The colours that the manual names, for the letters that a plain terminal gets.
fn color(letter: char) -> [u8; 3] {
    match letter {
        '.' => [0xee, 0xee, 0xee],
        '=' => [0xb4, 0xb9, 0xc0],
        '+' => [0xf7, 0xd0, 0x38],
        '#' => [0xd5, 0x5e, 0x00],
        '0' => [0x00, 0x5a, 0x9c],
        other => panic!("{other}"),
    }
}

/// The cells of a PNG of at most 32, as letters.
fn letters(path: &Path, cells: usize) -> String {
    let mut decoder = png::Decoder::new(Cursor::new(std::fs::read(path).unwrap()));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let width = reader.next_frame(&mut pixels).unwrap().width as usize;
    let side = width / 32;
    let at = |cell: usize| &pixels[(side / 2 * width + cell * side + side / 2) * 3..][..3];
    let letter = |cell| ".=+#0".chars().find(|l| color(*l) == at(cell));
    (0..cells).map(|cell| letter(cell).unwrap_or('?')).collect()
}

/// What an SVG says of the image as a whole. All of it must be well-formed.
fn description(path: &Path) -> String {
    use quick_xml::events::Event;
    let text = std::fs::read_to_string(path).unwrap();
    let mut reader = quick_xml::Reader::from_str(&text);
    let (mut open, mut description) = (Vec::new(), String::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => {
                assert!(tag.attributes().all(|a| a.is_ok()), "{tag:?}");
                open.push(tag.name().as_ref().to_owned());
            }
            Event::End(_) => drop(open.pop()),
            Event::Text(text) if open.last().is_some_and(|tag| tag == "desc") => {
                description += &text;
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?}");
    description
}

/// Whichever end is elsewhere, dry or not: the agents tell what the driver cannot see.
#[test]
fn the_map_is_the_same_in_all_ways() {
    let sshd = server();
    for way in 0..4 {
        let (dir, src, dst) = pair();
        let (from, to) = all_ways(&src, &dst)[way].clone();
        let map = dir.path().join("map.png");
        for options in ["--dry-run", "", "--dry-run"] {
            let before = (!options.is_empty()).then(|| Untouched::note([&src, &dst]));
            Rblocksync::sync(&from, &to)
                .with(&format!("{options} --map {}", map.display()))
                .over(&sshd)
                .run()
                .ok();
            let expected = match before.is_some() && checksum(&src) == checksum(&dst) {
                true => "========....====",
                false => LETTERS,
            };
            if let Some(before) = before {
                before.check();
            }
            assert_eq!(letters(&map, 16), expected, "way {way}, {options:?}");
            let bar_only = letters(&map, 17).ends_with('?');
            assert!(bar_only, "there is nothing after the last cell");
        }
        assert_eq!(checksum(&src), checksum(&dst), "way {way}");
        let names: Vec<_> = dir.path().read_dir().unwrap().flatten().collect();
        assert_eq!(names.len(), 3, "{names:?}");
    }
}

#[test]
fn the_svg_tells_the_bytes_of_the_summary() {
    let (dir, src, dst) = pair();
    let map = dir.path().join("map <&>.svg");
    std::fs::write(&map, "<svg/>").unwrap();
    let run = |to: &Path| {
        let args = ["--json".as_ref(), "--truncate".as_ref(), "--map".as_ref()];
        let paths = [map.as_os_str(), src.as_os_str(), to.as_os_str()];
        rblocksync(args.into_iter().chain(paths)).run().summary()
    };
    let summary = run(&dir.path().join("new <&>"));
    assert_eq!(summary.bytes("changed"), 12 * MIB);
    assert_eq!(description(&map), "changed 12.0 MiB, hole 4.0 MiB");
    let summary = run(&dst);
    assert_eq!(summary.bytes("changed"), 2 * MIB + 4096);
    assert_eq!(
        description(&map),
        "changed 2.0 MiB, zeroed 1.0 MiB, unchanged 10.0 MiB, hole 3.0 MiB"
    );
}

#[test]
fn what_cannot_be_a_map_is_refused_before_anything_starts() {
    let (dir, src, dst) = pair();
    let image = dir.path().join("image.png");
    std::fs::copy(&src, &image).unwrap();
    let untouched = Untouched::note([&src, &dst, &image, &dir.path().to_owned()]);
    let refused = |to: &Path, map: &Path, code: i32, words: &[&str]| {
        let options = format!("--map {}", map.display());
        Rblocksync::sync(&src, to)
            .with(&options)
            .run()
            .refused(code, words);
        untouched.check();
    };
    for name in ["map", "map.jpg", "map.svg.gz"] {
        refused(
            &dst,
            &dir.path().join(name),
            2,
            &[name, "neither .svg nor .png"],
        );
    }
    refused(&image, &image, 2, &["image.png", "an image and its map"]);
    refused(&dst, &image, 3, &["image.png", "not a picture"]);
    refused(
        &dst,
        &dir.path().join("none/map.svg"),
        1,
        &["none", "No such file"],
    );
    // Also where the image is said to be on another host, which may be this one.
    let sshd = server();
    Rblocksync::sync(&src, on("h1", &image))
        .with(&format!("--map {}", image.display()))
        .over(&sshd)
        .run()
        .refused(3, &["image.png", "not a picture"]);
    untouched.check();
}

#[test]
fn a_sync_that_fails_leaves_no_map_and_a_map_that_fails_is_told() {
    let (dir, src, dst) = pair();
    let short = sparse_image(dir.path().join("short"), MIB, &[], 1);
    let untouched = Untouched::note([dir.path()]);
    let map = dir.path().join("map.svg");
    let options = format!("--map {}", map.display());
    Rblocksync::sync(&src, &short)
        .with(&options)
        .run()
        .refused(3, &["sizes differ"]);
    untouched.check();

    // Somebody makes a directory of that name while the sync runs.
    let run = Rblocksync::sync(&src, &dst)
        .with(&format!("{options} --bwlimit 1M"))
        .start();
    std::thread::sleep(std::time::Duration::from_millis(700));
    std::fs::create_dir(&map).unwrap();
    let run = run.finish();
    assert!(run.stdout.starts_with("16.0 MiB in sync"), "{run:?}");
    run.refused(1, &["the sync is done, but not its map", "map.svg"]);
    assert_eq!(checksum(&src), checksum(&dst));
    assert_eq!(dir.path().read_dir().unwrap().count(), 4);
}

/// What a terminal gets on standard output.
fn on_terminal(columns: u16, options: &str, vars: &[(&str, &str)]) -> String {
    let (_dir, src, dst) = pair();
    let (theirs, ours) = terminal(Some(columns));
    let mut child = Command::new(binary())
        .args(options.split_whitespace())
        .args([&src, &dst])
        .env_clear()
        .envs(vars.iter().copied())
        .stdout(theirs)
        .spawn()
        .unwrap();
    let reader = shown_on(ours);
    assert!(child.wait().unwrap().success());
    reader.join().unwrap().replace('\r', "")
}

#[test]
fn a_terminal_gets_a_small_map_in_what_it_can_show() {
    let plain = on_terminal(100, "", &[("NO_COLOR", "1")]);
    let lines: Vec<&str> = plain.lines().collect();
    assert!(lines[0].starts_with("16.0 MiB in sync"), "{plain}");
    assert_eq!(
        lines[1..],
        [
            LETTERS,
            ". hole 3.0 MiB  = unchanged 10.0 MiB  + changed in part  # changed 2.0 MiB  0 zeroed 1.0 MiB",
            "(each 1.0 MiB)"
        ]
    );
    let rich = on_terminal(100, "", &[("LANG", "C.UTF-8"), ("TERM", "xterm")]);
    assert!(
        rich.contains("\u{2588}\x1b[0m") && rich.contains("\x1b[38;5;"),
        "{rich:?}"
    );
    let narrow = on_terminal(9, "--dry-run", &[("NO_COLOR", "1")]);
    assert_eq!(narrow.lines().nth(1), Some(&LETTERS[..8]), "{narrow}");
    assert_eq!(narrow.lines().nth(2), Some(&LETTERS[8..]), "{narrow}");
}

#[test]
fn nobody_else_gets_one() {
    for options in ["-q", "--json", "--progress never"] {
        let shown = on_terminal(100, options, &[]);
        assert!(!shown.contains("hole"), "{options}: {shown}");
        assert!(shown.lines().count() < 2, "{options}: {shown}");
    }
    let (_dir, src, dst) = pair();
    let piped = Rblocksync::sync(&src, &dst).run().ok();
    assert_eq!(piped.stdout.lines().count(), 1, "{piped:?}");
    let always = Rblocksync::sync(&src, &dst).with("--progress always").run();
    assert!(always.stdout.contains("hole 4.0 MiB"), "{always:?}");
}
