//! Both images on this host: their bytes are compared in memory, and nothing crosses a link.

use super::apply::{self, Applier};
use super::failure::{disconnected, Failure};
use super::order::InOrder;
use super::outbox::{self, Limiter};
use super::segment::{self, Stretch};
use super::source::summary;
use super::verify::Touched;
use super::{Meter, Params, SideStats, SourceReport, Summary};
use crate::buf::{is_zero, BufPool};
use crate::digest::{self, Digest, ImageDigest, LeafSet};
use crate::error::Result;
use crate::image::Image;
use crate::stop::Stop;
use crossbeam_channel::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Makes `target` equal to `source`. When this returns `Ok`, the target is flushed.
pub fn run(
    source: &dyn Image,
    target: &dyn Image,
    params: &Params,
    stop: &Stop,
    meter: &Meter,
) -> Result<Summary> {
    meter.begin(params);
    let failure = Failure::of(stop.child());
    let applier = Applier::new(target, params, meter);
    let local = Local {
        source,
        params,
        meter,
        applier: &applier,
        failure: &failure,
        pool: params.geometry.buffers(),
        limiter: params
            .bytes_per_s_max
            .map(|max| Mutex::new(Limiter::new(max))),
        settled: Mutex::new(Settled {
            order: InOrder::new(),
            digest: params.image_digest(),
            touched: Touched::new(params),
            report: SourceReport::default(),
        }),
    };
    let (jobs_tx, jobs_rx) = crossbeam_channel::bounded(outbox::queue(&params.geometry));
    std::thread::scope(|scope| {
        let (local, failure) = (&local, &failure);
        for _ in 0..apply::workers(params) {
            let jobs = jobs_rx.clone();
            scope.spawn(move || failure.watch(|| local.work(&jobs)));
        }
        drop(jobs_rx);
        failure.watch(|| local.list(&jobs_tx));
        drop(jobs_tx);
    });
    match failure.take() {
        Some(error) => Err(error),
        None => local.finish(),
    }
}

enum Job {
    Compare { ticket: u64, index: u64 },
    Clear { index: u64 },
}

struct Local<'a> {
    source: &'a dyn Image,
    params: &'a Params,
    meter: &'a Meter,
    applier: &'a Applier<'a>,
    failure: &'a Failure,
    pool: Arc<BufPool>,
    limiter: Option<Mutex<Limiter>>,
    settled: Mutex<Settled>,
}

/// What the finished segments add up to.
struct Settled {
    order: InOrder<Outcome>,
    digest: ImageDigest,
    touched: Touched,
    report: SourceReport,
}

/// A segment that is as it should be.
struct Outcome {
    index: u64,
    digest: Option<Digest>,
    /// Bytes read from the source.
    read: u64,
    /// Both hold data in it.
    compared: bool,
    changed: LeafSet,
    zeroed: LeafSet,
}

