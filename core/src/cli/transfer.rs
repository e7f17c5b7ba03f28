//! One sync from SRC to DST, whichever of the two is remote: open, check, run, finish.

use super::{Endpoint, Reporter};
use crate::agent::{path_bytes, BlockEnd, BlockRequest, OpenSource, OpenTarget, Opened, Role};
use crate::driver::{explain, RemoteAgent, Streams};
use crate::error::{Error, Kind, Result};
use crate::image::{ImageFormat, TargetOptions};
use crate::remote::{AgentEnd, Remote, SshOptions};
use crate::stop::Stop;
use crate::sync::{self, BlockMap, Geometry, Meter, Params, Summary, Tuning};
use crate::wire::Link;
use std::path::Path;
use std::sync::Arc;

/// What is to be synced, and how.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Where from.
    pub source: Endpoint,
    /// How the source's bytes lie in its file.
    pub source_format: ImageFormat,
    /// Where to.
    pub target: Endpoint,
    /// How the target's bytes lie in its file.
    pub target_format: ImageFormat,
    /// Bytes of a leaf, the unit of change.
    pub leaf_bytes: u32,
    /// Create the target or change its size to the source's.
    pub truncate: bool,
    /// Sync the part that both have if their sizes differ.
    pub ignore_size: bool,
    /// Compare only.
    pub dry_run: bool,
    /// Hash function, compression and so on.
    pub tuning: Tuning,
    /// Streams to each remote end.
    pub streams: Streams,
    /// Past the page cache, also where an end is a file.
    pub direct: bool,
    /// Note what was where on the image.
    pub map: bool,
}

const PROGRAM: &str = "rblocksync";

/// An open image on this host or behind an agent.
enum End {
    Local(BlockEnd),
    Remote(Box<RemoteEnd>),
}

struct RemoteEnd {
    agent: RemoteAgent,
    session: Remote,
}

/// Runs the transfer. `stop` ends it early, with everything on the way cleaned up.
/// Besides the summary there is a map, if one was asked for.
pub fn run(
    transfer: &Transfer,
    ssh: &SshOptions,
    reporter: &Reporter,
    stop: &Stop,
) -> Result<(Summary, Option<BlockMap>)> {
    let (mut source, from) = open(&transfer.source, Role::Source, transfer, ssh, stop)?;
    let (mut target, to) = match open(&transfer.target, Role::Target, transfer, ssh, stop) {
        Ok(opened) => opened,
        Err(e) => {
            close(source);
            return Err(e);
        }
    };
    for note in [&from.note, &to.note].into_iter().flatten() {
        reporter.note(note);
    }
    let result = checked_size(transfer, &from, &to).and_then(|size| {
        if let (End::Local(source), End::Local(target)) = (&source, &target) {
            target.begin_as_clone_of(source);
        }
        // A new file may be the rest of an earlier run, of any size.
        if to.is_new || (transfer.truncate && size != to.size) {
            target.resize(size)?;
        }
        let geometry = Geometry::new(size, transfer.leaf_bytes)?;
        let params = Params {
            dry_run: transfer.dry_run,
            map: transfer.map,
            ..Params::new(geometry, &transfer.tuning)
        };
        let meter = Arc::new(Meter::new());
        let watch = reporter.watch(&transfer.target.to_string(), meter.clone());
        let result = transfer_blocks(&mut source, &mut target, &params, &meter, stop);
        drop(watch);
        let summary = result?;
        for end in [&mut source, &mut target] {
            if let Some(why) = end.lacks() {
                reporter.note(&why.message());
            }
        }
        stop.check()?;
        target.commit(transfer.dry_run)?;
        Ok((summary, meter.map()))
    });
    let ends = [close(source), close(target)];
    result.map_err(|e| explain(e, ends))
}

/// The size to sync, or why the two cannot be synced.
fn checked_size(transfer: &Transfer, from: &Opened, to: &Opened) -> Result<u64> {
    if from.identity.is_some() && from.identity == to.identity {
        return Err(Error::new(
            Kind::Usage,
            format!("{} and {} are the same", transfer.source, transfer.target),
        ));
    }
    if from.size == to.size && !to.is_new {
        return Ok(from.size);
    }
    if transfer.truncate {
        return match to.is_device {
            false => Ok(from.size),
            true => Err(sizes_differ(transfer, from, to)
                .advise("a device cannot be truncated: resize it, or use --ignore-size")),
        };
    }
    if transfer.ignore_size {
        return Ok(from.size.min(to.size));
    }
    Err(sizes_differ(transfer, from, to).advise(
        "--truncate gives a file the source's size, --ignore-size syncs the part both have",
    ))
}

