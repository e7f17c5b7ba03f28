//! A terminal for the program to write to.

use rustix::fs::OFlags;
use rustix::pty::{grantpt, openpt, ptsname, unlockpt, OpenptFlags};
use rustix::termios::{tcsetwinsize, Winsize};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

/// A pseudo-terminal, of so many columns if that is given: the program's end, and ours.
pub fn terminal(columns: Option<u16>) -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .expect("a pseudo-terminal");
    grantpt(&ours).expect("a pseudo-terminal");
    unlockpt(&ours).expect("a pseudo-terminal");
    let name = ptsname(&ours, Vec::new()).expect("a pseudo-terminal");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).expect("its other end");
    if let Some(ws_col) = columns {
        let size = Winsize {
            ws_row: 24,
            ws_col,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&ours, size).expect("a size");
    }
    (theirs, ours)
}

/// Reads what our end gets, until the other one is closed everywhere: by the command that was given it, once
/// that is dropped, and by the program.
pub fn shown_on(ours: OwnedFd) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut shown = Vec::new();
        // The last end closed is an error on this side.
        let _ = File::from(ours).read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    })
}
