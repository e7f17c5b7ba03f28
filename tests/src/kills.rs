//! Where programs under test are to die.

/// Where the driver of a live move can die before it gives the VM up: the guest goes on where it was.
pub const BEFORE_GIVING_UP: [&str; 13] = [
    "handover begun",
    "journal stop",
    "paused",
    "stopped",
    "journal transfer",
    "journal seal",
    "last sync",
    "handover kept",
    "journal memory",
    "received",
    "memory sent",
    "keeper bound",
    "journal retire",
];

/// Of places to die at, every third one and the last, as dying and coming back takes minutes here: all of them if `LAB_KILLS`
/// is set. That each is survived is shown on files, too, where it takes seconds.
pub fn some_of<'a>(points: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let step = match std::env::var_os("LAB_KILLS") {
        Some(_) => 1,
        None => 3,
    };
    let skipped = points.len().saturating_sub(1) % step;
    points.iter().skip(skipped).step_by(step).copied()
}
