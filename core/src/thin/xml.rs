//! What the readers of the thin tools' XML share.

use crate::error::{Error, Kind, Result};
use crate::range::ByteRange;
use quick_xml::events::BytesStart;

pub(super) const SECTOR_BYTES: u64 = 512;

/// More ranges than this are merged across the smallest holes: 16 MiB of memory.
pub(super) const RANGES_MAX: usize = 1 << 20;

/// Ascending ranges, merged where they touch, or nearly so if there are too many.
#[derive(Default)]
pub(super) struct Ranges {
    pub ranges: Vec<ByteRange>,
    /// Holes up to this many bytes are counted as mapped.
    hole_max: u64,
    /// What was really mapped.
    pub mapped_bytes: u64,
}

impl Ranges {
    pub fn push(&mut self, range: ByteRange, ranges_max: usize) -> Result<()> {
        self.mapped_bytes = self.mapped_bytes.saturating_add(range.len());
        self.add(range, ranges_max)
    }

    pub fn append(&mut self, other: &Ranges, ranges_max: usize) -> Result<()> {
        self.mapped_bytes = self.mapped_bytes.saturating_add(other.mapped_bytes);
        other
            .ranges
            .iter()
            .try_for_each(|r| self.add(*r, ranges_max))
    }

    fn add(&mut self, range: ByteRange, ranges_max: usize) -> Result<()> {
        match self.ranges.last_mut() {
            Some(last) if range.start < last.end => {
                return Err(odd(format!(
                    "the mappings at byte {} are out of order",
                    range.start
                )))
            }
            Some(last) if range.start - last.end <= self.hole_max => last.end = range.end,
            _ => self.ranges.push(range),
        }
        while self.ranges.len() > ranges_max {
            self.hole_max = self.hole_max.saturating_mul(2).max(SECTOR_BYTES);
            let hole_max = self.hole_max;
            self.ranges.dedup_by(|next, kept| {
                let near = next.start - kept.end <= hole_max;
                if near {
                    kept.end = next.end;
                }
                near
            });
        }
        Ok(())
    }
}

/// The attributes of an element.
pub(super) struct Attrs<'a>(pub &'a BytesStart<'a>);

impl Attrs<'_> {
    pub fn text(&self, name: &str) -> Result<String> {
        self.0
            .try_get_attribute(name)
            .map_err(|e| odd("an attribute is damaged").because(e))?
            .map(|attribute| attribute.value.into_owned())
            .ok_or_else(|| odd(format!("the attribute {name} is missing")))
    }

    pub fn number(&self, name: &str) -> Result<u64> {
        let text = self.text(name)?;
        text.parse()
            .map_err(|e| odd(format!("{name} is {text:?}")).because(e))
    }
}

pub(super) fn odd(what: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Tool,
        format!("cannot understand what is said of the pool's metadata: {what}"),
    )
}
