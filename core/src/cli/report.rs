//! What the user sees while work goes on: bars on a terminal, plain lines in a pipe, JSON for machines.

use super::always_term::AlwaysTerm;
use super::units::{human, printable};
use crate::error::Error;
use crate::sync::{Meter, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{json, Value};
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// When to show live progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ProgressMode {
    /// A live line on a terminal, a line every ten seconds otherwise.
    #[default]
    Auto,
    /// A live line even if the output is not a terminal.
    Always,
    /// None.
    Never,
}

/// Options about output that all commands have.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct OutputOptions {
    /// Print nothing but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print events and the result as JSON, one object a line, on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Show live progress
    #[arg(long, value_enum, default_value_t, global = true, value_name = "WHEN")]
    pub progress: ProgressMode,
}

/// Prints what happens, in the way that was asked for.
pub struct Reporter {
    quiet: bool,
    json: bool,
    bars: Option<MultiProgress>,
    lines: bool,
    mode: ProgressMode,
}

/// Seconds between progress lines in a pipe.
const LINE_EVERY_S: u64 = 10;

impl Reporter {
    /// A reporter for these options and the terminal at hand.
    pub fn new(options: OutputOptions) -> Self {
        let live = match options.progress {
            ProgressMode::Auto => std::io::stderr().is_terminal(),
            ProgressMode::Always => true,
            ProgressMode::Never => false,
        };
        let shown = !options.quiet && options.progress != ProgressMode::Never;
        let bars = || {
            MultiProgress::with_draw_target(match std::io::stderr().is_terminal() {
                true => ProgressDrawTarget::stderr_with_hz(8),
                // That one would show nothing where there is no terminal.
                false => ProgressDrawTarget::term_like_with_hz(Box::new(AlwaysTerm), 8),
            })
        };
        Reporter {
            quiet: options.quiet,
            json: options.json,
            bars: (shown && live && !options.json).then(bars),
            lines: shown && !live,
            mode: options.progress,
        }
    }

    /// Whether output is for machines.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether people are watching who like a picture at the end.
    pub fn draws(&self) -> bool {
        let watched = match self.mode {
            ProgressMode::Auto => std::io::stdout().is_terminal(),
            ProgressMode::Always => true,
            ProgressMode::Never => false,
        };
        watched && !self.quiet && !self.json
    }

    /// Tells of something that happened: `text` for people, `event` for machines.
    pub fn say(&self, text: impl AsRef<str>, event: Value) {
        if self.json {
            print_line(&event.to_string());
        } else if !self.quiet {
            match &self.bars {
                Some(bars) => bars.suspend(|| print_line(text.as_ref())),
                None => print_line(text.as_ref()),
            }
        }
    }

    /// Tells of something that the user should know.
    pub fn note(&self, note: &str) {
        self.say(
            format!("  note: {note}"),
            json!({"event": "note", "text": note}),
        );
    }

    /// Tells of several such things.
    pub fn notes<'n>(&self, notes: impl IntoIterator<Item = &'n String>) {
        notes.into_iter().for_each(|note| self.note(note));
    }

    /// Tells of a failure; errors are printed even when quiet.
    pub fn fail(&self, program: &str, error: &Error) {
        if self.json {
            print_line(
                &json!({
                    "event": "error",
                    "kind": error.kind(),
                    "message": error.message(),
                    "advice": error.advice(),
                    "runbook": error.runbook(),
                })
                .to_string(),
            );
        }
        let message = printable(&error.message());
        let text = match error.remedy() {
            Some(remedy) => format!(
                "{program}: {message}\n{program}: hint: {}",
                printable(&remedy)
            ),
            None => format!("{program}: {message}"),
        };
        let written = writeln!(std::io::stderr(), "{text}");
        drop(written);
    }

    /// Shows the progress of `meter` under `name` until the watch is dropped.
    pub fn watch(&self, name: &str, meter: Arc<Meter>) -> Option<Watch> {
        let name = match self.json {
            true => name.to_owned(),
            false => printable(name),
        };
        let json = self.json && !self.quiet;
        let bar = self.bars.as_ref().map(|bars| bars.add(new_bar(&name)));
        if bar.is_none() && !json && !self.lines {
            return None;
        }
        let period = match (&bar, json) {
            (Some(_), _) => Duration::from_millis(125),
            (None, true) => Duration::from_secs(1),
            (None, false) => Duration::from_secs(LINE_EVERY_S),
        };
        let (ended, end) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || {
                let began = Instant::now();
                while end.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                    let now = meter.read();
                    match &bar {
                        Some(bar) => update(bar, &now),
                        None if json => print_line(&progress_event(&name, &now).to_string()),
                        None => {
                            let written = writeln!(
                                std::io::stderr(),
                                "{}",
                                line(&name, &now, began.elapsed())
                            );
                            drop(written);
                        }
                    }
                }
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
            });
        thread.ok().map(|thread| Watch {
            ended: Some(ended),
            thread: Some(thread),
        })
    }
}

/// Shows progress as long as it lives.
pub struct Watch {
    ended: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended = None;
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            drop(joined);
        }
    }
}

/// Prints to standard output; a reader that went away is no reason to fail.
fn print_line(text: &str) {
    let written = writeln!(std::io::stdout().lock(), "{text}");
    drop(written);
}

fn new_bar(name: &str) -> ProgressBar {
    let bar = ProgressBar::new(1);
    let template = "{prefix} [{bar:24}] {percent:>3}% {binary_bytes_per_sec} ETA {eta} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(name.to_owned());
    bar
}

fn update(bar: &ProgressBar, now: &Progress) {
    bar.set_length(now.total.max(1));
    bar.set_position(now.position);
    bar.set_message(counts(now));
}

fn counts(now: &Progress) -> String {
    format!(
        "compared {} changed {} zero {} sent {}",
        human(now.compared),
        human(now.changed),
        human(now.zeroed),
        human(now.sent)
    )
}

fn line(name: &str, now: &Progress, elapsed: Duration) -> String {
    let percent = now.position * 100 / now.total.max(1);
    let rate = now.position as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "{name}: {percent}%, {}/s, {}",
        human(rate as u64),
        counts(now)
    )
}

fn progress_event(name: &str, now: &Progress) -> Value {
    json!({
        "event": "progress",
        "name": name,
        "total": now.total,
        "position": now.position,
        "compared": now.compared,
        "changed": now.changed,
        "zeroed": now.zeroed,
        "sent": now.sent,
    })
}
