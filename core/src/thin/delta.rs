//! Reads the XML of thin_delta, of whatever length, in bounded memory.
//!
//! The form is that of versions 0.9 and 1.x without `--verbose`: `superblock` holds one `diff`, which holds `same`,
//! `different`, `left_only` and `right_only` in ascending order, counted in blocks of `data_block_size` sectors.
//! What is in none of them is mapped on neither side. Whatever is not understood is an error: a difference overlooked
//! would be data lost.

use super::xml::{odd, Attrs, Ranges, RANGES_MAX, SECTOR_BYTES};
use crate::error::Result;
use crate::range::{ByteRange, RangeSet};
use quick_xml::events::{BytesStart, Event};
use quick_xml::Reader;
use std::io::{BufReader, Read};

/// Bytes in which device `right` may differ from `left`, clipped to `size`. Errors are of [`crate::error::Kind::Tool`].
pub(super) fn parse(xml: impl Read, left: u32, right: u32, size: u64) -> Result<RangeSet> {
    parse_with(xml, (left, right), size, RANGES_MAX)
}

fn parse_with(
    xml: impl Read,
    devices: (u32, u32),
    size: u64,
    ranges_max: usize,
) -> Result<RangeSet> {
    let mut reader = Reader::from_reader(BufReader::with_capacity(1 << 16, xml));
    let mut delta = Delta {
        devices,
        ranges_max,
        at: At::Start,
        block_bytes: 0,
        end: 0,
        changed: Ranges::default(),
    };
    let mut buf = Vec::new();
    loop {
        let event = reader
            .read_event_into(&mut buf)
            .map_err(|e| odd("it is not XML").because(e))?;
        match event {
            Event::Start(e) => delta.open(&e, false)?,
            Event::Empty(e) => delta.open(&e, true)?,
            Event::End(e) => delta.close(e.name().as_ref())?,
            Event::Eof => break,
            Event::Text(t) if t.chars().all(|c| c.is_ascii_whitespace()) => {}
            Event::Decl(_) | Event::Comment(_) => {}
            other => return Err(odd(format!("unexpected {other:?}"))),
        }
        buf.clear();
    }
    match delta.at {
        At::End => {}
        _ => return Err(odd("it ends too early")),
    }
    let whole = ByteRange::new(0, size);
    let changed = delta.changed.ranges.iter();
    Ok(changed.map(|r| r.intersection(&whole)).collect())
}

/// Where in the document we are.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Start,
    Superblock,
    Diff,
    /// In one of the diff's elements, which is empty but may have an end of its own.
    Leaf,
    /// Behind the diff.
    Closing,
    End,
}

struct Delta {
    devices: (u32, u32),
    ranges_max: usize,
    at: At,
    block_bytes: u64,
    /// Blocks up to here were told of.
    end: u64,
    changed: Ranges,
}

impl Delta {
    fn open(&mut self, e: &BytesStart, empty: bool) -> Result<()> {
        let name = e.name();
        let attrs = Attrs(e);
        self.at = match (self.at, name.as_ref()) {
            (At::Start, "superblock") if !empty => {
                let sectors = attrs.number("data_block_size")?;
                self.block_bytes = sectors
                    .checked_mul(SECTOR_BYTES)
                    .filter(|bytes| *bytes > 0)
                    .ok_or_else(|| odd(format!("data_block_size is {sectors}")))?;
                At::Superblock
            }
            (At::Superblock, "diff") => {
                let found = (attrs.number("left")?, attrs.number("right")?);
                let wanted = (u64::from(self.devices.0), u64::from(self.devices.1));
                if found != wanted {
                    return Err(odd(format!("it compares {found:?}, not {wanted:?}")));
                }
                match empty {
                    true => At::Closing,
                    false => At::Diff,
                }
            }
            (At::Diff, what @ ("same" | "different" | "left_only" | "right_only")) => {
                let range = self.range(attrs.number("begin")?, attrs.number("length")?)?;
                if what != "same" {
                    self.changed.push(range, self.ranges_max)?;
                }
                match empty {
                    true => At::Diff,
                    false => At::Leaf,
                }
            }
            (_, name) => return Err(odd(format!("unexpected element {name:?}"))),
        };
        Ok(())
    }

