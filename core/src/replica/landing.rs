//! A replica becomes the VM together with its guest: the guest waits on the head for its memory, and runs when this host is
//! primary.
//!
//! `landing.json` is there from before the guest waits until it has landed or is gone. It says that the heads are what was
//! sealed: they are made so before anything opens them, and nothing but that guest has them from then on. So nothing is
//! remade under it, and the one durable step is that this host is primary. A guest that waits early is the exception: the
//! last sync writes the heads under it, and they are sealed as they are ([`super::heads`]).

use super::guard::set_guard;
use super::head_digest::check_heads;
use super::heads;
use super::layout::Layout;
use super::listing::Listing;
use super::manifest::Generation;
use super::plan::newest;
use super::replicas::no_generation;
use super::role::{Role, Standing};
use super::seal;
use super::store::{self, read_json, write_json, TargetPair};
use super::takeover::{
    check_standing, check_volumes, drop_forks, make_heads, TakeOver, TakenOver, PATIENCE,
};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::hypervisor::{GuestState, Incoming, LiveHypervisor, LiveProfile, SeededHypervisor};
use crate::lock::Lock;
use crate::stop::Stop;
use uuid::Uuid;

/// A guest that waits on this host, or is paused with its memory. Dropped before it has landed, it is ended.
pub struct Landing<'a> {
    layout: Layout,
    live: &'a dyn LiveHypervisor,
    order: TakeOver,
    pair: TargetPair,
    lock: Option<Lock>,
    over: bool,
}

impl<'a> Landing<'a> {
    /// Has the guest wait for its memory on the heads of the generation that is to be taken over. The newest one, and
    /// nothing is changed for good. With `seeded` it brings what lies over its disks, which must be what was sealed to the
    /// last byte: they are read again.
    pub fn prepare(
        layout: &Layout,
        live: &'a dyn LiveHypervisor,
        seeded: Option<&dyn SeededHypervisor>,
        order: &TakeOver,
        profile: &LiveProfile,
        stop: &Stop,
    ) -> Result<(Landing<'a>, Incoming)> {
        let (lock, pair) = open(layout, order.pair)?;
        clear(layout, live, &pair)?;
        seal::recover(layout, live, order.pair)?;
        let mut pair = known(layout, order.pair)?;
        if check_standing(&pair, order)? || pair.head != Some(order.generation) {
            return Err(elsewhere(&pair));
        }
        let generation = sealed(layout, &pair, order)?;
        let listing = Listing::default();
        check_volumes(&generation, &listing)?;
        let hold = live.hold(&pair)?;
        make_heads(&generation, &listing)?;
        if seeded.is_some() {
            check_heads(&generation, stop)?;
        }
        pair.head = Some(order.generation);
        let landing = Landing::announce(layout, live, order, pair, Some(lock))?;
        drop(hold);
        let incoming = match seeded {
            Some(seeded) => seeded.receive_seeded(&landing.pair, &generation, profile)?,
            None => live.receive(&landing.pair, &generation, profile)?,
        };
        crash::point("landing waits");
        Ok((landing, incoming))
    }

    /// The same before `order`'s generation is there: the guest waits while the heads are brought up to date, by somebody who
    /// has prepared that and holds the pair's lock meanwhile. See `replica::heads`.
    pub fn prepare_early(
        layout: &Layout,
        live: &'a dyn LiveHypervisor,
        order: &TakeOver,
        profile: &LiveProfile,
    ) -> Result<(Landing<'a>, Incoming)> {
        let pair = known(layout, order.pair)?;
        let newest = newest(layout, &pair)?.filter(|newest| newest.number < order.generation);
        let (false, Some(newest)) = (check_standing(&pair, order)?, newest) else {
            return Err(elsewhere(&pair));
        };
        if layout.landing(order.pair).exists() {
            return Err(Error::new(
                Kind::Busy,
                format!("a guest waits for VM {} here already", pair.target_vm),
            )
            .advise("run again: it is ended then"));
        }
        let landing = Landing::announce(layout, live, order, pair, None)?;
        let incoming = live.receive(&landing.pair, &newest, profile)?;
        // From here on nobody else can open them.
        if !heads::are(&Listing::default(), &newest)? {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "somebody has written to the replica of VM {} just now",
                    landing.pair.target_vm
                ),
            )
            .advise("run again"));
        }
        crash::point("landing waits");
        Ok((landing, incoming))
    }

    /// From here on it is known that a guest waits, or will.
    fn announce(
        layout: &Layout,
        live: &'a dyn LiveHypervisor,
        order: &TakeOver,
        pair: TargetPair,
        lock: Option<Lock>,
    ) -> Result<Landing<'a>> {
        write_json(&layout.landing(order.pair), order)?;
        crash::point("landing announced");
        Ok(Landing {
            layout: layout.clone(),
            live,
            order: order.clone(),
            pair,
            lock,
            over: false,
        })
    }

    /// The pair.
    pub fn pair(&self) -> &TargetPair {
        &self.pair
    }

    /// Makes this host primary, and has the guest run.
    pub fn land(mut self, order: &TakeOver) -> Result<TakenOver> {
        if *order != self.order {
            return Err(Error::new(
                Kind::Refused,
                "what is to be taken over is not what waits here",
            ));
        }
        let lock = match self.lock.take() {
            Some(lock) => lock,
            None => open(&self.layout, order.pair)?.0,
        };
        let layout = self.layout.clone();
        match land_holding(&layout, self.live, order, &lock) {
            Ok(taken) => {
                self.over = true;
                Ok(taken)
            }
            Err(e) => {
                self.lock = Some(lock);
                Err(e)
            }
        }
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let lock = self.lock.take();
        let lock = lock.map_or_else(|| open(&self.layout, self.pair.pair).map(|o| o.0), Ok);
        // If this fails, it is done by whoever wants the replica next.
        let _ = lock.and_then(|_lock| clear(&self.layout, self.live, &self.pair));
    }
}

