//! What a host is for a VM, for the hypervisor's hook that decides whether the VM may start: one small file that needs no
//! program of ours to be read, so that it holds when the suite is removed. A VM without one may start.

use super::layout::Layout;
use super::role::{Role, Standing};
use super::store::{remove, write_text};
use crate::error::{Error, Result};

/// Says what this host is for `vm` since which epoch, and to people why. Only a primary may start it.
/// The file is one line: role, epoch, and the reason, divided by spaces.
pub fn set_guard(layout: &Layout, vm: &str, standing: Standing, why: &str) -> Result<()> {
    let why = why.replace(char::is_control, " ");
    let line = format!("{} {} {why}\n", standing.role, standing.epoch);
    write_text(&layout.guard(vm), &line)
}

/// What the hook is told that this host is for `vm`; `None` if it is told nothing, or nothing that we have written.
pub fn guard_of(layout: &Layout, vm: &str) -> Result<Option<Role>> {
    let path = layout.guard(vm);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("cannot read {}", path.display()), e)),
    };
    let word = text.split(' ').next();
    let roles = [Role::Primary, Role::Replica, Role::Retired, Role::Held];
    Ok(roles
        .into_iter()
        .find(|role| word == Some(role.to_string().as_str())))
}

/// Nothing is known of `vm` any more.
pub fn clear_guard(layout: &Layout, vm: &str) -> Result<()> {
    remove(&layout.guard(vm))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_one_line_that_a_shell_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let standing = Standing {
            role: Role::Retired,
            epoch: 2,
        };
        set_guard(&layout, "101", standing, "it went\nto hvb").unwrap();
        let text = std::fs::read_to_string(layout.guard("101")).unwrap();
        assert_eq!(text, "retired 2 it went to hvb\n");
        assert_eq!(guard_of(&layout, "101").unwrap(), Some(Role::Retired));
        clear_guard(&layout, "101").unwrap();
        clear_guard(&layout, "101").unwrap();
        assert!(!layout.guard("101").exists());
        assert_eq!(guard_of(&layout, "101").unwrap(), None);
    }
}
