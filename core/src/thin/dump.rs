//! Reads the XML of thin_dump for one device, of whatever length, in bounded memory.
//!
//! The form is that of versions 0.9 and 1.x: `superblock` holds `device`s, which hold `single_mapping`
//! and `range_mapping` in ascending order, counted in blocks of `data_block_size` sectors. Version 1.x may
//! put mappings that several places share into a `def` before the devices and a `ref` to it in their place.
//! Whatever is not understood is an error: a mapping overlooked would be data lost.

use super::xml::{odd, Attrs, Ranges, RANGES_MAX, SECTOR_BYTES};
use crate::error::Result;
use crate::range::{ByteRange, RangeSet};
use quick_xml::events::{BytesStart, Event};
use quick_xml::Reader;
use std::collections::HashMap;
use std::io::{BufReader, Read};

/// Bytes mapped of device `thin_id`, clipped to `size`. Errors are of [`Kind::Tool`]; it is one, too, if
/// the device is not in the dump.
pub(super) fn parse(xml: impl Read, thin_id: u32, size: u64) -> Result<RangeSet> {
    parse_with(xml, thin_id, size, RANGES_MAX)
}

fn parse_with(xml: impl Read, thin_id: u32, size: u64, ranges_max: usize) -> Result<RangeSet> {
    let mut reader = Reader::from_reader(BufReader::with_capacity(1 << 16, xml));
    let mut dump = Dump {
        thin_id,
        ranges_max,
        at: At::Start,
        block_bytes: 0,
        mapped_blocks: None,
        own: Ranges::default(),
        shared: HashMap::new(),
    };
    let mut buf = Vec::new();
    loop {
        let event = reader
            .read_event_into(&mut buf)
            .map_err(|e| odd("it is not XML").because(e))?;
        match event {
            Event::Start(e) => dump.open(&e, false)?,
            Event::Empty(e) => dump.open(&e, true)?,
            Event::End(e) => dump.close(e.name().as_ref())?,
            Event::Eof => break,
            Event::Text(t) if t.chars().all(|c| c.is_ascii_whitespace()) => {}
            Event::Decl(_) | Event::Comment(_) => {}
            other => return Err(odd(format!("unexpected {other:?}"))),
        }
        buf.clear();
    }
    dump.finish(size)
}

/// Where in the document we are.
#[derive(PartialEq)]
enum At {
    Start,
    Superblock,
    /// In the device we want, or in another.
    Device(bool),
    Def(String),
    End,
}

struct Dump {
    thin_id: u32,
    ranges_max: usize,
    at: At,
    block_bytes: u64,
    /// What the device element says; set once the device was seen.
    mapped_blocks: Option<u64>,
    own: Ranges,
    shared: HashMap<String, Ranges>,
}

impl Dump {
    fn open(&mut self, e: &BytesStart, empty: bool) -> Result<()> {
        let name = e.name();
        let attrs = Attrs(e);
        match (&self.at, name.as_ref()) {
            (At::Start, "superblock") => {
                let sectors = attrs.number("data_block_size")?;
                self.block_bytes = sectors
                    .checked_mul(SECTOR_BYTES)
                    .filter(|bytes| *bytes > 0)
                    .ok_or_else(|| odd(format!("data_block_size is {sectors}")))?;
                self.at = if empty { At::End } else { At::Superblock };
            }
            (At::Superblock, "device") => {
                let wanted = attrs.number("dev_id")? == u64::from(self.thin_id);
                if wanted && self.mapped_blocks.is_some() {
                    return Err(odd(format!("device {} is in it twice", self.thin_id)));
                }
                if wanted {
                    self.mapped_blocks = Some(attrs.number("mapped_blocks")?);
                }
                if !empty {
                    self.at = At::Device(wanted);
                }
            }
            (At::Superblock, "def") => {
                let def = attrs.text("name")?;
                if self.shared.contains_key(&def) {
                    return Err(odd(format!("def {def} is in it twice")));
                }
                self.shared.insert(def.clone(), Ranges::default());
                if !empty {
                    self.at = At::Def(def);
                }
            }
            (At::Device(_) | At::Def(_), "single_mapping") if empty => {
                self.map(attrs.number("origin_block")?, 1)?;
            }
            (At::Device(_) | At::Def(_), "range_mapping") if empty => {
                self.map(attrs.number("origin_begin")?, attrs.number("length")?)?;
            }
            (At::Device(wanted), "ref") if empty => {
                let def = attrs.text("name")?;
                let shared = self
                    .shared
                    .get(&def)
                    .ok_or_else(|| odd(format!("def {def} is missing")))?;
                if *wanted {
                    self.own.append(shared, self.ranges_max)?;
                }
            }
            (_, name) => return Err(odd(format!("unexpected element {:?}", name))),
        }
        Ok(())
    }

    fn close(&mut self, name: &str) -> Result<()> {
        self.at = match (&self.at, name) {
            (At::Device(_), "device") | (At::Def(_), "def") => At::Superblock,
            (At::Superblock, "superblock") => At::End,
            _ => return Err(odd(format!("unexpected end of {:?}", name))),
        };
        Ok(())
    }

    fn map(&mut self, begin: u64, blocks: u64) -> Result<()> {
        let end = begin.checked_add(blocks);
        let bytes = |block: u64| block.checked_mul(self.block_bytes);
        let range = match (bytes(begin), end.and_then(bytes)) {
            (Some(start), Some(end)) if blocks > 0 => ByteRange::new(start, end),
            _ => return Err(odd(format!("cannot be: {blocks} blocks at block {begin}"))),
        };
        let ranges_max = self.ranges_max;
        match &self.at {
            At::Device(true) => self.own.push(range, ranges_max),
            At::Def(def) => match self.shared.get_mut(def) {
                Some(ranges) => ranges.push(range, ranges_max),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn finish(self, size: u64) -> Result<RangeSet> {
        if self.at != At::End {
            return Err(odd("it ends too early"));
        }
        let said = self
            .mapped_blocks
            .ok_or_else(|| odd(format!("device {} is not in it", self.thin_id)))?;
        let seen = self.own.mapped_bytes / self.block_bytes;
        if seen != said {
            return Err(odd(format!(
                "device {} has {said} mapped blocks, but {seen} are listed",
                self.thin_id
            )));
        }
        let whole = ByteRange::new(0, size);
        Ok(self
            .own
            .ranges
            .iter()
            .map(|r| r.intersection(&whole))
            .collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
