//! Runs the tests of one file one after the other on one bed: it comes up with the first and goes with the last.
//!
//! For test targets with `harness = false`. All options of cargo test's own harness work.

use super::{Bed, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A test: fails by a panic or an error.
pub type Test = fn(&Bed) -> Result<()>;

/// Runs the named tests ([`named!`](crate::named)) in this order. The first failure leaves the rest running on the same
/// bed; what a test changes is the next one's start, so each makes what it needs.
#[must_use]
pub fn run(tests: &[(&str, Test)]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let bed: Arc<Mutex<Option<Bed>>> = Arc::default();
    let trials = tests.iter().map(|(name, test)| {
        let (bed, test) = (Arc::clone(&bed), *test);
        Trial::test(*name, move || on_bed(&bed, test))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Before the exit, which runs no destructors.
    drop(bed.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

fn on_bed(bed: &Mutex<Option<Bed>>, test: Test) -> Result<(), Failed> {
    // A failed test poisons the lock; the bed is as good as before.
    let mut bed = bed.lock().unwrap_or_else(PoisonError::into_inner);
    let bed = match &mut *bed {
        Some(bed) => bed,
        none => none.insert(Bed::up()?),
    };
    let began = Instant::now();
    let result = test(bed);
    println!("{:.0} s", began.elapsed().as_secs_f64());
    Ok(result?)
}
