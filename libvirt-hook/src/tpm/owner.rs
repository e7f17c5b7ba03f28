//! As whom swtpm runs on this host: its files must be that user's.

use rblocksync::error::{Error, Result};
use std::fs::File;
use std::path::Path;

/// A user and a group.
pub(super) type Owner = Option<(u32, u32)>;

/// What libvirt takes where nothing is said.
const USUAL: &str = "tss";

/// Whom libvirt runs swtpm as, by its configuration; nothing, and why, if there is no such user.
pub(super) fn of_swtpm(conf: &Path) -> (Owner, Vec<String>) {
    let conf = std::fs::read_to_string(conf).unwrap_or_default();
    let (user, group) = (set(&conf, "swtpm_user"), set(&conf, "swtpm_group"));
    let id = |list: &str, name: &str| number(&std::fs::read_to_string(list).ok()?, name);
    match (id("/etc/passwd", &user), id("/etc/group", &group)) {
        (Some(user), Some(group)) => (Some((user, group)), Vec::new()),
        _ => {
            let why = format!(
                "the state of the TPM is there, but no user {user} and group {group}, as whom its emulator runs: install swtpm before the start"
            );
            (None, vec![why])
        }
    }
}

/// The value of a setting; one that is commented out shows what libvirt was built with.
fn set(conf: &str, name: &str) -> String {
    let value = |commented: bool| {
        conf.lines().find_map(|line| {
            let line = match (line.trim().strip_prefix('#'), commented) {
                (Some(line), true) => line,
                (None, false) => line.trim(),
                _ => return None,
            };
            let value = line.strip_prefix(name)?.trim_start().strip_prefix('=')?;
            Some(value.trim().trim_matches('"').to_owned())
        })
    };
    value(false)
        .or_else(|| value(true))
        .unwrap_or_else(|| USUAL.to_owned())
}

/// The number of a user or a group in a list of them; a name can be a number, with a plus before it.
fn number(list: &str, name: &str) -> Option<u32> {
    let named = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1))?
    });
    named
        .unwrap_or(name.strip_prefix('+').unwrap_or(name))
        .parse()
        .ok()
}

/// Gives what is open, and is called `path`, to this user.
pub(super) fn give(opened: &File, path: &Path, owner: Owner) -> Result<()> {
    let Some((user, group)) = owner else {
        return Ok(());
    };
    std::os::unix::fs::fchown(opened, Some(user), Some(group))
        .map_err(|e| Error::io(format!("cannot give {} to swtpm", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_what_the_configuration_says() {
        let shipped = "# User\n#swtpm_user = \"tss\"\n#swtpm_group = \"tss2\"\n";
        assert_eq!(set(shipped, "swtpm_user"), "tss");
        assert_eq!(set(shipped, "swtpm_group"), "tss2");
        let own = format!("{shipped}swtpm_user = \"+107\"\n");
        assert_eq!(set(&own, "swtpm_user"), "+107");
        assert_eq!(set("", "swtpm_user"), "tss");
    }

    #[test]
    fn names_and_numbers_are_known() {
        let list = "root:x:0:0::/:\ntss:x:101:102::/:\n";
        assert_eq!(number(list, "tss"), Some(101));
        assert_eq!(number(list, "+64055"), Some(64055));
        assert_eq!(number(list, "7"), Some(7));
        assert_eq!(number(list, "nobody"), None);
    }
}
