//! A target as a dry run sees it: at the size it would be given, or before it is created.

use super::{Handle, Image};
use crate::error::{Error, Kind, Result};
use crate::range::ByteRange;

/// A read-only view of an image at another size: cut off, or continued by a hole.
pub struct View {
    inner: Option<Handle>,
    size: u64,
}

impl View {
    /// `inner` seen at `size` bytes; `None` is an image that does not exist yet.
    pub fn new(inner: Option<Handle>, size: u64) -> Self {
        View { inner, size }
    }

    fn end(&self) -> u64 {
        let size = self.inner.as_ref().map_or(0, |i| i.image().size());
        size.min(self.size)
    }

    fn refuse<T>(&self) -> Result<T> {
        Err(Error::new(
            Kind::Refused,
            format!("{} is only looked at in a dry run", self.name()),
        ))
    }
}

impl Image for View {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let inside = (self.end().saturating_sub(offset) as usize).min(buf.len());
        let (head, tail) = buf.split_at_mut(inside);
        tail.fill(0);
        match &self.inner {
            Some(inner) if !head.is_empty() => inner.image().read_at(head, offset),
            _ => Ok(()),
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> Result<()> {
        self.refuse()
    }

    fn zero(&self, _: ByteRange) -> Result<()> {
        self.refuse()
    }

    fn next_data(&self, offset: u64) -> Result<Option<ByteRange>> {
        let Some(inner) = &self.inner else {
            return Ok(None);
        };
        let found = inner.image().next_data(offset)?;
        let cut = found.map(|r| r.intersection(&ByteRange::new(0, self.end())));
        Ok(cut.filter(|r| !r.is_empty()))
    }

    fn tells_holes(&self) -> bool {
        self.inner.as_ref().is_none_or(|i| i.image().tells_holes())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn check_unchanged(&self) -> Result<()> {
        self.inner
            .as_ref()
            .map_or(Ok(()), |i| i.image().check_unchanged())
    }

    fn read_from_medium(&self) -> Result<()> {
        self.refuse()
    }

    fn name(&self) -> String {
        match &self.inner {
            Some(inner) => inner.image().name(),
            None => "a target that does not exist yet".into(),
        }
    }
}
