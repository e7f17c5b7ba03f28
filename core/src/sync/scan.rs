//! The digests of one image's segments, as a sync of it would find them: to prove an image that nothing is synced to.

use super::apply::workers;
use super::failure::{disconnected, Failure};
use super::order::InOrder;
use super::segment::{self, Stretch};
use super::{outbox, Meter, Params};
use crate::digest::{self, Digest};
use crate::error::Result;
use crate::image::Image;
use crate::stop::Stop;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Reads these segments of `image` and calls `each` with the digests of those that hold data, in order. `each` is
/// given the error of one that cannot be read, and may go on.
pub fn scan(
    image: &dyn Image,
    params: &Params,
    segments: Range<u64>,
    stop: &Stop,
    meter: &Meter,
    each: impl FnMut(u64, Result<Option<Digest>>) -> Result<()> + Send,
) -> Result<()> {
    let geometry = &params.geometry;
    meter.begin(params);
    let failure = &Failure::of(stop.child());
    let pool = geometry.buffers();
    let found = Mutex::new((InOrder::new(), each));
    let locked = || found.lock().unwrap_or_else(PoisonError::into_inner);
    let (jobs_tx, jobs_rx) = crossbeam_channel::bounded::<(u64, u64)>(outbox::queue(geometry));
    let work = |jobs: crossbeam_channel::Receiver<(u64, u64)>| -> Result<()> {
        for (ticket, index) in jobs {
            failure.check()?;
            let leaf = geometry.leaf_bytes() as usize;
            let digest = segment::read(image, geometry, index, &pool)
                .map(|data| digest::segment(params.hash, data.bytes(), leaf));
            let (order, each) = &mut *locked();
            order.fill(ticket, (index, digest));
            while let Some((index, digest)) = order.take() {
                each(index, digest)?;
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
        failure.watch(|| {
            segment::walk(
                image,
                geometry,
                segments,
                failure,
                |stretch| match stretch {
                    Stretch::Hole(_) => Ok(()),
                    Stretch::Data(mut data) => data.try_for_each(|index| {
                        let ticket = locked().0.issue();
                        jobs_tx.send((ticket, index)).map_err(disconnected)
                    }),
                },
            )
        });
        drop(jobs_tx);
    });
    match failure.take() {
        Some(error) => Err(error),
        None => image.check_unchanged(),
    }
}
