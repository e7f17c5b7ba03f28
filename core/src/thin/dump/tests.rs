use super::*;
use crate::error::Kind;
use proptest::prelude::*;

/// Recorded from thin_dump 0.9.0 -m: a volume of 36 MiB and its snapshot.
const V0_9: &str = r#"<superblock uuid="" time="1" transaction="2" flags="0" version="2" data_block_size="128" nr_data_blocks="0">
  <device dev_id="1" mapped_blocks="49" transaction="0" creation_time="0" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="48" time="0"/>
    <single_mapping origin_block="100" data_block="48" time="0"/>
  </device>
  <device dev_id="2" mapped_blocks="49" transaction="1" creation_time="1" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="48" time="0"/>
    <single_mapping origin_block="100" data_block="48" time="0"/>
  </device>
</superblock>
"#;

/// The form version 1.x gives the same when the two share a leaf.
const V1: &str = r#"<superblock uuid="" time="1" transaction="2" version="2" data_block_size="128" nr_data_blocks="0">
  <def name="7">
    <range_mapping origin_begin="0" data_begin="0" length="48" time="0"/>
  </def>
  <device dev_id="1" mapped_blocks="48" transaction="0" creation_time="0" snap_time="1">
    <ref name="7"/>
  </device>
  <device dev_id="2" mapped_blocks="49" transaction="1" creation_time="1" snap_time="1">
    <ref name="7"/>
    <single_mapping origin_block="100" data_block="48" time="1"/>
  </device>
</superblock>
"#;

const SIZE: u64 = 36 << 20;
const BLOCK: u64 = 65536;

fn ranges(set: &RangeSet) -> Vec<(u64, u64)> {
    set.iter()
        .map(|r| (r.start / BLOCK, r.end / BLOCK))
        .collect()
}

fn refused(xml: &str) -> String {
    let error = parse(xml.as_bytes(), 2, SIZE).unwrap_err();
    assert_eq!(error.kind(), Kind::Tool);
    error.to_string()
}

#[test]
fn both_forms() {
    for xml in [V0_9, V1] {
        let set = parse(xml.as_bytes(), 2, SIZE).unwrap();
        assert_eq!(ranges(&set), [(0, 48), (100, 101)]);
    }
    assert_eq!(ranges(&parse(V1.as_bytes(), 1, SIZE).unwrap()), [(0, 48)]);
}

#[test]
fn clipped_to_the_size_of_the_volume() {
    let set = parse(V0_9.as_bytes(), 2, BLOCK * 20 + 512).unwrap();
    assert_eq!(
        set.iter().copied().collect::<Vec<_>>(),
        [ByteRange::new(0, BLOCK * 20 + 512)]
    );
}

#[test]
fn an_empty_device_is_empty_but_a_missing_one_is_an_error() {
    let empty = r#"<superblock data_block_size="128"><device dev_id="2" mapped_blocks="0"></device></superblock>"#;
    assert!(parse(empty.as_bytes(), 2, SIZE).unwrap().is_empty());
    let error = parse(empty.as_bytes(), 3, SIZE).unwrap_err();
    assert!(
        error.to_string().contains("device 3 is not in it"),
        "{error}"
    );
}

#[test]
fn truncated_anywhere_is_an_error() {
    let whole = V1.trim_end();
    for end in 0..whole.len() {
        assert!(
            parse(&whole.as_bytes()[..end], 2, SIZE).is_err(),
            "cut at {end}"
        );
    }
}

