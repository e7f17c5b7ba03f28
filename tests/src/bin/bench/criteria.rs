//! What rblocksync is to reach beside the other tools. The bench shows it, and fails for none of it.

use crate::ends::ROUND_TRIP;
use crate::measure::{median, Sample};
use crate::scenario::MIB;
use crate::series::{Row, Series, ALONE, FAR, PLAIN};
use crate::tools::{B3SUM, QEMU_IMG, RBLOCKSYNC, RSYNC, TAR};

/// The file system's own blocks count as allocated too.
const NO_LARGER: f64 = 1.001;
const RSS_MIB_MAX: f64 = 96.0;
const ROUND_TRIPS_MAX: f64 = 2.0;
/// Rounds that lie further apart than this decide nothing about so few round trips.
const ROUND_TRIPS_SPREAD_MAX: f64 = 2.0 * ROUND_TRIPS_MAX;

/// One criterion and how it came out.
pub struct Verdict {
    pub text: String,
    /// None if what it needs was not measured.
    pub value: Option<f64>,
    pub limit: f64,
    /// The rounds lie too far apart to decide it.
    pub noisy: bool,
}

impl Verdict {
    /// None if it was not measured, or is not decided.
    pub fn is_met(&self) -> Option<bool> {
        let value = self.value.filter(|_| !self.noisy);
        value.map(|value| value <= self.limit)
    }
}

/// The criteria of a scenario.
pub fn judge(series: &Series) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut noisy = false;
    let mut add = |text: &str, value: Option<f64>, limit: f64| {
        verdicts.push(Verdict {
            text: text.to_owned(),
            value,
            limit,
            noisy: false,
        });
    };
    let row = |tool| series.row(tool, PLAIN);
    let ours = row(RBLOCKSYNC);
    let to = |theirs: Option<&Row>, of: Of| Some(ratio(ours?, theirs?, of));
    let wire_to = |bytes: Option<u64>| Some(ours?.wire() as f64 / bytes? as f64);
    match series.scenario.name {
        "a" => {
            let mut copies: Vec<&Row> = [TAR, QEMU_IMG].into_iter().filter_map(row).collect();
            copies.sort_by(|a, b| a.wall_s().total_cmp(&b.wall_s()));
            let best = copies.first().copied();
            let name = best.map_or("tar, qemu-img", |r| r.tool.name.as_str());
            let text = format!("wall, to the best of tar and qemu-img ({name})");
            add(&text, to(best, wall), 0.8);
            add("wire, to zstd -1 of the data", wire_to(series.zstd), 1.05);
        }
        "b" | "g" => {
            let text = "wall less start-up, to b3sum of both files";
            add(text, to(row(B3SUM), less_start_up), 1.3);
            let text = "wall less start-up, to rsync's";
            add(text, to(row(RSYNC), less_start_up), 0.6);
            add("wire, to the data", wire_to(Some(series.data)), 0.0001);
        }
        "c" => {
            add("wall, to rsync's", to(row(RSYNC), wall), 0.25);
            let changed = wire_to(Some(series.changed));
            add("wire, to the changed bytes", changed, 1.1);
            let allocated = ours.map(|r| r.median(|s| s.allocated as f64));
            let times = allocated.map(|a| a / series.src_allocated as f64);
            add("allocated, to the source's", times, NO_LARGER);
        }
        "d" => add("wall, to rsync's", to(row(RSYNC), wall), 0.1),
        "e" => {
            let trips = round_trips(series, RBLOCKSYNC);
            let more = trips.as_ref().map(|t| t.all - t.start_up);
            let text = "round trips more than over loopback";
            add(text, more, ROUND_TRIPS_MAX);
            noisy = trips.is_some_and(|t| t.range.1 - t.range.0 > ROUND_TRIPS_SPREAD_MAX);
        }
        "f" => {
            let alone = series.row(RBLOCKSYNC, ALONE);
            add("wall, to the same data alone", to(alone, wall), 1.5);
        }
        _ => {}
    }
    let mib = |rss: fn(&Sample) -> u64| ours.map(|r| r.rss(rss) as f64 / MIB as f64);
    add("RSS MiB, source", mib(|s| s.source_rss), RSS_MIB_MAX);
    add("RSS MiB, target", mib(|s| s.target_rss), RSS_MIB_MAX);
    // It is about the first criterion of such a scenario, never about memory.
    if let Some(first) = verdicts.first_mut() {
        first.noisy = noisy;
    }
    verdicts
}

/// By how many round trips a tool takes longer through the relay.
pub struct RoundTrips {
    /// The median over the rounds.
    pub all: f64,
    /// The least and the most that a round had. Far apart, the rest of the machine is what was measured.
    pub range: (f64, f64),
    /// What of it is start-up.
    pub start_up: f64,
}

/// None if one of the two ways was not measured.
pub fn round_trips(series: &Series, tool: &str) -> Option<RoundTrips> {
    let (near, far) = (series.row(tool, PLAIN)?, series.row(tool, FAR)?);
    let trip = ROUND_TRIP.as_secs_f64();
    let rounds = near.samples.iter().zip(&far.samples);
    let more: Vec<f64> = rounds.map(|(n, f)| (f.wall_s - n.wall_s) / trip).collect();
    Some(RoundTrips {
        range: (
            more.iter().copied().fold(f64::INFINITY, f64::min),
            more.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        ),
        all: median(more),
        start_up: (far.start_up_s - near.start_up_s) / trip,
    })
}

type Of = fn(&Row, &Sample) -> f64;

fn wall(_: &Row, sample: &Sample) -> f64 {
    sample.wall_s
}

fn less_start_up(row: &Row, sample: &Sample) -> f64 {
    row.less_start_up_s(sample)
}

/// The median of the ratios within a round: what else the machine did then hurt both.
pub fn ratio(ours: &Row, theirs: &Row, of: Of) -> f64 {
    let rounds = ours.samples.iter().zip(&theirs.samples);
    median(rounds.map(|(o, t)| of(ours, o) / of(theirs, t)).collect())
}

/// How many times as long as rblocksync a row took.
pub fn times_ours(series: &Series, row: &Row) -> Option<f64> {
    let ours = series.row(RBLOCKSYNC, row.case)?;
    Some(ratio(row, ours, wall))
}
