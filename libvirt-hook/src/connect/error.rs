//! What libvirt's errors mean for us.

use rblocksync::error::{Error, Kind};
use virt::error::{Error as VirError, ErrorDomain, ErrorNumber};

/// The kind of a failure, and what can be done about it.
fn meaning(code: ErrorNumber) -> (Kind, Option<&'static str>) {
    use ErrorNumber as N;
    match code {
        N::NoDomain | N::InvalidDomain => (Kind::NotFound, Some("'virsh list --all' lists the domains")),
        N::NoDomainCheckpoint | N::NoDomainSnapshot | N::NoDomainBackup | N::NoDomainMetadata => (Kind::NotFound, None),
        N::NoStoragePool => (Kind::NotFound, Some("'virsh pool-list --all' lists the pools")),
        N::NoStorageVolume => (Kind::NotFound, Some("'virsh vol-list POOL' lists the volumes; a new file needs 'virsh pool-refresh POOL'")),
        N::NoNetwork => (Kind::NotFound, Some("'virsh net-list --all' lists the networks")),
        N::NoSecret | N::NoNodeDevice | N::NoInterface | N::NoNwfilter => (Kind::NotFound, None),
        N::NoConnect | N::NoServer | N::InvalidConn => (
            Kind::Remote,
            Some("is libvirtd or virtqemud running there? 'systemctl status libvirtd virtqemud.socket'"),
        ),
        N::Rpc | N::GnutlsError | N::Ssh | N::Libssh | N::UnknownHost => {
            (Kind::Remote, Some("the connection to libvirt is gone, or could not be made"))
        }
        N::AuthFailed | N::AuthCancelled | N::AuthUnavailable | N::AccessDenied | N::OperationDenied => (
            Kind::Permission,
            Some("run this as root, or as a member of the group 'libvirt'"),
        ),
        N::OperationTimeout => (
            Kind::Busy,
            Some("another job has the domain: 'virsh domjobinfo' tells which; run again when it is over"),
        ),
        N::ResourceBusy | N::BlockCopyActive => (Kind::Busy, None),
        // The domain is in the wrong state for it.
        N::OperationInvalid => (Kind::Busy, None),
        N::OperationAborted => (Kind::Cancelled, None),
        N::DomExist | N::StorageVolExist | N::NetworkExist => (Kind::Refused, None),
        N::ArgumentUnsupported | N::ConfigUnsupported | N::OperationUnsupported | N::NoSupport => (Kind::Refused, None),
        N::MigrateUnsafe | N::CpuIncompatible | N::SnapshotRevertRisky => (Kind::Refused, None),
        N::HookScriptFailed => (
            Kind::Refused,
            Some("a hook below /etc/libvirt/hooks on that host refused it, for the reason above"),
        ),
        N::XmlError | N::XmlDetail | N::XmlInvalidSchema | N::InvalidArg | N::InvalidDomainCheckpoint => (Kind::Usage, None),
        N::AgentUnresponsive | N::AgentUnsynced | N::AgentCommandTimeout => (Kind::Timeout, None),
        N::NoMemory => (Kind::Space, None),
        _ => (Kind::Tool, None),
    }
}

/// An error that says what could not be done (`what` completes "cannot ...") and what libvirt says of it.
pub(crate) fn explain(what: &str, error: &VirError) -> Error {
    let (kind, advice) = match is_lost(error) {
        true => meaning(ErrorNumber::Rpc),
        false => meaning(error.code()),
    };
    let explained = Error::new(kind, format!("cannot {what}")).because(error.message().to_owned());
    match advice {
        Some(advice) => explained.advise(advice),
        None => explained,
    }
}

/// Whether it is the way to the daemon that failed, not what the daemon was to do. A socket that is closed or cannot be
/// connected to is an ordinary error of the system for libvirt; only the part of its library says that it was the socket.
fn is_lost(error: &VirError) -> bool {
    let general = [ErrorNumber::SystemError, ErrorNumber::InternalError];
    error.domain() == ErrorDomain::Rpc && general.contains(&error.code())
}

/// What kind of failure it is for libvirt.
pub(crate) fn code_of(error: &VirError) -> ErrorNumber {
    error.code()
}
