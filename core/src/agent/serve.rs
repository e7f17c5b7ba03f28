//! The agent's loop: one request after the other, until the input ends.

use super::block::{path_of, BlockEnd, BlockRequest, OpenTable};
use super::lanes::Gate;
use super::restrict::{admitted, not_allowed, OwnFiles, Policy, Warden};
use super::{decode, encode, Answer};
use crate::bell::Bell;
use crate::error::{Error, Kind, Result};
use crate::stop::Stop;
use crate::sync::Meter;
use crate::wire::{limits, ErrorReport, Frame, Link, LinkReader, Received};
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Requests that a front end adds to the block service.
pub trait Service {
    /// Answers a request of this front end. An error is reported; the agent goes on. What takes long uses
    /// [`while_there`], to end when the driver does.
    fn handle(&mut self, request: Value, driver: &mut LinkReader) -> Result<Value>;

    /// The same for a driver that may do only what `policy` allows. Without a judge of its own a service refuses everything.
    fn handle_under(
        &mut self,
        policy: &Policy,
        request: Value,
        driver: &mut LinkReader,
    ) -> Result<Value> {
        let _ = (policy, request, driver);
        Err(not_allowed("this request"))
    }

    /// What this service has made that such a driver may write to by requests of the block service.
    fn own_files(&mut self, policy: &Policy) -> Result<OwnFiles> {
        let _ = policy;
        Ok(OwnFiles::default())
    }

    /// Whether such a driver may be led to this socket of the host.
    fn may_pour(&mut self, policy: &Policy, socket: &Path) -> Result<()> {
        let _ = policy;
        Err(not_allowed(&format!("to reach {}", socket.display())))
    }
}

/// No requests but the block service's.
pub struct NoService;

impl Service for NoService {
    fn handle(&mut self, _: Value, _: &mut LinkReader) -> Result<Value> {
        Err(Error::new(Kind::Protocol, "this agent only serves images"))
    }
}

/// Runs `work` as long as the driver is there: the flag is set when it has gone.
pub fn while_there<T>(driver: &mut LinkReader, work: impl FnOnce(&Stop) -> Result<T>) -> Result<T> {
    let (done, stop) = (Bell::new()?, Stop::new());
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let watched = driver.watch(&done);
            if watched.is_err() {
                stop.stop();
            }
            watched
        });
        let result = work(&stop);
        done.ring();
        // Who has gone is why the work ended, not what it then said.
        match watching.join() {
            Ok(Err(gone)) => Err(gone),
            _ => result,
        }
    })
}

/// A request's outer form.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    Block(BlockRequest),
    Host(Value),
}

/// Serves one driver on `input` and `output` until it closes the link. With a token, lanes may join.
pub fn serve(
    program: &str,
    input: OwnedFd,
    output: OwnedFd,
    token: Option<&str>,
    stop: Stop,
    service: &mut dyn Service,
) -> Result<()> {
    serve_under(None, program, (input, output), token, stop, service)
}

/// The same, as far as the warden lets the driver.
pub fn serve_under(
    mut warden: Option<Warden>,
    program: &str,
    (input, output): (OwnedFd, OwnedFd),
    token: Option<&str>,
    stop: Stop,
    service: &mut dyn Service,
) -> Result<()> {
    // Before our hello: who has heard that may send lanes.
    let gate = token.map(Gate::bind).transpose()?;
    let mut link = Link::handshake(input, output, program, "driver", stop)?;
    if let Some(gate) = gate {
        gate.open(link.lanes())?;
    }
    link.reader
        .set_rate_max(warden.as_ref().and_then(Warden::bandwidth));
    let (mut end, mut table): (Option<BlockEnd>, Option<OpenTable>) = (None, None);
    loop {
        link.reader.set_frame_max(limits::CONTROL_FRAME_MAX);
        let json = match link.reader.receive()? {
            Received::End => return Ok(()),
            Received::Frame(Frame::Request(json)) => json,
            Received::Frame(other) => {
                let error = link.reader.unexpected(&other);
                link.writer.report(&error);
                return Err(error);
            }
        };
        let request = decode(&json).and_then(|r| admitted(warden.as_mut(), r, service));
        let answer = match request {
            Ok(Request::Host(request)) => match &warden {
                Some(warden) => warden.handle(request, &mut link.reader, service),
                None => service.handle(request, &mut link.reader),
            },
            Ok(Request::Block(BlockRequest::Sync(role, params))) => {
                let Some(end) = &mut end else {
                    let error = Error::new(Kind::Protocol, "nothing is open to be synced");
                    answer(&mut link, Err(error))?;
                    continue;
                };
                let table = table.take();
                if params.first > table.as_ref().map_or(0, |t| t.done) {
                    let error = Error::new(Kind::Protocol, "a sync leaves out what is not here");
                    answer(&mut link, Err(error))?;
                    continue;
                }
                answer(&mut link, Ok(Value::Null))?;
                let table = table.as_ref().map(|t| &t.table);
                end.sync(role, &params, &mut link, &Meter::new(), table)?;
                continue;
            }
            Ok(Request::Block(BlockRequest::Mend(mend))) if end.is_some() => {
                answer(&mut link, Ok(Value::Null))?;
                let end = end.as_mut();
                end.map_or(Ok(()), |end| end.receive_segments(&mend, &mut link))?;
                continue;
            }
            Ok(Request::Block(BlockRequest::Table(wanted))) if end.is_some() => {
                OpenTable::resume(&wanted).map(|open| Value::from(table.insert(open).done))
            }
            Ok(Request::Block(request)) => block(&mut end, request, warden.as_mut()),
            Err(e) => Err(e),
        };
        self::answer(&mut link, answer)?;
    }
}

fn block(
    end: &mut Option<BlockEnd>,
    request: BlockRequest,
    warden: Option<&mut Warden>,
) -> Result<Value> {
    let not_open = || Error::new(Kind::Protocol, "no image is open");
    let opened = match request {
        // What was open before is let go first, with its locks: it may be the same file.
        BlockRequest::OpenSource(open) => {
            *end = None;
            BlockEnd::source(&path_of(&open.path)?, open.format, open.direct)?
        }
        BlockRequest::OpenTarget(open) => {
            *end = None;
            BlockEnd::target(&path_of(&open.path)?, open.options())?
        }
        BlockRequest::Resize(size) => {
            end.as_mut().ok_or_else(not_open)?.resize(size)?;
            return Ok(Value::Null);
        }
        BlockRequest::Commit => {
            end.as_mut().ok_or_else(not_open)?.commit()?;
            return Ok(Value::Null);
        }
        BlockRequest::Table(_) | BlockRequest::Mend(_) | BlockRequest::Sync(..) => {
            return Err(not_open())
        }
    };
    if let Some(warden) = warden {
        warden.opened(&opened.1)?;
    }
    *end = Some(opened.0);
    serde_json::to_value(opened.1)
        .map_err(|e| Error::new(Kind::Protocol, "cannot encode a message").because(e))
}

fn answer(link: &mut Link, answer: Result<Value>) -> Result<()> {
    let answer = match answer {
        Ok(value) => Answer::Done(value),
        Err(error) => Answer::Failed(ErrorReport::of(&error)),
    };
    link.writer.send(&Frame::Reply(encode(&answer)?))?;
    link.writer.flush()
}
