//! The agent for a user other than root: what sudo has to be told.

use crate::error::{Error, Kind, Result};

const TEMPLATE: &str = include_str!("../../../../packaging/sudoers/rblocksync");

/// One command that one user may run as root, without a password.
pub(super) struct Rule<'a> {
    pub user: &'a str,
    pub program: &'a str,
    pub policy: &'a str,
    /// Names the file and what is defined in it: those of other hosts and programs have others.
    pub marker: &'a str,
}

/// Refuses what sudo would take for something else than the name of one user.
pub(super) fn check_user(user: &str) -> Result<()> {
    let bad = |why: &str| {
        let shown = user.escape_default();
        let what = format!("--user \"{shown}\": {why}");
        Error::new(Kind::Usage, what).advise("make a user for this, as docs/security.md tells")
    };
    if user == "root" {
        return Err(bad("root needs no sudo").advise("leave --user out"));
    }
    // A capital letter begins an alias, and ALL is everybody; %, + and # begin groups and numbers.
    let first = |b: &u8| b.is_ascii_lowercase() || *b == b'_';
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if !user.as_bytes().first().is_some_and(first) || !user.bytes().all(rest) {
        return Err(bad(
            "for sudo a name begins with a small letter, and has letters, digits, '_', '-' and '.' only",
        ));
    }
    Ok(())
}

/// Where sudo reads it.
pub(super) fn file(marker: &str) -> String {
    format!("/etc/sudoers.d/{marker}")
}

impl Rule<'_> {
    /// The file's text.
    pub fn text(&self) -> String {
        let alias = self.marker.to_ascii_uppercase().replace('-', "_");
        let lines = TEMPLATE.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let line = line.replace("@ALIAS@", &alias);
                let line = line.replace("@USER@", self.user);
                let line = line.replace("@PROGRAM@", self.program);
                format!("{}\n", line.replace("@POLICY@", self.policy))
            })
            .collect()
    }

    /// What root types to install it. A file with a dot in its name is not read by sudo: so what is wrong never counts.
    pub fn commands(&self) -> String {
        let file = file(self.marker);
        format!(
            "cat > {file}.new <<'END'\n{}END\n\
             chmod 440 {file}.new && visudo -c -f {file}.new && mv {file}.new {file}",
            self.text()
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sudo_is_told_of_one_command() {
        let rule = Rule {
            user: "replica",
            program: "/usr/bin/pvesync",
            policy: "/etc/rblocksync/policies/pvesync-1f.toml",
            marker: "pvesync-1f",
        };
        let text = rule.text();
        assert!(!text.contains('@'), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        let command = "/usr/bin/pvesync agent --restrict /etc/rblocksync/policies/pvesync-1f.toml";
        assert_eq!(lines[0], format!("Cmnd_Alias PVESYNC_1F = {command}"));
        let last = lines.last().unwrap();
        assert_eq!(*last, "replica ALL=(root) NOPASSWD: NOSETENV: PVESYNC_1F");
        let between = &lines[1..lines.len() - 1];
        let of_it_alone = |line: &&str| line.starts_with("Defaults!PVESYNC_1F ");
        assert!(between.iter().all(of_it_alone), "{text}");
        assert!(rule.commands().contains(&text));
    }

    #[test]
    fn what_is_no_single_user_to_sudo_is_refused() {
        for user in ["replica", "_x", "a.b-c_9"] {
            check_user(user).unwrap();
        }
        for user in [
            "",
            "root",
            "ALL",
            "ADMINS",
            "%wheel",
            "+group",
            "#0",
            "a,b",
            "a=b",
            "a b",
            "a\nb",
            "!a",
            "-a",
            "a@b",
            "DOMAIN\\a",
            "\u{fc}x",
        ] {
            assert_eq!(check_user(user).unwrap_err().kind(), Kind::Usage, "{user}");
        }
    }
}
