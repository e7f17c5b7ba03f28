//! What the suite knows of Proxmox VE.
