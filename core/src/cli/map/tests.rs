//! Pictures of a small map, as text.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::range::ByteRange;
use crate::sync::Geometry;

const MIB: u64 = 1 << 20;

/// 40 MiB less a little: holes, 30 MiB of data of which some changed, a freed end.
fn small() -> BlockMap {
    let geometry = Geometry::new(40 * MIB - 5000, 4096).unwrap();
    let mut map = BlockMap::new(&geometry);
    map.mark_unchanged(geometry.span(2, 20));
    map.mark_patched(geometry.segment(20), 8192, 4096);
    map.mark_patched(geometry.segment(21), MIB, 0);
    map.mark_patched(geometry.segment(22), 4096, MIB - 4096);
    map.mark_unchanged(geometry.span(23, 34));
    map.mark_freed(ByteRange::new(39 * MIB, map.size()));
    map
}

/// Names that would break XML, or a terminal, if they were taken as they are.
fn caption() -> Caption {
    Caption {
        source: "root@host1:/dev/a<b>&\"c\"\u{1b}[2J\u{ffff}".to_owned(),
        target: format!("/long/{}", "x".repeat(200)),
        dry_run: true,
        time: "2026-11-23T22:15:17.123Z".parse().unwrap(),
    }
}

#[test]
fn the_svg_of_a_small_map() {
    insta::assert_snapshot!(svg::render(&small(), &caption()));
}

#[test]
fn an_svg_is_well_formed_whatever_the_names_are() {
    let text = svg::render(&small(), &caption());
    let mut reader = quick_xml::Reader::from_str(&text);
    reader.config_mut().check_end_names = true;
    let mut words = String::new();
    let mut depth = 0;
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Start(tag) => {
                assert!(tag.attributes().all(|a| a.is_ok()), "{tag:?}");
                depth += 1;
            }
            quick_xml::events::Event::Empty(tag) => {
                assert!(tag.attributes().all(|a| a.is_ok()), "{tag:?}");
            }
            quick_xml::events::Event::End(_) => depth -= 1,
            quick_xml::events::Event::Text(t) => words += &t,
            quick_xml::events::Event::GeneralRef(r) => words += &format!("&{};", &*r),
            quick_xml::events::Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0);
    assert!(words.contains("/dev/a&lt;b&gt;&amp;"), "{words}");
    assert!(!text.contains(['\u{1b}', '\u{ffff}']));
}

#[test]
fn the_png_has_the_colours_of_the_cells() {
    let (map, caption) = (small(), caption());
    let bytes = png::render(&map, &caption).unwrap();
    let mut decoder = ::png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(::png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    // 40 cells are two rows of 32 columns, 24 pixels each.
    assert_eq!((info.width, info.height), (768, 48 + 12 + 24));
    let at = |x: usize, y: usize| -> [u8; 3] {
        let start = (y * 768 + x) * 3;
        pixels[start..start + 3].try_into().unwrap()
    };
    let cell = |i: usize| at(i % 32 * 24 + 11, i / 32 * 24 + 11);
    for (i, look) in look::Look::of_cells(&map).into_iter().enumerate() {
        assert_eq!(cell(i), look.light(), "cell {i}");
    }
    assert_eq!(cell(21), [0xd5, 0x5e, 0x00]);
    assert_eq!(cell(40), [0xff; 3], "after the last one");
    assert_eq!(at(23, 11), [0xff; 3], "between two");
    // The bar: hole, unchanged, changed and zeroed from left to right.
    let mut bar: Vec<[u8; 3]> = (0..768).map(|x| at(x, 70)).collect();
    let unchanged = bar
        .iter()
        .filter(|c| **c == look::Look::Unchanged.light())
        .count();
    assert!((550..590).contains(&unchanged), "{unchanged}");
    bar.dedup();
    use look::Look::*;
    assert_eq!(
        bar,
        [Hole, Unchanged, Changed, Zeroed].map(look::Look::light)
    );
    let texts: Vec<_> = reader
        .info()
        .utf8_text
        .iter()
        .map(|t| t.get_text().unwrap())
        .collect();
    assert!(texts.iter().any(|t| t.contains("\\u{1b}[2J")), "{texts:?}");
}

fn canvas(columns: usize, unicode: bool, color: bool) -> Canvas {
    Canvas {
        columns,
        unicode,
        color,
    }
}

#[test]
fn the_terminal_gets_what_it_can_show() {
    let map = small();
    let all = [
        canvas(80, true, false),
        canvas(80, false, false),
        canvas(30, false, false),
        canvas(200, true, true),
        canvas(1, false, false),
    ];
    let texts = all.map(|c| format!("{c:?}\n{}", draw(&map, &c).replace('\x1b', "ESC")));
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for gib in [1, 3, 100, 1 << 20] {
        let geometry = Geometry::new((gib << 30) + 1, 4096).unwrap();
        let mut map = BlockMap::new(&geometry);
        map.mark_unchanged(geometry.span(3, 400));
        map.mark_freed(geometry.span(500, 501));
        for columns in [20, 40, 64, 65, 80, 300] {
            let text = draw(&map, &canvas(columns, false, false));
            let widest = text.lines().map(str::len).max().unwrap();
            assert!(widest <= columns.max(24), "{widest} of {columns}: {text}");
            assert!(text.lines().next().unwrap().len() <= 64);
        }
    }
}

#[test]
fn empty_and_full_images_have_pictures_too() {
    let empty = BlockMap::new(&Geometry::new(0, 4096).unwrap());
    assert_eq!(draw(&empty, &canvas(80, true, true)), "");
    assert!(svg::render(&empty, &caption()).contains("nothing to show"));
    png::render(&empty, &caption()).unwrap();

    // The worst case: 16384 cells, no two neighbours alike.
    let geometry = Geometry::new(16 << 40, 4096).unwrap();
    let mut full = BlockMap::new(&geometry);
    for cell in (0..full.cells()).step_by(2) {
        let range = full.range(cell..cell + 1);
        full.mark_freed(ByteRange::new(range.start, range.end - 1));
    }
    assert!(svg::render(&full, &caption()).len() < 4 << 20);
    assert!(png::render(&full, &caption()).unwrap().len() < 1 << 20);
}
