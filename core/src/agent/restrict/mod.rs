//! An agent that serves only what a policy names: for a key whose `command="PROGRAM agent --restrict POLICY"` in
//! authorized_keys is run whatever its owner asks for.
//!
//! Every request is one of an enum that is matched without a wildcard: a new kind is not served before somebody has said
//! here, or in the front end's service, what it takes. Refusals go to the driver and to the host's journal.

mod command;
mod pattern;
mod place;
mod policy;

pub use command::{parse as parse_command, Asked};
pub use pattern::Pattern;
pub use policy::{Access, Policy};

use super::block::{path_of, BlockRequest, Opened, Role};
use super::serve::{Request, Service};
use crate::cli::units::printable;
use crate::error::{Error, Kind, Result};
use crate::hostlog::{self, Priority};
use crate::image::{qcow2, ImageFormat};
use crate::wire::LinkReader;
use place::Seen;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a service itself has made for the driver to write, or to read digests from.
#[derive(Debug, Default)]
pub struct OwnFiles {
    /// Images that may be written.
    pub images: Vec<OwnImage>,
    /// Tables of digests that may be written.
    pub tables: Vec<PathBuf>,
    /// Tables that may be read.
    pub bases: Vec<PathBuf>,
}

/// An image that a service has made.
#[derive(Debug)]
pub struct OwnImage {
    /// Where.
    pub path: PathBuf,
    /// How the guest's bytes lie in it.
    pub format: ImageFormat,
    /// It is a logical volume.
    pub is_lv: bool,
}

/// Stands between a driver and what answers it.
pub struct Warden<'a> {
    program: &'a str,
    policy: Policy,
    /// What the open image was opened as.
    open: Option<Role>,
    /// What the request that is being answered is to open.
    opening: Option<(Role, PathBuf, Seen)>,
}