#[test]
fn what_is_not_understood_is_an_error() {
    let max = u64::MAX.to_string();
    let cases = [
        (
            "length=\"48\"",
            "length=\"47\"",
            "49 mapped blocks, but 48 are listed",
        ),
        ("length=\"48\"", "length=\"0\"", "cannot be"),
        ("length=\"48\"", &format!("length=\"{max}\""), "cannot be"),
        (
            "origin_begin=\"0\"",
            &format!("origin_begin=\"{max}\""),
            "cannot be",
        ),
        (
            "length=\"48\"",
            "length=\"99999999999999999999\"",
            "length is",
        ),
        ("length=\"48\"", "length=\"-1\"", "length is"),
        ("length=\"48\" ", "", "length is missing"),
        ("origin_begin=\"0\"", "origin_begin=\"101\"", "out of order"),
        (
            "range_mapping",
            "strange_mapping",
            "unexpected element \"strange_mapping\"",
        ),
        (
            "<superblock",
            "<device dev_id=\"2\"/><superblock",
            "unexpected element \"device\"",
        ),
        (
            "</device>",
            "<device dev_id=\"9\" mapped_blocks=\"0\"/></device>",
            "unexpected element \"device\"",
        ),
        (
            "data_block_size=\"128\"",
            "data_block_size=\"0\"",
            "data_block_size is 0",
        ),
        ("dev_id=\"1\"", "dev_id=\"2\"", "twice"),
        ("</superblock>", "", "too early"),
        (
            "</superblock>",
            "</superblock><superblock data_block_size=\"128\"/>",
            "unexpected element",
        ),
        ("  <device", "  text <device", "unexpected"),
    ];
    for (from, to, expected) in cases {
        // The second device is the one asked for, so change it there, too.
        let xml = V0_9.replace(from, to);
        assert_ne!(xml, V0_9, "{from}");
        let error = refused(&xml);
        assert!(error.contains(expected), "{to}: {error}");
    }
    let error = refused(&V1.replace("<ref name=\"7\"/>", "<ref name=\"8\"/>"));
    assert!(error.contains("def 8 is missing"), "{error}");
}

#[test]
fn too_many_ranges_grow_together_but_lose_nothing() {
    let blocks: Vec<u64> = (0..1000).map(|i| i * 2 + (i / 10) * 50).collect();
    let mut xml = format!(
        "<superblock data_block_size=\"128\"><device dev_id=\"2\" mapped_blocks=\"{}\">",
        blocks.len()
    );
    for block in &blocks {
        xml += &format!("<single_mapping origin_block=\"{block}\" data_block=\"0\" time=\"0\"/>");
    }
    xml += "</device></superblock>";
    let all = parse(xml.as_bytes(), 2, u64::MAX).unwrap();
    assert_eq!(all.iter().count(), 1000);
    let few = parse_with(xml.as_bytes(), 2, u64::MAX, 200).unwrap();
    assert!(few.iter().count() <= 200);
    assert!(
        few.total() < 3 * all.total(),
        "only the small holes are filled"
    );
    for range in all.iter() {
        assert_eq!(few.within(*range).next(), Some(*range));
    }
}

proptest! {
    #[test]
    fn junk_is_survived(junk: Vec<u8>, at in 0usize..800, with in proptest::collection::vec(any::<u8>(), 0..6)) {
        let _ = parse(&junk[..], 2, SIZE);
        let mut damaged = V1.as_bytes().to_vec();
        let at = at.min(damaged.len());
        damaged.splice(at..(at + with.len()).min(damaged.len()), with);
        let _ = parse(&damaged[..], 2, SIZE);
    }

    #[test]
    fn what_is_dumped_is_found(mut starts in proptest::collection::btree_set(0u64..500, 0..60)) {
        let mut body = String::new();
        for block in &starts {
            body += &format!("<single_mapping origin_block=\"{block}\" data_block=\"5\" time=\"0\"/>");
        }
        let xml = format!(
            "<superblock data_block_size=\"128\"><device dev_id=\"2\" mapped_blocks=\"{}\">{body}</device></superblock>",
            starts.len()
        );
        let set = parse(xml.as_bytes(), 2, u64::MAX).unwrap();
        for range in set.iter() {
            for block in range.start / BLOCK..range.end / BLOCK {
                prop_assert!(starts.remove(&block));
            }
        }
        prop_assert!(starts.is_empty());
    }
}
