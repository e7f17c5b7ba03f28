//! Volumes that are read while their VM is off: Proxmox leaves them inactive then. They are made active for as long as
//! they are read, with those behind them in a chain of qcow2 images.

use crate::error::{Error, Kind, Result};
use crate::image::{qcow2, ImageFormat};
use crate::lvm::{self, Lv, LvId};

/// Volumes that are active for now. Those that were not before are inactive again when this is dropped.
#[derive(Debug, Default)]
pub struct ActiveChain {
    activated: Vec<LvId>,
}

impl ActiveChain {
    /// Makes a volume active, and if it holds a qcow2 image the volumes behind that.
    pub fn of(lv: &Lv, format: ImageFormat) -> Result<ActiveChain> {
        let mut active = ActiveChain::default();
        active.activate(lv)?;
        if format.is_raw() {
            return Ok(active);
        }
        let mut above = lv.id.path();
        for _ in 0..qcow2::CHAIN_MAX {
            let Some((path, format)) = qcow2::behind(&above)? else {
                return Ok(active);
            };
            if let Some(lv) = lvm::find_by_path(&path)? {
                active.activate(&lv)?;
            }
            if format.is_raw() {
                return Ok(active);
            }
            above = path;
        }
        let what = format!("{} has a chain of backing files without end", lv.id);
        Err(Error::new(Kind::Refused, what))
    }

    fn activate(&mut self, lv: &Lv) -> Result<()> {
        if !lv.active {
            lvm::activate(&lv.id)?;
            self.activated.push(lv.id.clone());
        }
        Ok(())
    }
}

impl Drop for ActiveChain {
    fn drop(&mut self) {
        for lv in self.activated.drain(..) {
            // If somebody has started the VM meanwhile, it is in use, and stays active.
            let _ = lvm::deactivate(&lv);
        }
    }
}