impl<'a> Warden<'a> {
    /// Keeps to the policy in this file.
    pub fn new(program: &'a str, policy: &Path) -> Result<Warden<'a>> {
        let policy = Policy::load(policy).inspect_err(|e| tell(program, None, e))?;
        Ok(Warden {
            program,
            policy,
            open: None,
            opening: None,
        })
    }

    /// What the driver's ssh was asked to run, or why it is refused.
    pub fn asked<'c>(&self, command: &'c str) -> Result<Asked<'c>> {
        let asked = parse_command(self.program, command);
        asked.inspect_err(|e| self.note(e))
    }

    /// Whether the driver may be led to that socket.
    pub fn may_pour(&self, socket: &Path, service: &mut dyn Service) -> Result<()> {
        let may = service.may_pour(&self.policy, socket);
        may.inspect_err(|e| self.note(e))
    }

    /// Most bytes a second that a connection may bring.
    pub(super) fn bandwidth(&self) -> Option<u64> {
        self.policy.bandwidth
    }

    /// Answers a front end's request.
    pub(super) fn handle(
        &self,
        request: Value,
        driver: &mut LinkReader,
        service: &mut dyn Service,
    ) -> Result<Value> {
        let answer = service.handle_under(&self.policy, request, driver);
        answer.inspect_err(|e| self.note(e))
    }

    /// The request as it may be answered, or why not.
    pub(super) fn admit(
        &mut self,
        request: BlockRequest,
        service: &mut dyn Service,
    ) -> Result<BlockRequest> {
        self.opening = None;
        let admitted = self.judge(request, service);
        admitted.inspect_err(|e| self.note(e))
    }

    /// What was opened must be what was judged.
    pub(super) fn opened(&mut self, opened: &Opened) -> Result<()> {
        self.open = None;
        let Some((role, path, seen)) = self.opening.take() else {
            return Ok(());
        };
        let same = seen.check(&path, opened.identity.as_ref());
        same.inspect_err(|e| self.note(e))?;
        self.open = Some(role);
        Ok(())
    }

    fn judge(
        &mut self,
        mut request: BlockRequest,
        service: &mut dyn Service,
    ) -> Result<BlockRequest> {
        match &mut request {
            BlockRequest::OpenSource(open) => {
                if !self.policy.access.reads() {
                    return Err(not_allowed("to read volumes"));
                }
                let path = place::plain(&open.path)?;
                let seen = place::look(&self.policy, &path, false)?;
                if open.format == ImageFormat::Qcow2 {
                    self.check_container(&path)?;
                }
                self.opening = Some((Role::Source, path, seen));
            }
            BlockRequest::OpenTarget(open) => {
                let path = place::plain(&open.path)?;
                let own = service.own_files(&self.policy)?.images;
                let own = own.iter().find(|own| own.path == path);
                let seen = match own {
                    Some(own) if own.format == open.format && !open.create => {
                        place::look_at_own(&path, own.is_lv)?
                    }
                    Some(_) => return Err(not_allowed("to open a fork as something else")),
                    None => self.plain_target(&path, open.create, open.dry_run, open.format)?,
                };
                self.opening = Some((Role::Target, path, seen));
            }
            BlockRequest::Resize(_) | BlockRequest::Commit => self.must_be(Role::Target)?,
            BlockRequest::Sync(role, params) => {
                self.must_be(*role)?;
                if let Some(most) = self.policy.bandwidth {
                    let asked = params.bytes_per_s_max.unwrap_or(most);
                    params.bytes_per_s_max = Some(asked.min(most));
                }
            }
            BlockRequest::Table(table) => {
                self.must_be(Role::Target)?;
                let own = service.own_files(&self.policy)?;
                let base = table.base.as_ref().map(|base| path_of(&base.path));
                let base = base.transpose()?;
                let known = own.tables.contains(&path_of(&table.path)?)
                    && base.is_none_or(|base| own.bases.contains(&base));
                if !known {
                    return Err(not_allowed("to use that file as a table of digests"));
                }
            }
            BlockRequest::Mend(mend) => {
                self.must_be(Role::Target)?;
                if !self.policy.access.overwrites() {
                    return Err(not_allowed("to write to a sealed generation"));
                }
                let own = service.own_files(&self.policy)?;
                if !own.bases.contains(&path_of(&mend.table)?) {
                    return Err(not_allowed("to use that file as a table of digests"));
                }
            }
        }
        Ok(request)
    }

    /// A target that is none of the service's.
    fn plain_target(
        &self,
        path: &Path,
        create: bool,
        dry_run: bool,
        format: ImageFormat,
    ) -> Result<Seen> {
        let access = self.policy.access;
        if format == ImageFormat::Qcow2 {
            // Its header, which a driver can have written as raw bytes, would name files to QEMU.
            return Err(not_allowed("to write qcow2 images other than replicas"));
        }
        let seen = place::look(&self.policy, path, create)?;
        let allowed = match &seen {
            Seen::There(_) => access.overwrites() || (dry_run && access.reads()),
            Seen::Missing { .. } => access.adds() || dry_run,
        };
        match allowed {
            true => Ok(seen),
            false => Err(not_allowed(&format!("to write to {}", path.display()))),
        }
    }

    /// Only what the driver cannot have written, and what names no other file.
    fn check_container(&self, path: &Path) -> Result<()> {
        if self.policy.access.adds() || qcow2::read(path)?.backing.is_some() {
            return Err(not_allowed(
                "to read a qcow2 image that may name other files",
            ));
        }
        Ok(())
    }

    fn must_be(&self, role: Role) -> Result<()> {
        match self.open == Some(role) {
            true => Ok(()),
            false => Err(not_allowed(match role {
                Role::Source => "to read what was not opened to be read",
                Role::Target => "to write what was not opened to be written",
            })),
        }
    }

    /// Notes a refusal. Other errors are the driver's alone.
    fn note(&self, error: &Error) {
        if error.kind() == Kind::Refused {
            tell(self.program, self.policy.log.as_deref(), error);
        }
    }
}

/// What a request is told that the policy does not allow.
pub fn not_allowed(what: &str) -> Error {
    Error::new(
        Kind::Refused,
        format!("the policy of this key does not allow {what}"),
    )
    .advise("see the policy on that host, or use another key")
}

/// The outer form of a request, judged: what the loop is to answer.
pub(super) fn admitted(
    warden: Option<&mut Warden>,
    request: Request,
    service: &mut dyn Service,
) -> Result<Request> {
    match (warden, request) {
        (Some(warden), Request::Block(request)) => {
            warden.admit(request, service).map(Request::Block)
        }
        (_, request) => Ok(request),
    }
}

/// Tells the host's journal, and the log, what was refused and to whom.
fn tell(program: &str, log: Option<&Path>, error: &Error) {
    let client = std::env::var("SSH_CONNECTION").unwrap_or_default();
    let client = client.split(' ').next().unwrap_or_default();
    let client = match client {
        "" => "a driver here".to_owned(),
        address => format!("a driver at {}", printable(address)),
    };
    let message = printable(&format!("{client}: {}", error.message()));
    let name = format!("{program}-agent");
    hostlog::note(Priority::Warning, &name, &message, &[]);
    if let Some(log) = log {
        let time = jiff::Timestamp::now();
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(log);
        // Whom could be told that the log cannot be written? The journal has it.
        let _ = file
            .and_then(|mut file| file.write_all(format!("{time} {name}: {message}\n").as_bytes()));
    }
}
