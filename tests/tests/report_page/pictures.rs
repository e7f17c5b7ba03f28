//! The pictures of the page in the documentation: made with `DOCS_UPDATE=1`, small, and the ones that the documents show.

use super::browser::Browser;
use super::state::fill_for_pictures;
use super::Host;
use std::collections::HashMap;
use std::path::PathBuf;

/// Largest picture in bytes.
const BYTES_MAX: usize = 100_000;
const COLORS_MAX: usize = 256;

/// A picture, its width and height in pixels, whether as on a phone, and whether dark.
const PICTURES: [(&str, [u32; 2], bool, bool); 2] = [
    ("report.png", [1040, 2080], false, false),
    ("report-phone.png", [390, 1700], true, true),
];

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[test]
fn the_documentation_shows_the_page_in_small_pictures() {
    if std::env::var_os("DOCS_UPDATE").is_some() {
        let browser = Browser::find().expect("pictures are made by chromium");
        let host = Host::empty();
        fill_for_pictures(&host.layout(), host.dir.path());
        let html = host.written(&["--rpo", "15m"]);
        let dir = host.dir.path().to_str().unwrap();
        let html = html
            .replace(dir, "/var/lib/vz/images")
            .replace(">this host<", ">host2<");
        std::fs::write(host.page(), html).unwrap();
        for (name, size, phone, dark) in PICTURES {
            let pixels = match phone {
                true => browser.phone(&host.page(), size, dark),
                false => browser.picture(&host.page(), size, dark),
            };
            std::fs::write(docs().join(name), png(&pixels, size)).unwrap();
        }
    }
    let fleet = std::fs::read_to_string(docs().join("fleet.md")).unwrap();
    for (name, [width, height], _, _) in PICTURES {
        let bytes = std::fs::read(docs().join(name)).unwrap();
        assert!(bytes.len() < BYTES_MAX, "{name} has {}", bytes.len());
        let decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        let reader = decoder.read_info().unwrap();
        assert_eq!((reader.info().width, reader.info().height), (width, height));
        assert!(fleet.contains(&format!("({name})")), "{name}");
    }
}

/// With a palette, which is a third of the size. Colours that are too many are the rare ones, on the edges of letters:
/// each becomes the nearest of the others.
fn png(pixels: &[u8], [width, height]: [u32; 2]) -> Vec<u8> {
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    for pixel in pixels.chunks(3) {
        *counts.entry(pixel).or_default() += 1;
    }
    let mut colors: Vec<&[u8]> = counts.keys().copied().collect();
    colors.sort_by_key(|color| (std::cmp::Reverse(counts[color]), *color));
    let kept = &colors[..colors.len().min(COLORS_MAX)];
    let distance = |a: &[u8], b: &[u8]| -> u32 {
        let each = a
            .iter()
            .zip(b)
            .map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2));
        each.sum()
    };
    let nearest = |color: &[u8]| (0..kept.len()).min_by_key(|n| distance(kept[*n], color));
    let index: HashMap<&[u8], u8> = colors
        .iter()
        .map(|color| (*color, u8::try_from(nearest(color).unwrap()).unwrap()))
        .collect();
    let indexed: Vec<u8> = pixels.chunks(3).map(|pixel| index[pixel]).collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(kept.concat());
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&indexed).unwrap();
    writer.finish().unwrap();
    file
}