impl Local<'_> {
    fn settled(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Walks the source: what it has goes to the workers, the rest is freed on the target.
    fn list(&self, jobs: &Sender<Job>) -> Result<()> {
        let send = |job| jobs.send(job).map_err(disconnected);
        segment::walk(
            self.source,
            &self.params.geometry,
            0..self.params.geometry.segments(),
            self.failure,
            |stretch| match stretch {
                Stretch::Hole(hole) => {
                    self.applier
                        .clear_segments(hole.start, hole.end, self.failure, |index| {
                            send(Job::Clear { index })
                        })
                }
                Stretch::Data(mut data) => data.try_for_each(|index| {
                    let ticket = self.settled().order.issue();
                    send(Job::Compare { ticket, index })
                }),
            },
        )
    }

    fn work(&self, jobs: &Receiver<Job>) -> Result<()> {
        for job in jobs {
            self.failure.check()?;
            match job {
                Job::Clear { index } => self.applier.clear_segment(index)?,
                Job::Compare { ticket, index } => {
                    let outcome = self.make_equal(index)?;
                    let len = self.params.geometry.segment(index).len() as usize;
                    let sent = segment::leaf_bytes(&outcome.changed, &self.params.geometry, len);
                    self.settle(ticket, outcome);
                    if !self.params.dry_run {
                        self.pay(sent)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn make_equal(&self, index: u64) -> Result<Outcome> {
        let params = self.params;
        let ours = segment::read(self.source, &params.geometry, index, &self.pool)?;
        let theirs = self.applier.read(index)?;
        let leaf = params.geometry.leaf_bytes() as usize;
        let mut outcome = Outcome {
            index,
            digest: digest::segment(params.hash, ours.bytes(), leaf),
            read: ours.read,
            compared: false,
            changed: LeafSet::default(),
            zeroed: LeafSet::default(),
        };
        if ours.bytes() == theirs.bytes() {
            outcome.compared = outcome.digest.is_some();
            return Ok(outcome);
        }
        outcome.compared = outcome.digest.is_some() && !is_zero(theirs.bytes());
        let nonzero = digest::nonzero_leaves(ours.bytes(), leaf);
        let pairs = ours.bytes().chunks(leaf).zip(theirs.bytes().chunks(leaf));
        for (i, (new, old)) in pairs.enumerate() {
            match nonzero.contains(i) {
                _ if new == old => {}
                true => outcome.changed.insert(i),
                false => outcome.zeroed.insert(i),
            }
        }
        if !params.dry_run {
            self.applier
                .write(index, &ours, &outcome.changed, &outcome.zeroed)?;
        }
        Ok(outcome)
    }

    /// Waits until what was written is within the rate limit.
    fn pay(&self, bytes: u64) -> Result<()> {
        let Some(limiter) = self.limiter.as_ref().filter(|_| bytes > 0) else {
            return Ok(());
        };
        let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let paid_at = limiter.charge(bytes);
        // The others go on meanwhile, until they have to pay themselves.
        drop(limiter);
        outbox::pay(paid_at, self.failure)
    }

    /// Counts the segments that are next in order.
    fn settle(&self, ticket: u64, outcome: Outcome) {
        let geometry = &self.params.geometry;
        let settled = &mut *self.settled();
        settled.order.fill(ticket, outcome);
        while let Some(outcome) = settled.order.take() {
            let range = geometry.segment(outcome.index);
            let len = range.len() as usize;
            let changed = segment::leaf_bytes(&outcome.changed, geometry, len);
            let zeroed = segment::leaf_bytes(&outcome.zeroed, geometry, len);
            settled.digest.add(outcome.index, outcome.digest);
            settled.report.side.read += outcome.read;
            if outcome.compared {
                settled.report.compared += range.len();
                self.meter.add_compared(range.len());
            }
            if changed + zeroed > 0 {
                settled.touched.patched(outcome.index, outcome.digest);
                settled.report.changed += changed;
                settled.report.zeroed += zeroed;
                self.meter.add_changed(changed);
                self.meter.add_zeroed(zeroed);
                self.meter.add_sent(changed);
                self.meter
                    .mark(|map| map.mark_patched(range, changed, zeroed));
            } else {
                self.meter.mark(|map| map.mark_unchanged(range));
            }
            self.meter.set_position(range.end);
        }
    }

    fn finish(self) -> Result<Summary> {
        let params = self.params;
        let mut settled = self
            .settled
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        self.source.check_unchanged()?;
        let target = self.applier.image();
        let mut verified = 0;
        if !params.dry_run {
            target.flush()?;
            target.check_unchanged()?;
            if params.verify {
                verified = settled.touched.verify(target, params, self.failure)?;
            }
        }
        let stats = SideStats {
            verified,
            ..self.applier.stats()
        };
        let digest = settled.digest.finish(params.geometry.size());
        Ok(summary(params, digest, &settled.report, stats))
    }
}
