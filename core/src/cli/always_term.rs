//! Standard error taken for a terminal whatever it is: for `--progress always`.

use indicatif::TermLike;
use std::io::{self, Write};

/// Draws with the usual escape sequences, at the usual width.
#[derive(Debug)]
pub(super) struct AlwaysTerm;

fn put(text: &str) -> io::Result<()> {
    io::stderr().write_all(text.as_bytes())
}

fn step(n: usize, direction: char) -> io::Result<()> {
    match n {
        0 => Ok(()),
        n => put(&format!("\x1b[{n}{direction}")),
    }
}

impl TermLike for AlwaysTerm {
    fn width(&self) -> u16 {
        120
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        step(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        step(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        step(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        step(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        put(s).and_then(|()| put("\n"))
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        put(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        put("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().flush()
    }
}