fn sizes_differ(transfer: &Transfer, from: &Opened, to: &Opened) -> Error {
    Error::new(
        Kind::Refused,
        format!(
            "sizes differ: {} has {} bytes, {} has {}",
            transfer.source, from.size, transfer.target, to.size
        ),
    )
}

fn open(
    endpoint: &Endpoint,
    role: Role,
    transfer: &Transfer,
    ssh: &SshOptions,
    stop: &Stop,
) -> Result<(End, Opened)> {
    match endpoint {
        Endpoint::Local(path) => {
            let (end, opened) = match role {
                Role::Source => BlockEnd::source(path, transfer.source_format, transfer.direct)?,
                Role::Target => BlockEnd::target(
                    path,
                    TargetOptions {
                        create: transfer.truncate,
                        read_only: transfer.dry_run,
                        direct: transfer.direct,
                        format: transfer.target_format,
                    },
                )?,
            };
            Ok((End::Local(end), opened))
        }
        Endpoint::Remote(host, path) => {
            let session = Remote::connect(host, ssh)?;
            let mut agent = RemoteAgent::start(&session, PROGRAM, transfer.streams, stop)?;
            match agent.client().block(open_request(path, role, transfer)) {
                Ok(opened) => Ok((End::Remote(Box::new(RemoteEnd { agent, session })), opened)),
                Err(e) => Err(explain(e, [Some(agent.finish())])),
            }
        }
    }
}

fn open_request(path: &Path, role: Role, transfer: &Transfer) -> BlockRequest {
    match role {
        Role::Source => BlockRequest::OpenSource(OpenSource {
            path: path_bytes(path),
            direct: transfer.direct,
            format: transfer.source_format,
        }),
        Role::Target => BlockRequest::OpenTarget(OpenTarget {
            path: path_bytes(path),
            create: transfer.truncate,
            dry_run: transfer.dry_run,
            direct: transfer.direct,
            format: transfer.target_format,
        }),
    }
}

impl End {
    fn resize(&mut self, size: u64) -> Result<()> {
        match self {
            End::Local(end) => end.resize(size),
            End::Remote(end) => end.agent.client().block(BlockRequest::Resize(size)),
        }
    }

    /// Why it has fewer streams than were asked for, if so.
    fn lacks(&mut self) -> Option<Error> {
        match self {
            End::Local(_) => None,
            End::Remote(end) => end.agent.lacks(),
        }
    }

    fn commit(&mut self, dry_run: bool) -> Result<()> {
        match self {
            _ if dry_run => Ok(()),
            End::Local(end) => end.commit(),
            End::Remote(end) => end.agent.client().block(BlockRequest::Commit),
        }
    }
}

fn transfer_blocks(
    source: &mut End,
    target: &mut End,
    params: &Params,
    meter: &Meter,
    stop: &Stop,
) -> Result<Summary> {
    match (source, target) {
        (End::Local(source), End::Local(target)) => target.sync_from(source, params, meter, stop),
        (End::Local(source), End::Remote(target)) => target.sync(Role::Target, params, |link| {
            source.sync(Role::Source, params, link, meter, None)
        }),
        (End::Remote(source), End::Local(target)) => source.sync(Role::Source, params, |link| {
            target.sync(Role::Target, params, link, meter, None)
        }),
        (End::Remote(source), End::Remote(target)) => source.sync(Role::Source, params, |from| {
            target.sync(Role::Target, params, |to| {
                sync::relay(from, to, params, meter)
            })
        }),
    }
}

impl RemoteEnd {
    /// Has the agent run its side of a sync, and `other` the other side.
    fn sync<T>(
        &mut self,
        role: Role,
        params: &Params,
        other: impl FnOnce(&mut Link) -> Result<T>,
    ) -> Result<T> {
        self.agent.carry(&self.session, |client| {
            client.block::<()>(BlockRequest::Sync(role, *params))?;
            other(client.link())
        })
    }
}

/// Closes an end: the agent sees its input end and exits, then the session goes.
fn close(end: End) -> Option<AgentEnd> {
    match end {
        End::Local(_) => None,
        End::Remote(end) => {
            let RemoteEnd { agent, session } = *end;
            let end = agent.finish();
            drop(session);
            Some(end)
        }
    }
}
