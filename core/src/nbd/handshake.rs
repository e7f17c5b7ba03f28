//! The handshake: fixed newstyle, then options (`doc/proto.md`, "Newstyle negotiation"). No threads and no sockets
//! here, only a stream.

use super::export::{Context, Export};
use super::limits::{CONTEXTS_MAX, OPTION_REPLIES_MAX, OPTION_REPLY_BYTES_MAX, STRING_BYTES_MAX};
use super::proto;
use super::take::{lost, violation, Take};
use crate::error::{Error, Kind, Result};
use std::io::{Read, Write};

/// What a client wants of a server.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    /// The export's name; the empty one is the server's default.
    pub(super) export: String,
    /// Names of metadata contexts.
    pub(super) contexts: Vec<String>,
}

/// Goes through the handshake. After it the stream carries requests and replies.
pub(super) fn negotiate(stream: &mut (impl Read + Write), wish: &Wish) -> Result<Export> {
    check(wish)?;
    greet(stream)?;
    let structured = ask_for_structured_replies(stream)?;
    let contexts = match structured {
        true => set_contexts(stream, wish)?,
        false => Vec::new(),
    };
    go(stream, wish, structured, contexts)
}

fn check(wish: &Wish) -> Result<()> {
    let strings = std::iter::once(&wish.export).chain(&wish.contexts);
    if wish.contexts.len() > CONTEXTS_MAX || strings.into_iter().any(|s| s.len() > STRING_BYTES_MAX)
    {
        return Err(Error::new(
            Kind::Usage,
            format!("an NBD export's name has at most {STRING_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

fn greet(stream: &mut (impl Read + Write)) -> Result<()> {
    let mut take = Take(stream);
    if take.u64()? != proto::NBDMAGIC {
        return Err(
            Error::new(Kind::Protocol, "what listens there does not speak NBD")
                .advise("see whether it is the right socket"),
        );
    }
    let flags = match take.u64()? {
        proto::IHAVEOPT => take.u16()?,
        proto::OLDSTYLE_MAGIC => 0,
        other => {
            return Err(violation(format!(
                "it sent {other:#018x} where the handshake goes on"
            )))
        }
    };
    if flags & proto::FLAG_FIXED_NEWSTYLE == 0 {
        return Err(Error::new(
            Kind::Protocol,
            "the NBD server is too old: it lacks the fixed newstyle handshake",
        )
        .advise("use qemu-nbd, QEMU's own server, or nbdkit"));
    }
    // Ours have the same numbers as the server's, and only what the server has set may be set.
    let ours = u32::from(flags & (proto::FLAG_FIXED_NEWSTYLE | proto::FLAG_NO_ZEROES));
    send(stream, &ours.to_be_bytes())
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).map_err(lost)
}

fn send_option(stream: &mut impl Write, option: u32, data: &[u8]) -> Result<()> {
    let mut message = proto::IHAVEOPT.to_be_bytes().to_vec();
    message.extend_from_slice(&option.to_be_bytes());
    message.extend_from_slice(&(data.len() as u32).to_be_bytes());
    message.extend_from_slice(data);
    send(stream, &message)
}

fn put_string(data: &mut Vec<u8>, string: &str) {
    data.extend_from_slice(&(string.len() as u32).to_be_bytes());
    data.extend_from_slice(string.as_bytes());
}

/// One reply to an option.
struct Reply {
    /// `NBD_REP_...`.
    kind: u32,
    data: Vec<u8>,
}

impl Reply {
    fn is_error(&self) -> bool {
        self.kind & proto::REP_ERROR != 0
    }
}

/// The replies to an option in turn, up to the one that ends them.
fn replies(
    stream: &mut impl Read,
    option: u32,
    mut each: impl FnMut(Reply) -> Result<bool>,
) -> Result<()> {
    for _ in 0..OPTION_REPLIES_MAX {
        let mut take = Take(stream);
        let magic = take.u64()?;
        if magic != proto::OPTION_REPLY_MAGIC {
            return Err(violation(format!(
                "it sent {magic:#018x} where a reply to an option should begin"
            )));
        }
        let answered = take.u32()?;
        if answered != option {
            return Err(violation(format!(
                "it answered option {answered} when it was asked for option {option}"
            )));
        }
        let kind = take.u32()?;
        let len = take.u32()?;
        if len > OPTION_REPLY_BYTES_MAX {
            return Err(violation(format!(
                "it answered option {option} with {len} bytes, where {OPTION_REPLY_BYTES_MAX} are allowed"
            )));
        }
        let mut data = vec![0; len as usize];
        take.fill(&mut data)?;
        if each(Reply { kind, data })? {
            return Ok(());
        }
    }
    Err(violation(format!(
        "it answered option {option} more than {OPTION_REPLIES_MAX} times"
    )))
}

fn unexpected(option: u32, reply: &Reply) -> Error {
    violation(format!(
        "it answered option {option} with type {} and {} bytes",
        reply.kind,
        reply.data.len()
    ))
}

fn ask_for_structured_replies(stream: &mut (impl Read + Write)) -> Result<bool> {
    let option = proto::OPT_STRUCTURED_REPLY;
    send_option(stream, option, &[])?;
    let mut structured = false;
    replies(stream, option, |reply| {
        structured = reply.kind == proto::REP_ACK;
        match structured || reply.is_error() {
            true => Ok(true),
            false => Err(unexpected(option, &reply)),
        }
    })?;
    Ok(structured)
}

/// What the server has of the contexts; nothing if it has an error for them. If that is about the export, it will say
/// so again.
fn set_contexts(stream: &mut (impl Read + Write), wish: &Wish) -> Result<Vec<Context>> {
    let option = proto::OPT_SET_META_CONTEXT;
    let mut contexts: Vec<Context> = Vec::new();
    if wish.contexts.is_empty() {
        return Ok(contexts);
    }
    let mut data = Vec::new();
    put_string(&mut data, &wish.export);
    data.extend_from_slice(&(wish.contexts.len() as u32).to_be_bytes());
    for name in &wish.contexts {
        put_string(&mut data, name);
    }
    send_option(stream, option, &data)?;
    replies(stream, option, |reply| match reply.kind {
        proto::REP_META_CONTEXT => {
            let rest = &mut &reply.data[..];
            let id = Take(rest).u32().map_err(|_| unexpected(option, &reply))?;
            let name = String::from_utf8_lossy(rest).into_owned();
            if !wish.contexts.contains(&name) {
                return Err(violation("it answers for a context that nobody asked for"));
            }
            if contexts.iter().any(|c| c.id == id || c.name == name) {
                return Err(violation(format!("it answers for {name} twice")));
            }
            contexts.push(Context { id, name });
            Ok(false)
        }
        proto::REP_ACK => Ok(true),
        _ if reply.is_error() => {
            contexts.clear();
            Ok(true)
        }
        _ => Err(unexpected(option, &reply)),
    })?;
    Ok(contexts)
}

fn go(
    stream: &mut (impl Read + Write),
    wish: &Wish,
    structured: bool,
    contexts: Vec<Context>,
) -> Result<Export> {
    let option = proto::OPT_GO;
    let mut data = Vec::new();
    put_string(&mut data, &wish.export);
    data.extend_from_slice(&1u16.to_be_bytes());
    data.extend_from_slice(&proto::INFO_BLOCK_SIZE.to_be_bytes());
    send_option(stream, option, &data)?;
    let (mut export, mut blocks) = (None, None);
    replies(stream, option, |reply| match reply.kind {
        proto::REP_INFO => {
            let malformed = |_| unexpected(option, &reply);
            let rest = &mut &reply.data[..];
            match (Take(rest).u16().map_err(malformed)?, reply.data.len()) {
                (proto::INFO_EXPORT, 12) if export.is_none() => {
                    export = Some((Take(rest).u64()?, Take(rest).u16()?));
                }
                (proto::INFO_BLOCK_SIZE, 14) if blocks.is_none() => {
                    let (min, _preferred) = (Take(rest).u32()?, Take(rest).u32()?);
                    blocks = Some((min, Take(rest).u32()?));
                }
                (proto::INFO_EXPORT | proto::INFO_BLOCK_SIZE, _) => {
                    return Err(unexpected(option, &reply))
                }
                // A name, a description, or what will be invented yet.
                _ => {}
            }
            Ok(false)
        }
        proto::REP_ACK => Ok(true),
        _ if reply.is_error() => Err(refused(wish, &reply)),
        _ => Err(unexpected(option, &reply)),
    })?;
    let Some(export) = export else {
        return Err(violation("it did not say how large the export is"));
    };
    Export::new(export, blocks, structured, contexts)
}

/// Why there is no export.
fn refused(wish: &Wish, reply: &Reply) -> Error {
    let name = &wish.export;
    let (kind, what, advice) = match reply.kind {
        proto::REP_ERR_UNKNOWN => (
            Kind::NotFound,
            format!("the NBD server has no export \"{name}\""),
            "see which exports it has: nbdinfo --list, or how it was started",
        ),
        proto::REP_ERR_UNSUP => (
            Kind::Protocol,
            "the NBD server is too old: it does not know NBD_OPT_GO".into(),
            "use qemu-nbd, QEMU's own server, or nbdkit",
        ),
        proto::REP_ERR_TLS_REQD => (
            Kind::Permission,
            "the NBD server wants TLS".into(),
            "let it listen on a unix socket without TLS",
        ),
        proto::REP_ERR_POLICY => (
            Kind::Permission,
            format!("the NBD server does not give this client the export \"{name}\""),
            "see how it was started",
        ),
        proto::REP_ERR_SHUTDOWN => (
            Kind::Io,
            "the NBD server is being shut down".into(),
            "start it again",
        ),
        proto::REP_ERR_INVALID
        | proto::REP_ERR_PLATFORM
        | proto::REP_ERR_BLOCK_SIZE_REQD
        | proto::REP_ERR_TOO_BIG => (
            Kind::Protocol,
            format!("the NBD server refuses the export \"{name}\""),
            "see its log",
        ),
        other => (
            Kind::Protocol,
            format!("the NBD server refuses the export \"{name}\" with error {other:#x}"),
            "see its log",
        ),
    };
    // A text that is longer than it may be is no reason to hide why.
    let len = reply.data.len().min(STRING_BYTES_MAX);
    let said = Take(&mut &reply.data[..]).text(len).unwrap_or_default();
    let what = match said.is_empty() {
        true => what,
        false => format!("{what}; it says: {said}"),
    };
    Error::new(kind, what).advise(advice)
}
