//! What the fuzz targets share: the far end of a link, which says what the fuzzer made up, and the images
//! and parameters of a session.

#[path = "../../core/tests/hostile_peer/memory.rs"]
pub mod memory;
pub mod session;
pub mod stream;
