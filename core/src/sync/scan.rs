//! The digest of one image, as a sync of it would find it: to prove an image that nothing is synced to.

use super::apply::workers;
use super::failure::{disconnected, Failure};
use super::order::InOrder;
use super::{outbox, segment, Meter, Params};
use crate::digest::{self, Digest, ImageDigest};
use crate::error::Result;
use crate::image::Image;
use crate::stop::Stop;
use crate::wire::limits;
use crossbeam_channel::Sender;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads all of `image`'s data and digests it.
pub fn scan(image: &dyn Image, params: &Params, stop: &Stop, meter: &Meter) -> Result<Digest> {
    let geometry = &params.geometry;
    meter.begin(params);
    let failure = &Failure::of(stop.child());
    let pool = geometry.buffers();
    let sum = Mutex::new((
        InOrder::new(),
        ImageDigest::new(params.hash, geometry.leaf_bytes(), geometry.segment_bytes()),
    ));
    let locked = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    let (jobs_tx, jobs_rx) = crossbeam_channel::bounded::<(u64, u64)>(outbox::queue(geometry));
    let work = |jobs: crossbeam_channel::Receiver<(u64, u64)>| -> Result<()> {
        for (ticket, index) in jobs {
            failure.check()?;
            let data = segment::read(image, geometry, index, &Arc::clone(&pool))?;
            let leaf = geometry.leaf_bytes() as usize;
            let found = digest::segment(params.hash, data.bytes(), leaf);
            drop(data);
            let (order, digest) = &mut *locked();
            order.fill(ticket, (index, found));
            while let Some((index, found)) = order.take() {
                digest.add(index, found);
                meter.add_compared(geometry.segment(index).len());
                meter.set_position(geometry.segment(index).end);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..workers(params) {
            let (jobs, work) = (jobs_rx.clone(), &work);
            scope.spawn(move || failure.watch(|| work(jobs)));
        }
        drop(jobs_rx);
        failure.watch(|| list(image, params, failure, &jobs_tx, || locked().0.issue()));
        drop(jobs_tx);
    });
    if let Some(error) = failure.take() {
        return Err(error);
    }
    image.check_unchanged()?;
    let (_, digest) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(digest.finish(geometry.size()))
}

fn list(
    image: &dyn Image,
    params: &Params,
    failure: &Failure,
    jobs: &Sender<(u64, u64)>,
    ticket: impl Fn() -> u64,
) -> Result<()> {
    let geometry = &params.geometry;
    let (mut at, end) = (0, geometry.segments());
    while at < end {
        failure.check()?;
        let (runs, reached) = segment::data_runs(image, geometry, at, end, limits::RUNS_MAX)?;
        for index in runs.iter().flat_map(|&(first, count)| first..first + count) {
            jobs.send((ticket(), index)).map_err(disconnected)?;
        }
        at = reached;
    }
    Ok(())
}
