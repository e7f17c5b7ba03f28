//! The table of a scenario, and the same as JSON.

use crate::criteria::{self, Verdict};
use crate::measure::Sample;
use crate::scenario::START_UP;
use crate::series::{Row, Series, FAR, PLAIN};
use crate::tools::{RBLOCKSYNC, RSYNC};
use serde_json::{json, Value};

const MIB: f64 = (1 << 20) as f64;

/// Prints the table, then the criteria.
pub fn print(series: &Series, verdicts: &[Verdict]) {
    let name_width = series.rows.iter().map(|r| label(r).len()).max();
    let width = name_width.unwrap_or(0).max(10);
    println!(
        "  {:<width$} {:>8} {:>15} {:>8} {:>7} {:>7} {:>10} {:>7} {:>7} {:>9} {:>6}",
        "tool",
        "wall s",
        "min-max",
        "less s-u",
        "cpu src",
        "cpu tgt",
        "wire MB",
        "RSS src",
        "RSS tgt",
        "du MB",
        "x"
    );
    for row in &series.rows {
        print_row(series, row, width);
    }
    println!(
        "  the source: {} bytes, {:.1} MB of data, {:.1} MB allocated",
        series.size,
        series.data as f64 / 1e6,
        series.src_allocated as f64 / 1e6
    );
    for tool in [RBLOCKSYNC, RSYNC] {
        // Of its own start-up nothing can be taken off.
        if series.scenario.name == START_UP.name {
            break;
        }
        if let Some(trips) = criteria::round_trips(series, tool) {
            println!(
                "  {tool} takes {:.1} round trips more at {FAR} (by round: {:.1} to {:.1}); its start-up takes {:.1} of them",
                trips.all, trips.range.0, trips.range.1, trips.start_up
            );
        }
    }
    for verdict in verdicts {
        let met = match verdict.is_met() {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None if verdict.noisy => "too noisy to tell",
            None => "not measured",
        };
        let value = verdict.value.map_or("-".to_owned(), short);
        println!(
            "  {:<52} {value:>9} of {:<7} {met}",
            verdict.text,
            short(verdict.limit)
        );
    }
}

fn print_row(series: &Series, row: &Row, width: usize) {
    let name = label(row);
    if let Some(failure) = &row.failure {
        println!("  {name:<width$} failed: {failure}");
        return;
    }
    let walls = || row.samples.iter().map(|s| s.wall_s);
    let range = format!(
        "{:.2}-{:.2}",
        walls().fold(f64::INFINITY, f64::min),
        walls().fold(0.0, f64::max)
    );
    let larger = if is_as_sparse(series, row) { "" } else { "!" };
    let times = criteria::times_ours(series, row);
    println!(
        "  {name:<width$} {:>8.2} {range:>15} {:>8.2} {:>7.2} {:>7.2} {:>10.3} {:>7.1} {:>7} {:>9} {:>6}",
        row.wall_s(),
        row.median(|s| row.less_start_up_s(s)),
        row.median(|s| s.source_cpu_s),
        row.median(|s| s.target_cpu_s),
        row.wire() as f64 / 1e6,
        row.rss(|s| s.source_rss) as f64 / MIB,
        target_rss(row).map_or("-".to_owned(), |rss| format!("{:.1}", rss as f64 / MIB)),
        format!("{larger}{:.1}", row.median(|s| s.allocated as f64 / 1e6)),
        times.map_or("-".to_owned(), |t| format!("{t:.2}")),
    );
}

/// Allocates no more than 1 % more than the source; a MiB makes no difference.
fn is_as_sparse(series: &Series, row: &Row) -> bool {
    row.median(|s| s.allocated as f64) <= series.src_allocated as f64 * 1.01 + MIB
}

/// None if the tool started nothing there that is recorded.
fn target_rss(row: &Row) -> Option<u64> {
    Some(row.rss(|s| s.target_rss)).filter(|rss| *rss > 0)
}

fn label(row: &Row) -> String {
    match row.case {
        PLAIN => row.tool.name.clone(),
        case => format!("{}, {case}", row.tool.name),
    }
}

/// Three digits, or as many as the integer part has.
fn short(value: f64) -> String {
    match value.abs() {
        a if a >= 100.0 => format!("{value:.0}"),
        a if a >= 10.0 => format!("{value:.1}"),
        a if a >= 0.1 || a == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.6}"),
    }
}

/// The scenario with every sample.
pub fn json(series: &Series, verdicts: &[Verdict]) -> Value {
    let rows: Vec<Value> = series.rows.iter().map(|r| row_json(series, r)).collect();
    let criteria: Vec<Value> = verdicts
        .iter()
        .map(|v| json!({"text": v.text, "value": v.value, "limit": v.limit, "met": v.is_met(), "noisy": v.noisy}))
        .collect();
    json!({
        "scenario": series.scenario.name,
        "text": series.scenario.text,
        "size": series.size,
        "data": series.data,
        "changed": series.changed,
        "allocated": series.src_allocated,
        "zstd_1": series.zstd,
        "rows": rows,
        "criteria": criteria,
    })
}

fn row_json(series: &Series, row: &Row) -> Value {
    let sample = |s: &Sample| {
        json!({
            "wall_s": s.wall_s,
            "source_cpu_s": s.source_cpu_s,
            "target_cpu_s": s.target_cpu_s,
            "others_cpu_s": s.others_cpu_s,
            "wire": s.wire,
            "source_rss": s.source_rss,
            "target_rss": s.target_rss,
            "allocated": s.allocated,
        })
    };
    json!({
        "tool": row.tool.name,
        "case": row.case,
        "failure": row.failure,
        "start_up_s": row.start_up_s,
        "wall_s": row.wall_s(),
        "source_cpu_s": row.median(|s| s.source_cpu_s),
        "target_cpu_s": row.median(|s| s.target_cpu_s),
        "wire": row.wire(),
        "source_rss": row.rss(|s| s.source_rss),
        "target_rss": target_rss(row),
        "allocated": row.median(|s| s.allocated as f64),
        "times_rblocksync": criteria::times_ours(series, row),
        "samples": row.samples.iter().map(sample).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_small_ones_are_seen() {
        assert_eq!(short(1234.5), "1234");
        assert_eq!(short(12.34), "12.3");
        assert_eq!(short(0.8), "0.80");
        assert_eq!(short(0.0001), "0.000100");
    }
}
