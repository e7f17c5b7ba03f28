//! The lab: two hypervisor guests with real LVM-thin, and helpers for end-to-end tests.
