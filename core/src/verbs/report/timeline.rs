//! The generations of a replication on a line of time. Places are in percent and sizes in pixels, so that it fits any
//! width and its text stays as large as other text.

use super::facts::{Marks, Point};
use super::words::{minute, span};
use crate::cli::units::human;
use crate::journal::RunRecord;
use crate::snapshot::Consistency;
use jiff::Timestamp;
use maud::{html, Markup};

/// Marks on a line: with more, neighbours become one.
const MARKS_MAX: usize = 72;
/// Failed runs on a line, of the newest.
const FAILURES_MAX: usize = 24;
/// Where the line of time is, in pixels from above, and how high the highest bar on it is.
const BASE: f64 = 62.0;
const BAR_MIN: f64 = 8.0;
const BAR_MAX: f64 = 40.0;
/// What is left free at both ends, in percent.
const LEFT: f64 = 2.0;
const RIGHT: f64 = 97.0;
/// What may lie between two labels, in seconds.
const STEPS_S: [u64; 16] = [
    60, 300, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600,
    2_592_000, 7_776_000, 31_536_000,
];
/// Labels besides the one for now.
const LABELS_MAX: u64 = 3;

/// From when to when a line goes.
struct Axis {
    start_s: i64,
    end_s: i64,
}

impl Axis {
    /// All generations, and as much of the past as the limit covers.
    fn of(points: &[Point], now: Timestamp, rpo_s: Option<u64>) -> Axis {
        let now_s = now.as_second();
        let oldest = points.iter().map(|p| p.taken_at.as_second()).min();
        let limit_s = i64::try_from(rpo_s.unwrap_or(0)).unwrap_or(i64::MAX);
        let limit = now_s.saturating_sub(limit_s.saturating_mul(3) / 2);
        let start_s = oldest.unwrap_or(now_s).min(limit);
        // Within a minute there would be nothing to see.
        let start_s = start_s.min(now_s.saturating_sub(60));
        Axis {
            start_s,
            end_s: now_s,
        }
    }

    fn span_s(&self) -> u64 {
        self.end_s
            .saturating_sub(self.start_s)
            .max(1)
            .unsigned_abs()
    }

    /// Where a second is, in percent of the width.
    fn at(&self, second: i64) -> f64 {
        let from_start = second.clamp(self.start_s, self.end_s) - self.start_s;
        LEFT + from_start as f64 * (RIGHT - LEFT) / self.span_s() as f64
    }

    /// Round distances from now that are labelled, in seconds.
    fn labels(&self) -> Vec<u64> {
        let is_enough = |step: &&u64| self.span_s() / **step <= LABELS_MAX;
        let step = *STEPS_S.iter().find(is_enough).unwrap_or(&STEPS_S[15]);
        let count = (self.span_s() / step).min(LABELS_MAX);
        (1..=count).map(|n| n * step).collect()
    }
}

/// One mark, for one generation or for several.
struct Mark<'a> {
    /// The newest of them.
    newest: &'a Point,
    /// The oldest of them.
    oldest: &'a Point,
    count: usize,
    sent: u64,
    marks: Marks,
}

impl Mark<'_> {
    /// `None` of nothing.
    fn of(group: &[Point]) -> Option<Mark<'_>> {
        let latest =
            |of: fn(&Marks) -> Option<Timestamp>| group.iter().filter_map(|p| of(&p.marks)).max();
        Some(Mark {
            newest: group.last()?,
            oldest: group.first()?,
            count: group.len(),
            sent: group.iter().map(|p| p.sent).max().unwrap_or(0),
            marks: Marks {
                pinned: group.iter().any(|p| p.marks.pinned),
                verified: latest(|m| m.verified),
                partly: latest(|m| m.partly),
                damaged: latest(|m| m.damaged),
                booted: latest(|m| m.booted),
            },
        })
    }
}