/// The same as [`Landing::land`] for somebody who has not prepared it, because the connection was lost in between.
pub fn land(layout: &Layout, live: &dyn LiveHypervisor, order: &TakeOver) -> Result<TakenOver> {
    let (lock, _) = open(layout, order.pair)?;
    land_holding(layout, live, order, &lock)
}

/// Ends a guest that waits here and has not landed. Nothing happens where there is none.
pub fn end_landing(layout: &Layout, live: &dyn LiveHypervisor, pair: Uuid) -> Result<()> {
    if !layout.landing(pair).exists() {
        return Ok(());
    }
    let (_lock, pair) = open(layout, pair)?;
    clear(layout, live, &pair)
}

fn elsewhere(pair: &TargetPair) -> Error {
    Error::new(
        Kind::Refused,
        format!(
            "VM {} cannot be received here: its replica is at another generation",
            pair.target_vm
        ),
    )
}

fn open(layout: &Layout, pair: Uuid) -> Result<(Lock, TargetPair)> {
    known(layout, pair)?;
    let what = format!("the replica {pair}");
    let lock = Lock::take_within(PATIENCE, &layout.pair_lock(pair), &what)?;
    Ok((lock, known(layout, pair)?))
}

fn known(layout: &Layout, pair: Uuid) -> Result<TargetPair> {
    read_json(&layout.target_pair(pair))?.ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("there is no replica {pair} on this host"),
        )
    })
}

fn sealed(layout: &Layout, pair: &TargetPair, order: &TakeOver) -> Result<Generation> {
    let manifest = layout.generation(order.pair, order.generation);
    read_json(&manifest)?.ok_or_else(|| no_generation(&pair.target_vm, order.generation))
}

/// Ends what an earlier run left, while the host is a replica host. The caller holds the pair's lock.
fn clear(layout: &Layout, live: &dyn LiveHypervisor, pair: &TargetPair) -> Result<()> {
    let path = layout.landing(pair.pair);
    if !path.exists() {
        return Ok(());
    }
    let now = known(layout, pair.pair)?;
    if now.standing.role == Role::Replica {
        live.end_received(&now)?;
        // It may have waited on heads that were being written: then the seal is finished that was announced, or they become
        // again what they were.
        seal::recover(layout, live, pair.pair)?;
        let now = known(layout, pair.pair)?;
        if let Some(newest) = newest(layout, &now)?.filter(heads::could_be_written) {
            let _hold = live.hold(&now)?;
            make_heads(&newest, &Listing::default())?;
        }
    }
    store::remove(&path)
}

fn land_holding(
    layout: &Layout,
    live: &dyn LiveHypervisor,
    order: &TakeOver,
    _lock: &Lock,
) -> Result<TakenOver> {
    let mut pair = known(layout, order.pair)?;
    let generation = sealed(layout, &pair, order)?;
    let path = layout.landing(order.pair);
    if !check_standing(&pair, order)? {
        let prepared = read_json::<TakeOver>(&path)?;
        let state = live.guest(&pair.target_vm)?;
        if prepared.as_ref() != Some(order) || state != GuestState::Paused {
            return Err(memory_is_lost(&pair.target_vm));
        }
        if pair.head != Some(order.generation) {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the disks of VM {} are not sealed as generation {}",
                    pair.target_vm, order.generation
                ),
            ));
        }
        crash::point("landing checked");
        pair.head = Some(order.generation);
        pair.standing = Standing {
            role: Role::Primary,
            epoch: order.epoch,
        };
        write_json(&layout.target_pair(pair.pair), &pair)?;
        crash::point("landing standing");
    }
    let why = format!("it came from {} while it ran", pair.source_name);
    set_guard(layout, &pair.target_vm, pair.standing, &why)?;
    crash::point("landing guard");
    let mut notes = Vec::new();
    if live.guest(&pair.target_vm)? == GuestState::Off {
        // It had landed, so the VM is this host's, with whatever befalls a VM.
        notes.extend(live.promote_received(&pair, &generation)?);
        live.start(&pair.target_vm)?;
        notes.push("its guest had ended, and was started anew".into());
    } else {
        live.resume(&pair.target_vm)?;
        crash::point("landing runs");
        notes.extend(live.promote_received(&pair, &generation)?);
    }
    crash::point("landing promoted");
    // The hypervisor was told of the VM: it need not be told of a new generation of a replica.
    store::remove(&layout.sealing(pair.pair))?;
    store::remove(&path)?;
    notes.extend(drop_forks(layout, &mut pair));
    Ok(TakenOver { generation, notes })
}

/// What the driver is told when there is nothing to land any more; it takes the VM back then.
fn memory_is_lost(vm: &str) -> Error {
    Error::new(
        Kind::NotFound,
        format!("the guest of VM {vm} with its memory is not here any more"),
    )
}
