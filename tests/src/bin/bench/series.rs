//! The rounds of one scenario: which tool on which images by which way, and what was seen.

use crate::ends::{Ends, Way};
use crate::images::Images;
use crate::measure::{self, median, Places, Sample};
use crate::scenario::{Before, Scenario, Shape};
use crate::tools::{Tool, RBLOCKSYNC};
use crate::Outcome;
use std::path::Path;

/// The case of a row that runs as all the others do.
pub const PLAIN: &str = "";
/// The same data in an image without holes.
pub const ALONE: &str = "1 GiB alone";
/// Through the relay.
pub const FAR: &str = "20 ms RTT";

/// One tool in one case.
pub struct Row {
    pub tool: Tool,
    pub case: &'static str,
    pub way: Way,
    images: usize,
    /// Seconds that the tool takes for a file of 4 KiB by this way.
    pub start_up_s: f64,
    /// One a round.
    pub samples: Vec<Sample>,
    /// Why it was given up.
    pub failure: Option<String>,
}

impl Row {
    /// The middle of something over the rounds.
    pub fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(of).collect())
    }

    pub fn wall_s(&self) -> f64 {
        self.median(|s| s.wall_s)
    }

    /// Of one round, never less than a millisecond.
    pub fn less_start_up_s(&self, sample: &Sample) -> f64 {
        (sample.wall_s - self.start_up_s).max(0.001)
    }

    /// Other traffic on loopback only adds to what is counted.
    pub fn wire(&self) -> u64 {
        self.samples.iter().map(|s| s.wire).min().unwrap_or(0)
    }

    pub fn rss(&self, of: impl Fn(&Sample) -> u64) -> u64 {
        self.samples.iter().map(of).max().unwrap_or(0)
    }
}

/// A scenario's rows.
pub struct Series {
    pub scenario: Scenario,
    pub rows: Vec<Row>,
    /// Of the source as the scenario has it.
    pub size: u64,
    pub data: u64,
    pub changed: u64,
    pub src_allocated: u64,
    /// What `zstd -1` makes of the source's data; only for a first copy.
    pub zstd: Option<u64>,
}

impl Series {
    /// The row of a tool in a case, if it was not given up.
    pub fn row(&self, tool: &str, case: &str) -> Option<&Row> {
        let mut rows = self.rows.iter();
        rows.find(|r| r.tool.name == tool && r.case == case && r.failure.is_none())
    }
}

/// Runs a scenario: all rows in turn, `rounds` times. `start_up` is what was seen of small files.
pub fn run(
    scenario: Scenario,
    tools: &[Tool],
    rounds: usize,
    start_up: Option<&Series>,
    ends: &Ends,
    dir: &Path,
) -> Outcome<Series> {
    let mut images = vec![Images::build(
        dir,
        "image",
        scenario.shape,
        scenario.before,
    )?];
    let mut cases = vec![(PLAIN, Way::Near, 0)];
    if scenario.both_ways {
        cases.push((FAR, Way::Far, 0));
    }
    if scenario.beside_alone {
        let shape = Shape {
            size: scenario.shape.data,
            stretches: 1,
            ..scenario.shape
        };
        images.push(Images::build(dir, "alone", shape, scenario.before)?);
        cases.push((ALONE, Way::Near, 1));
    }
    let mut rows = Vec::new();
    for tool in tools.iter().filter(|t| t.fits(&scenario)) {
        let own = cases
            .iter()
            .filter(|(case, ..)| *case != ALONE || tool.name == RBLOCKSYNC);
        rows.extend(own.map(|&(case, way, images)| Row {
            tool: tool.clone(),
            case,
            way,
            images,
            start_up_s: start_up_of(&tool.name, way, start_up),
            samples: Vec::new(),
            failure: None,
        }));
    }
    let dst = dir.join("copy.img");
    for _ in 0..rounds {
        for row in rows.iter_mut().filter(|r| r.failure.is_none()) {
            let images = &images[row.images];
            images.restore(&dst)?;
            let places = Places {
                src: &images.src,
                dst: &dst,
                way: row.way,
            };
            match sample(&row.tool, places, images, ends) {
                Ok(sample) => row.samples.push(sample),
                Err(error) => row.failure = Some(error.to_string()),
            }
            measure::remove(&dst)?;
        }
    }
    let first = &images[0];
    let series = Series {
        scenario,
        rows,
        size: first.size,
        data: first.data,
        changed: first.changed,
        src_allocated: measure::allocated(&first.src)?,
        zstd: match scenario.before {
            Before::Nothing => crate::zstd::compressed(&first.src)?,
            _ => None,
        },
    };
    images.iter().try_for_each(Images::remove)?;
    Ok(series)
}

fn sample(tool: &Tool, places: Places, images: &Images, ends: &Ends) -> Outcome<Sample> {
    let sample = measure::run(&tool.script, places, ends)?;
    if tool.writes() {
        images.check_equal(places.dst)?;
    }
    Ok(sample)
}

fn start_up_of(tool: &str, way: Way, start_up: Option<&Series>) -> f64 {
    let rows = start_up.iter().flat_map(|series| &series.rows);
    let mut own = rows.filter(|r| r.tool.name == tool && r.way == way && r.failure.is_none());
    own.next().map_or(0.0, Row::wall_s)
}