/// As many in each as are needed. What somebody has done with one of them is not hidden by the others.
fn gather(points: &[Point]) -> Vec<Mark<'_>> {
    let each = points.len().div_ceil(MARKS_MAX).max(1);
    // Counted from the newest, which is what matters most.
    let mut marks: Vec<Mark> = points.rchunks(each).filter_map(Mark::of).collect();
    marks.reverse();
    marks
}

/// Draws the line. Nothing if there is no generation.
pub(super) fn draw(
    points: &[Point],
    runs: &[RunRecord],
    now: Timestamp,
    rpo_s: Option<u64>,
) -> Markup {
    let Some((first, last)) = points.first().zip(points.last()) else {
        return html! {};
    };
    let axis = Axis::of(points, now, rpo_s);
    let marks = gather(points);
    let most = points.iter().map(|p| p.sent).max().unwrap_or(0);
    let failures: Vec<&RunRecord> = runs
        .iter()
        .rev()
        .filter(|run| run.error.is_some() || run.was_cut_off())
        .filter(|run| run.began_at.as_second() >= axis.start_s)
        .take(FAILURES_MAX)
        .collect();
    let what = format!(
        "Generations {} to {}, taken between {} and {} UTC; {} runs that failed",
        first.name,
        last.name,
        minute(first.taken_at),
        minute(last.taken_at),
        failures.len()
    );
    html! {
        svg.timeline width="100%" height="92" role="img" aria-label=(what) {
            @if let Some(rpo_s) = rpo_s {
                @let from = axis.at(now.as_second().saturating_sub_unsigned(rpo_s));
                rect.window x=(pct(from)) y="6" width=(pct(RIGHT - from)) height=(BASE - 6.0) rx="3" {
                    title { "younger than the limit of " (span(rpo_s)) }
                }
            }
            line.axis x1="0" x2="100%" y1=(BASE) y2=(BASE) {}
            @for mark in &marks {
                (bar(mark, &axis, most))
            }
            @for run in failures {
                svg.failure x=(pct(axis.at(run.began_at.as_second()))) y="70" {
                    title { "a run failed at " (minute(run.began_at)) " UTC" }
                    path d="M-3-3 3 3M3-3-3 3" {}
                }
            }
            text x=(pct(RIGHT)) y="89" text-anchor="end" { "now" }
            @for ago_s in axis.labels() {
                @let x = axis.at(axis.end_s.saturating_sub_unsigned(ago_s));
                // At the left edge it would be cut, and at the right one it would cover "now".
                @if (6.0..86.0).contains(&x) {
                    line.tick x1=(pct(x)) x2=(pct(x)) y1=(BASE) y2=(BASE + 5.0) {}
                    text x=(pct(x)) y="89" text-anchor="middle" { (span(ago_s)) }
                }
            }
        }
    }
}

fn bar(mark: &Mark, axis: &Axis, most: u64) -> Markup {
    let height = height(mark.sent, most);
    let top = BASE - height;
    let point = mark.newest;
    html! {
        svg.generation x=(pct(axis.at(point.taken_at.as_second()))) {
            title { (tell(mark)) }
            line x1="0" x2="0" y1=(BASE) y2=(top) {}
            @match point.consistency {
                Consistency::Filesystem => { circle.solid cx="0" cy=(top) r="4" {} }
                Consistency::Crash => { circle.hollow cx="0" cy=(top) r="3.5" {} }
                Consistency::Offline => { rect.solid x="-3.5" y=(top - 3.5) width="7" height="7" {} }
            }
            @if mark.marks.pinned {
                path.pin d=(format!("M-4 {0}h8l-4 6z", top - 15.0)) {}
            }
            @if mark.marks.booted.is_some() || mark.marks.verified.is_some() {
                path.checked d=(format!("M-4 {0}l3 3 6-7", BASE + 8.0)) {}
            }
        }
    }
}

