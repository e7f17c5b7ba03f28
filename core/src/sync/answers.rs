//! What a source answers, segment by segment in order, up to its last frame, and its account of that.

use super::outbox::post;
use super::segment;
use super::source::{mismatch, summary};
use super::table::Recorder;
use super::{Meter, Params, SourceReport, Summary, TargetReport};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::wire::{Delta, Frame, Patch};
use crossbeam_channel::Sender;

/// Equal segments that are reported together.
pub(super) const SAME_BATCH: u32 = 32;

/// The answers of one sync.
pub(super) struct Answers<'a> {
    params: &'a Params,
    meter: &'a Meter,
    /// The segments' digests go there before they are answered.
    pub recorder: Recorder<'a>,
    frames: Sender<Frame>,
    same: u32,
    report: SourceReport,
}

impl<'a> Answers<'a> {
    pub fn new(
        params: &'a Params,
        meter: &'a Meter,
        recorder: Recorder<'a>,
        frames: Sender<Frame>,
    ) -> Self {
        Answers {
            params,
            meter,
            recorder,
            frames,
            same: 0,
            report: SourceReport::default(),
        }
    }

    /// Sends a frame that is no answer.
    pub fn post(&self, frame: Frame) -> Result<()> {
        post(&self.frames, frame)
    }

    /// So many bytes were read here.
    pub fn add_read(&mut self, bytes: u64) {
        self.report.side.read += bytes;
    }

    /// So many bytes that both sides hold are compared.
    pub fn add_compared(&mut self, bytes: u64) {
        self.report.compared += bytes;
        self.meter.add_compared(bytes);
    }

    /// Segment `index` is equal, and the target may wait to be told so.
    pub fn same(&mut self, index: u64) -> Result<()> {
        self.equal(index);
        self.keep()
    }

    fn keep(&mut self) -> Result<()> {
        self.same += 1;
        match self.same >= SAME_BATCH {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Segment `index` is equal, and the target waits for no answer.
    pub fn equal(&mut self, index: u64) {
        let range = self.params.geometry.segment(index);
        self.meter.mark(|map| map.mark_unchanged(range));
        self.meter.set_position(range.end);
    }

    /// A segment is changed by this patch; in a dry run it would be.
    pub fn patch(&mut self, patch: Patch) -> Result<()> {
        self.count(&patch);
        if self.params.dry_run {
            return self.keep();
        }
        self.send(patch.data.packed_len(), Frame::Patch(patch))
    }

    /// A segment is changed by this.
    pub fn delta(&mut self, delta: Delta) -> Result<()> {
        self.count(&delta.patch);
        self.send(delta.patch.data.packed_len(), Frame::Delta(delta))
    }

    fn count(&mut self, patch: &Patch) {
        let geometry = &self.params.geometry;
        let range = geometry.segment(patch.segment);
        let len = range.len() as usize;
        let changed = segment::leaf_bytes(&patch.changed, geometry, len);
        let zeroed = segment::leaf_bytes(&patch.zeroed, geometry, len);
        self.report.changed += changed;
        self.report.zeroed += zeroed;
        self.meter.add_changed(changed);
        self.meter.add_zeroed(zeroed);
        self.meter
            .mark(|map| map.mark_patched(range, changed, zeroed));
        self.meter.set_position(range.end);
    }

    fn send(&mut self, packed: usize, frame: Frame) -> Result<()> {
        self.flush()?;
        self.meter.add_sent(packed as u64);
        self.post(frame)
    }

    /// Tells the target of all equal segments.
    pub fn flush(&mut self) -> Result<()> {
        match std::mem::take(&mut self.same) {
            0 => Ok(()),
            count => self.post(Frame::Same(count)),
        }
    }

    /// Sends the last frame, and gives its digest.
    pub fn finish(&mut self) -> Result<Digest> {
        self.flush()?;
        let digest = self.recorder.digest(self.params.geometry.size())?;
        self.report.map = self.meter.map_report();
        let stats = serde_json::to_vec(&self.report)
            .map_err(|e| Error::new(Kind::Protocol, "cannot encode statistics").because(e))?;
        self.post(Frame::Done(digest, stats))?;
        Ok(digest)
    }

    /// The outcome, once the target's last frame is there.
    pub fn outcome(
        self,
        ours: Digest,
        (theirs, target): (Digest, TargetReport),
    ) -> Result<Summary> {
        if theirs != ours && !self.params.dry_run {
            return Err(mismatch(ours, theirs));
        }
        self.meter.add_map(target.map.as_ref())?;
        Ok(summary(self.params, ours, &self.report, target.side))
    }
}
