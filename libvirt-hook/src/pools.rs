//! Pools: which one a volume is in, and what a new volume of one would be.

use crate::host::{Host, PoolFound};
use crate::xml::Element;
use rblocksync::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: PoolKind,
    /// It was started.
    pub active: bool,
}

/// What a pool's volumes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolKind {
    /// Files of a directory.
    Dir(PathBuf),
    /// The same, on another host's file system.
    NetDir(PathBuf),
    /// Logical volumes of a group.
    Group(String),
    /// Something that we make no volumes in: its type.
    Other(String),
}

impl Pool {
    fn of(found: &PoolFound) -> Result<Pool> {
        let xml = Element::parse(
            &format!("the definition of pool {}", found.name),
            &found.xml,
        )?;
        let kind = xml.attribute("type").unwrap_or("unknown");
        let path = xml.at(&["target", "path"]).map(|p| PathBuf::from(p.text()));
        let source = xml.at(&["source", "name"]).map(Element::text);
        let kind = match (kind, path, source) {
            ("dir" | "fs", Some(path), _) => PoolKind::Dir(path),
            ("netfs" | "gluster", Some(path), _) => PoolKind::NetDir(path),
            ("logical", _, Some(vg)) => PoolKind::Group(vg),
            // Without a name of its own the group is called like the pool.
            ("logical", _, None) => PoolKind::Group(found.name.clone()),
            (other, ..) => PoolKind::Other(other.to_owned()),
        };
        Ok(Pool {
            name: found.name.clone(),
            kind,
            active: found.active,
        })
    }

    /// Whether a volume of this path would be one of the pool's.
    pub fn holds(&self, path: &Path) -> bool {
        match &self.kind {
            PoolKind::Dir(dir) | PoolKind::NetDir(dir) => path.parent() == Some(dir),
            PoolKind::Group(vg) => path.parent() == Some(&Path::new("/dev").join(vg)),
            PoolKind::Other(_) => false,
        }
    }
}

/// All pools of the host.
pub fn all(host: &dyn Host) -> Result<Vec<Pool>> {
    host.pools()?.iter().map(Pool::of).collect()
}

/// The pool of this name, which must have been started.
pub fn usable<'a>(pools: &'a [Pool], name: &str, host: &str) -> Result<&'a Pool> {
    let Some(pool) = pools.iter().find(|pool| pool.name == name) else {
        let known: Vec<&str> = pools.iter().map(|p| p.name.as_str()).collect();
        let what = format!("there is no pool {name} on {host}");
        return Err(
            Error::new(Kind::NotFound, what).advise(match known.is_empty() {
                true => "it has none: name a directory, with --path SRC=DST".to_owned(),
                false => format!("it has {}: name one with --pool SRC=DST", known.join(", ")),
            }),
        );
    };
    match pool.active {
        true => Ok(pool),
        false => Err(Error::new(
            Kind::Refused,
            format!("pool {name} on {host} is not started"),
        )
        .advise(format!("virsh pool-start {name}"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_known_by_their_definitions() {
        let of = |xml: &str| {
            Pool::of(&PoolFound {
                name: "p".into(),
                xml: xml.into(),
                active: true,
            })
            .unwrap()
        };
        let table = [
            (
                "<pool type='dir'><target><path>/srv/vm</path></target></pool>",
                PoolKind::Dir("/srv/vm".into()),
                "/srv/vm/a.qcow2",
            ),
            (
                "<pool type='netfs'><target><path>/mnt</path></target></pool>",
                PoolKind::NetDir("/mnt".into()),
                "/mnt/a",
            ),
            (
                "<pool type='logical'><source><name>vg0</name></source><target><path>/dev/vg0</path></target></pool>",
                PoolKind::Group("vg0".into()),
                "/dev/vg0/web",
            ),
            ("<pool type='logical'/>", PoolKind::Group("p".into()), "/dev/p/x"),
        ];
        for (xml, kind, held) in table {
            let pool = of(xml);
            assert_eq!(pool.kind, kind);
            assert!(pool.holds(Path::new(held)), "{held}");
            assert!(!pool.holds(Path::new("/srv/vm/deeper/a")));
        }
        assert_eq!(of("<pool type='rbd'/>").kind, PoolKind::Other("rbd".into()));
    }

    #[test]
    fn a_pool_must_be_there_and_started() {
        let pools = [Pool {
            name: "default".into(),
            kind: PoolKind::Dir("/d".into()),
            active: false,
        }];
        let missing = usable(&pools, "fast", "host2").unwrap_err();
        assert!(missing.to_string().contains("it has default"), "{missing}");
        let stopped = usable(&pools, "default", "host2").unwrap_err();
        assert!(
            stopped.to_string().contains("pool-start default"),
            "{stopped}"
        );
    }
}
