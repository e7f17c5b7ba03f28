//! The JSON that travels in requests, replies, errors and last frames: what is understood is said again
//! in a form that is understood as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rblocksync::agent::{BlockRequest, Opened};
use rblocksync::job::HostRequest;
use rblocksync::replica::Generation;
use rblocksync::sync::{Params, SideStats};
use rblocksync::wire::ErrorReport;
use serde::{de::DeserializeOwned, Serialize};

fn round_trip<T: DeserializeOwned + Serialize>(json: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(json).ok()?;
    let said = serde_json::to_value(&value).expect("what was read can be written");
    let again: T = serde_json::from_value(said.clone()).expect("what was written can be read");
    let again = serde_json::to_value(&again).expect("what was read can be written");
    assert_eq!(again, said);
    Some(value)
}

fuzz_target!(|json: &[u8]| {
    round_trip::<BlockRequest>(json);
    round_trip::<HostRequest>(json);
    round_trip::<Generation>(json);
    round_trip::<Opened>(json);
    round_trip::<SideStats>(json);
    if let Some(params) = round_trip::<Params>(json) {
        let geometry = params.geometry;
        let last = geometry.segment(geometry.segments().saturating_sub(1));
        assert_eq!(last.end, geometry.size());
    }
    if let Some(report) = round_trip::<ErrorReport>(json) {
        let _ = report.into_error().to_string();
    }
});
