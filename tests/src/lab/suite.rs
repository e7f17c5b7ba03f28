//! Runs the tests of one file one after the other on one lab: it comes up with the first and goes with the last.
//!
//! For test targets with `harness = false`. All options of cargo test's own harness work.

use super::{Lab, Options, Result};
use crate::processor::seconds_of_children;
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A test: fails by a panic or an error.
pub type Test = fn(&Lab) -> Result<()>;

/// Tests for [`run`], with their paths as names.
#[macro_export]
macro_rules! named {
    ($($test:path),+ $(,)?) => {
        &[$((stringify!($test), $test)),+]
    };
}

/// Runs the named tests in this order. The first failure leaves the rest running on the same lab; what a test changes
/// is the next one's start, so each makes what it needs.
#[must_use]
pub fn run(options: Options, tests: &[(&str, Test)]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let lab: Arc<Mutex<Option<Lab>>> = Arc::default();
    let trials = tests.iter().map(|(name, test)| {
        let (lab, options, test) = (Arc::clone(&lab), options.clone(), *test);
        Trial::test(*name, move || on_lab(&lab, &options, test))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Before the exit, which runs no destructors.
    drop(lab.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

fn on_lab(lab: &Mutex<Option<Lab>>, options: &Options, test: Test) -> Result<(), Failed> {
    // A failed test poisons the lock; the lab is as good as before.
    let mut lab = lab.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = match &mut *lab {
        Some(lab) => lab,
        none => none.insert(Lab::up(options.clone())?),
    };
    let (began, spent) = (Instant::now(), seconds_of_children());
    let result = test(lab);
    println!(
        "{:.0} s, {:.0} s of processors",
        began.elapsed().as_secs_f64(),
        seconds_of_children() - spent
    );
    Ok(result?)
}