    fn close(&mut self, name: &str) -> Result<()> {
        self.at = match (self.at, name) {
            (At::Leaf, "same" | "different" | "left_only" | "right_only") => At::Diff,
            (At::Diff, "diff") => At::Closing,
            (At::Closing, "superblock") => At::End,
            _ => return Err(odd(format!("unexpected end of {name:?}"))),
        };
        Ok(())
    }

    fn range(&mut self, begin: u64, blocks: u64) -> Result<ByteRange> {
        let end = begin.checked_add(blocks);
        let bytes = |block: u64| block.checked_mul(self.block_bytes);
        match (bytes(begin), end, end.and_then(bytes)) {
            (Some(from), Some(end), Some(to)) if blocks > 0 && begin >= self.end => {
                self.end = end;
                Ok(ByteRange::new(from, to))
            }
            _ => Err(odd(format!(
                "cannot be: {blocks} blocks at block {begin}, behind block {}",
                self.end
            ))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// What version 0.9.0 says of two devices made for this.
    const RECORDED: &str = r#"<superblock uuid="" time="1" transaction="3" data_block_size="128" nr_data_blocks="1000">
  <diff left="1" right="2">
    <same begin="0" length="2"/>
    <different begin="2" length="2"/>
    <same begin="9" length="1"/>
    <left_only begin="12" length="1"/>
    <right_only begin="30" length="1"/>
  </diff>
</superblock>
"#;
    const BLOCK: u64 = 64 << 10;

    fn changed(xml: &str) -> Result<RangeSet> {
        parse(xml.as_bytes(), 1, 2, 31 * BLOCK - 7)
    }

    #[test]
    fn all_that_is_not_the_same_is_changed() {
        let found = changed(RECORDED).unwrap();
        let wanted = [(2, 4), (12, 13), (30, 31)];
        let wanted: RangeSet = wanted
            .iter()
            .map(|(a, b)| ByteRange::new(a * BLOCK, (b * BLOCK).min(31 * BLOCK - 7)))
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn equal_devices_differ_nowhere() {
        for diff in [
            r#"<diff left="1" right="2"/>"#,
            r#"<diff left="1" right="2"></diff>"#,
            r#"<diff left="1" right="2"><same begin="0" length="9"></same></diff>"#,
        ] {
            let xml = format!(r#"<superblock data_block_size="128">{diff}</superblock>"#);
            assert!(changed(&xml).unwrap().is_empty(), "{diff}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let cut = |at: usize| RECORDED[..at].to_owned();
        let with = |from: &str, to: &str| RECORDED.replacen(from, to, 1);
        for xml in [
            String::new(),
            cut(120),
            cut(RECORDED.len() - 15),
            with("left=\"1\"", "left=\"3\""),
            with("different", "new_kind"),
            with("begin=\"2\"", "begin=\"1\""),
            with("length=\"2\"", "length=\"0\""),
            with("length=\"2\"", "length=\"18446744073709551615\""),
            with("data_block_size=\"128\"", "data_block_size=\"0\""),
            with("begin=\"9\"", "start=\"9\""),
            // With --verbose.
            with(
                "<same begin=\"0\" length=\"2\"/>",
                "<same><range begin=\"0\" length=\"2\"/></same>",
            ),
        ] {
            assert_eq!(changed(&xml).unwrap_err().kind(), Kind::Tool, "{xml}");
        }
    }

    #[test]
    fn too_many_ranges_become_coarser_and_never_smaller() {
        let leaves: String = (0..1000)
            .map(|i| format!(r#"<different begin="{}" length="1"/>"#, 3 * i))
            .collect();
        let xml = format!(
            r#"<superblock data_block_size="128"><diff left="1" right="2">{leaves}</diff></superblock>"#
        );
        let found = parse_with(xml.as_bytes(), (1, 2), u64::MAX, 100).unwrap();
        assert!(found.iter().count() <= 100);
        for i in 0..1000 {
            let block = ByteRange::new(3 * i * BLOCK, (3 * i + 1) * BLOCK);
            assert!(found.iter().any(|r| r.intersection(&block) == block), "{i}");
        }
    }
}
