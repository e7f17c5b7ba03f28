//! What LVM knows of the volumes in play.

pub(super) use crate::lvm::Listing;
