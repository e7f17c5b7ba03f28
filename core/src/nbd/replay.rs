//! A door for the fuzz targets: what a server says, without a server.

use super::export::Export;
use super::handshake::{negotiate, Wish};
use super::proto;
use super::reply::{Answer, Extent, Header, Request};
use super::{BASE_ALLOCATION, QEMU_DIRTY_BITMAP};
use crate::error::{Error, Result};
use crate::range::ByteRange;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// A request that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Asked {
    Read(ByteRange),
    Write(ByteRange),
    Zero(ByteRange),
    Status(ByteRange),
    Flush,
}

impl Asked {
    fn request(self) -> Request {
        let (command, range) = match self {
            Asked::Read(range) => (proto::CMD_READ, range),
            Asked::Write(range) => (proto::CMD_WRITE, range),
            Asked::Zero(range) => (proto::CMD_WRITE_ZEROES, range),
            Asked::Status(range) => (proto::CMD_BLOCK_STATUS, range),
            Asked::Flush => (proto::CMD_FLUSH, ByteRange::new(0, 0)),
        };
        Request::new(command, range)
    }
}

/// What came of a request that was answered to the end.
pub struct Answered {
    /// Its number, from 1 on.
    pub cookie: u64,
    /// The bytes of a read and the extents of a status in context 1; or the text of the server's error.
    pub result: std::result::Result<(Vec<u8>, Vec<Extent>), String>,
}

struct Script<'a, 'b>(&'a mut &'b [u8]);

impl Read for Script<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Script<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The handshake with a server that says this, up to where replies begin.
pub fn handshake(said: &mut &[u8]) -> Result<Export> {
    let wish = Wish {
        export: "vda".into(),
        contexts: vec![BASE_ALLOCATION.into(), format!("{QEMU_DIRTY_BITMAP}b")],
    };
    negotiate(&mut Script(said), &wish)
}

/// Takes in replies to the requests, which have the cookies 1, 2, and so on, until one is wrong or nothing is left.
pub fn replies(said: &mut &[u8], structured: bool, asked: &[Asked]) -> (Vec<Answered>, Error) {
    let mut open: BTreeMap<u64, Answer> = (1..)
        .zip(asked)
        .map(|(cookie, asked)| {
            let request = asked.request();
            let answer = match asked {
                // What a buffer holds that was used before.
                Asked::Read(range) => {
                    Answer::to_read(request, structured, vec![0x55; range.len() as usize])
                }
                Asked::Status(_) => Answer::to_status(request, structured, 1),
                _ => Answer::to(request, structured),
            };
            (cookie, answer)
        })
        .collect();
    let mut answered = Vec::new();
    loop {
        let mut next = || -> Result<Option<Answered>> {
            let header = Header::read(said, structured)?;
            let cookie = header.cookie;
            let nobody = || super::take::violation("nobody asked");
            let answer = open.get_mut(&cookie).ok_or_else(nobody)?;
            if !answer.take(header, said)? {
                return Ok(None);
            }
            let answer = open.remove(&cookie).ok_or_else(nobody)?;
            let result = match answer.finish() {
                Ok(done) => Ok((done.data, done.extents)),
                Err(refusal) => Err(refusal.error("cannot").to_string()),
            };
            Ok(Some(Answered { cookie, result }))
        };
        match next() {
            Ok(done) => answered.extend(done),
            Err(e) => return (answered, e),
        }
    }
}