/// What is shown when somebody points at it.
fn tell(mark: &Mark) -> String {
    let point = mark.newest;
    let mut text = match mark.count {
        1 => format!("{}, {} UTC", point.name, minute(point.taken_at)),
        n => format!(
            "{} to {}, {n} generations until {} UTC",
            mark.oldest.name,
            point.name,
            minute(point.taken_at)
        ),
    };
    text.push_str(&format!(
        ", {}, {} sent",
        point.consistency,
        human(mark.sent)
    ));
    for (is, word) in [
        (mark.marks.pinned, ", pinned"),
        (mark.marks.verified.is_some(), ", verified"),
        (mark.marks.booted.is_some(), ", booted in a test"),
    ] {
        if is {
            text.push_str(word);
        }
    }
    text
}

/// By the size's order of magnitude: a first sync is thousands of times as large as what follows.
fn height(sent: u64, most: u64) -> f64 {
    let size = |bytes: u64| (bytes as f64 / 65_536.0).ln_1p();
    let share = match most {
        0 => 0.0,
        _ => size(sent) / size(most),
    };
    // A tenth of a pixel is enough.
    ((BAR_MIN + (BAR_MAX - BAR_MIN) * share) * 10.0).round() / 10.0
}

fn pct(percent: f64) -> String {
    format!("{percent:.2}%")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 0).unwrap()
    }

    fn points(count: i64, every_s: i64) -> Vec<Point> {
        let point = |n| Point {
            name: format!("rbs{n}"),
            epoch: 1,
            taken_at: at(n * every_s),
            consistency: Consistency::Crash,
            sent: 1 << 20,
            marks: Marks {
                pinned: n == 1,
                ..Marks::default()
            },
        };
        (1..=count).map(point).collect()
    }

    #[test]
    fn a_thousand_generations_take_no_more_room_than_a_few() {
        let points = points(1000, 900);
        let marks = gather(&points);
        assert!(marks.len() <= MARKS_MAX, "{}", marks.len());
        assert_eq!(marks.iter().map(|m| m.count).sum::<usize>(), 1000);
        assert_eq!(marks.last().unwrap().newest.name, "rbs1000");
        assert!(marks[0].marks.pinned && !marks[1].marks.pinned);
        let drawn = draw(&points, &[], at(1000 * 900), Some(900)).into_string();
        assert!(drawn.len() < 30_000, "{}", drawn.len());
    }

    #[test]
    fn the_newest_is_at_its_age_and_nothing_is_outside() {
        let now = at(100_000);
        let axis = Axis::of(&points(3, 10_000), now, Some(900));
        assert_eq!((axis.start_s, axis.end_s), (10_000, 100_000));
        assert!((axis.at(55_000) - (LEFT + RIGHT) / 2.0).abs() < 0.1);
        assert!(axis.at(1 << 40) <= RIGHT && axis.at(-5) >= LEFT);
        assert_eq!(axis.labels(), [43_200, 86_400]);
        for (span, count) in [(1, 1), (3600, 2), (86_400, 2), (1 << 40, 3)] {
            let axis = Axis {
                start_s: -span,
                end_s: 0,
            };
            assert!(
                axis.labels().len() <= 3 && axis.labels().len() + 1 >= count,
                "{span}"
            );
        }
    }

    #[test]
    fn times_at_the_ends_of_what_can_be_said_do_no_harm() {
        let points = [Point {
            taken_at: Timestamp::MIN,
            ..points(1, 1).remove(0)
        }];
        let drawn = draw(&points, &[], Timestamp::MAX, Some(u64::MAX)).into_string();
        assert!(drawn.contains("rbs1") && !drawn.contains("NaN"));
    }

    #[test]
    fn bars_differ_by_orders_of_magnitude() {
        let most = 1 << 40;
        let heights = [0, 1 << 20, 1 << 30, most].map(|sent| height(sent, most));
        assert!(heights.is_sorted() && heights[0] == BAR_MIN && heights[3] == BAR_MAX);
        assert!(heights[1] > heights[0] + 3.0);
        assert_eq!(height(0, 0), BAR_MIN);
    }
}
