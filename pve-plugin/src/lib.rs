//! What the suite knows of Proxmox VE.

pub mod api;
pub mod disks;
pub mod drive;
pub mod node;
pub mod replica_config;
pub mod source;
pub mod storage_cfg;
pub mod target;
pub mod vm_config;
pub mod volid;
pub mod workstation;
