//! A scripted peer plays the other end of a link, frame by frame, and breaks the rules. Whatever it does,
//! the side under test ends with an error of the right kind, soon, and has written nothing it was not
//! sure of.
#![allow(clippy::unwrap_used)]

mod changes;
mod grains;
mod grains_source;
mod link;
mod memory;
mod peer;
mod relay;
mod requests;
mod source;
mod target;
