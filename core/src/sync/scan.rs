//! The digest of one image, as a sync of it would find it: to prove an image that nothing is synced to.

use super::apply::workers;
use super::failure::{disconnected, Failure};
use super::order::InOrder;
use super::segment::{self, Stretch};
use super::{outbox, Meter, Params};
use crate::digest::{self, Digest};
use crate::error::Result;
use crate::image::Image;
use crate::stop::Stop;
use std::sync::{Mutex, PoisonError};

/// Reads all of `image`'s data and digests it.
pub fn scan(image: &dyn Image, params: &Params, stop: &Stop, meter: &Meter) -> Result<Digest> {
    let geometry = &params.geometry;
    meter.begin(params);
    let failure = &Failure::of(stop.child());
    let pool = geometry.buffers();
    let sum = Mutex::new((InOrder::new(), params.image_digest()));
    let locked = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    let (jobs_tx, jobs_rx) = crossbeam_channel::bounded::<(u64, u64)>(outbox::queue(geometry));
    let work = |jobs: crossbeam_channel::Receiver<(u64, u64)>| -> Result<()> {
        for (ticket, index) in jobs {
            failure.check()?;
            let data = segment::read(image, geometry, index, &pool)?;
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
        failure.watch(|| {
            segment::walk(image, geometry, failure, |stretch| match stretch {
                Stretch::Hole(_) => Ok(()),
                Stretch::Data(mut data) => data.try_for_each(|index| {
                    let ticket = locked().0.issue();
                    jobs_tx.send((ticket, index)).map_err(disconnected)
                }),
            })
        });
        drop(jobs_tx);
    });
    if let Some(error) = failure.take() {
        return Err(error);
    }
    image.check_unchanged()?;
    let (_, digest) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(digest.finish(geometry.size()))
}
